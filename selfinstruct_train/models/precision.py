"""In which precision a model computes on this machine, where the config leaves it open."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from typing import Literal, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.models.describe import ModelDescription
from selfinstruct_train.models.load import set_threads

_SMALL = 50_000_000
"""Models of fewer parameters stay in float32: what surrounds their matrix products decides, and is
no faster in bfloat16."""
_CLEAR = 1.5
"""So many times as fast must bfloat16 be; what a busy machine adds to a trial is less."""
_ROWS = 32
"""Rows of a decoding step."""
_PROMPT_ROWS = 512
_OPERATIONS = 1 << 28
"""Multiplications of one trial, a few milliseconds of a core: many small products or a large one
over fewer rows."""
_TRIALS = 6


class Precision(NamedTuple):
    """The precision that is used, and why it is that one."""

    name: Literal["float32", "bfloat16", "float16"]
    note: str

    @property
    def dtype(self) -> torch.dtype:
        """As torch knows it."""
        found: torch.dtype = getattr(torch, self.name)
        return found


def settle_precision(
    config: ModelConfig,
    model: ModelDescription,
    saved: Literal["auto", "float32", "bfloat16", "float16"] | None = None,
) -> Precision | None:
    """Decide ``model.dtype`` where it is ``auto`` and the model lives on a CPU.

    The model's own matrix products are tried in both precisions, which takes about a second.

    Args:
        config: the model's settings.
        model: what `describe_model` made of them.
        saved: ``model.dtype`` as the run was begun with: it is used again, nothing is measured.

    Returns:
        None where there is nothing to decide.
    """
    if config.dtype != "auto" or saved == "auto":
        return None
    if saved is not None:
        return Precision(saved, f"precision {saved}: decided when the run began")
    if model.device.type != "cpu":
        return None
    return _choose(config, model)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On a CPU without the instructions bf16 is emulated, several times slower than float32.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def _choose(config: ModelConfig, model: ModelDescription) -> Precision:
    if not has_fast_bf16(model.device):
        return Precision("float32", "precision float32: this CPU does not compute in bfloat16")
    parameters, shapes = _outline(model)
    if parameters < _SMALL:
        why = f"the model has only {parameters:,} parameters"
        return Precision("float32", f"precision float32: {why}")
    set_threads(config.threads)
    written, read = (_speedup(shapes, rows) for rows in (_ROWS, _PROMPT_ROWS))
    why = (
        f"in bfloat16 this CPU multiplies the model's matrices {written:.1f} times as fast as in "
        f"float32 when it writes, {read:.1f} times when it reads a prompt"
    )
    if min(written, read) < _CLEAR:
        return Precision("float32", f"precision float32: {why}")
    return Precision("bfloat16", f"precision bfloat16: {why}")


def _outline(model: ModelDescription) -> tuple[int, Counter[tuple[int, int]]]:
    """Parameters of the model, and how often it has a matrix of which shape, embeddings apart."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outline = AutoModelForCausalLM.from_config(model.config, trust_remote_code=False)
    ends = {id(outline.get_input_embeddings().weight)}
    if (head := outline.get_output_embeddings()) is not None:
        ends.add(id(head.weight))
    shapes = Counter(
        (weight.shape[1], weight.shape[0])
        for weight in outline.parameters()
        if weight.ndim == 2 and id(weight) not in ends
    )
    return outline.num_parameters(), shapes


@torch.inference_mode()
def _speedup(shapes: Counter[tuple[int, int]], rows: int) -> float:
    """How many times as long the products of all matrices take in float32 as in bfloat16.

    Args:
        shapes: (inputs, outputs) of the matrices, and how many there are of each.
        rows: of what is multiplied with them; a wide matrix gets fewer, but those of a step.
    """
    seconds = {torch.float32: 0.0, torch.bfloat16: 0.0}
    for (inputs, outputs), count in shapes.items():
        weight = torch.ones(outputs, inputs)
        height = min(rows, max(_ROWS, _OPERATIONS // (inputs * outputs)))
        products = max(1, _OPERATIONS // (inputs * outputs * height))
        given = torch.ones(height, inputs)
        tensors = {dtype: (given.to(dtype), weight.to(dtype)) for dtype in seconds}
        best = dict.fromkeys(seconds, float("inf"))
        # In turns, and the best of several: whatever else the machine does hits both alike.
        for _ in range(_TRIALS):
            for dtype, pair in tensors.items():
                # CPU time of all threads, which another program does not stretch.
                began = time.process_time()
                for _ in range(products):
                    torch.nn.functional.linear(*pair)
                best[dtype] = min(best[dtype], time.process_time() - began)
        for dtype in seconds:
            seconds[dtype] += count * best[dtype]
    return seconds[torch.float32] / seconds[torch.bfloat16]
