"""Loading the one model of a run: weights, tokenizer, device, precision, threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.adapters import AdapterSwitch
from selfinstruct_train.models.gguf import is_gguf, unpacked
from selfinstruct_train.models.memory import free_memory, is_out_of_memory

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "microworld" / "weights"
_NEW_PAD_TOKEN = "<|pad|>"


class LoadedModel(NamedTuple):
    """A causal language model, ready to write and to be trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Its pad token is never its end token, so that training can tell them apart."""
    device: torch.device
    dtype: torch.dtype
    context_length: int
    """Most tokens of prompt and completion together."""
    model_id: str
    adapters: AdapterSwitch
    """Which LoRA adapter, if any, is in force on ``model``."""
    notes: tuple[str, ...]
    """What was decided while loading, one line each, for the log and the manifest."""


def load_model(config: ModelConfig) -> LoadedModel:
    """Load a model for writing and for training.

    Only safetensors are read and no code from the model's folder is run.

    Raises:
        EngineError: the model, its device or its precision is not to be had.
    """
    source = _source(config)
    threads = _set_threads(config.threads)
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        model = _read(source, config, dtype, config.attention).to(device).eval()
    except Exception as error:  # hub, file and format faults come as a dozen unrelated classes
        raise EngineError(_reason(config.name_or_path, device, error)) from error
    notes = (
        f"model {config.name_or_path}: {type(model).__name__}, {model.num_parameters():,} "
        f"parameters, {str(dtype).removeprefix('torch.')} on {device}, attention "
        f"{model.config._attn_implementation}",
        f"CPU threads: {threads}",
        _set_pad_token(tokenizer, model),
    )
    for note in notes:
        log.info(note)
    return LoadedModel(
        model,
        tokenizer,
        device,
        dtype,
        _context_length(config, model),
        config.name_or_path,
        AdapterSwitch(model),
        notes,
    )


def end_tokens(loaded: LoadedModel) -> frozenset[int]:
    """Every token that the model's own settings or its tokenizer name as an end."""
    generation = getattr(loaded.model, "generation_config", None)
    named = [
        getattr(generation, "eos_token_id", None),
        getattr(loaded.model.config.get_text_config(), "eos_token_id", None),
        loaded.tokenizer.eos_token_id,
    ]
    found: set[int] = set()
    for value in named:
        if isinstance(value, Iterable):
            found.update(value)
        elif value is not None:
            found.add(value)
    return frozenset(found)


def _source(config: ModelConfig) -> str:
    name = config.name_or_path
    if is_gguf(name):
        return str(unpacked(name))
    if name != EMBEDDED:
        if Path(name).expanduser().is_dir():
            return str(Path(name).expanduser())
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise EngineError(
                f"model.name_or_path: no folder '{name}'; name a folder with config.json, "
                "tokenizer.json and *.safetensors, a model of the Hugging Face Hub, or "
                f"'{EMBEDDED}'"
            )
        return name
    if not (EMBEDDED_WEIGHTS / "model.safetensors").is_file():
        raise EngineError(
            f"model.name_or_path: this installation lacks the embedded model (no file "
            f"{EMBEDDED_WEIGHTS / 'model.safetensors'}); install the package again, or name "
            f"another model"
        )
    return str(EMBEDDED_WEIGHTS)


def _read(source: str, config: ModelConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    # The program says itself what it does.
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            source,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except ValueError as error:
        # Some architectures, such as Gemma 2, have no sdpa in transformers.
        if attention == "eager" or "scaled_dot_product_attention" not in str(error):
            raise
        return _read(source, config, dtype, "eager")


def _set_threads(wanted: int | None) -> int:
    # More threads than cores make each other wait, and every process of a launch counts.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    by_environment = int(asked) if asked.isdigit() else 0
    threads = wanted or by_environment or max(1, len(os.sched_getaffinity(0)) // processes)
    torch.set_num_threads(threads)
    return threads


def _device(wanted: str) -> torch.device:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EngineError(
            "model.device: 'cuda' is asked for but torch finds no GPU; set it to auto or cpu, or "
            "install a torch built for this GPU"
        )
    if wanted == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bfloat16" and not has_bfloat16:
        raise EngineError(
            f"model.dtype: {torch.cuda.get_device_name(device)} cannot compute in bfloat16; set "
            "it to float16, float32 or auto"
        )
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16 else torch.float32
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def _context_length(config: ModelConfig, model: PreTrainedModel) -> int:
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    wanted = config.context_length
    if known is None and wanted is None:
        raise EngineError(
            f"model.context_length: the config of {config.name_or_path} does not say how many "
            "positions it has; set it"
        )
    if known is not None and wanted is not None and wanted > known:
        raise EngineError(
            f"model.context_length: {wanted} is more than the {known} positions of "
            f"{config.name_or_path}; lower it or leave it out"
        )
    chosen = wanted or known
    assert isinstance(chosen, int)
    return chosen


def _set_pad_token(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> str:
    """Give the tokenizer a pad token that is no end token, in the embedding as it is."""
    ends = {tokenizer.eos_token_id}
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return f"pad token: {tokenizer.pad_token!r}"
    rows = model.get_input_embeddings().weight.shape[0]
    special = sorted(
        (i, token.content)
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special and i not in ends and i < rows
    )
    named = [content for _, content in special if "pad" in content.lower()]
    spare = rows > len(tokenizer) and _NEW_PAD_TOKEN not in tokenizer.get_vocab()
    unknown = [content for _, content in special if content == tokenizer.unk_token]
    others = [content for _, content in special]
    if named or not spare:
        # An ordinary token serves too: padding is masked by position, never by what it is.
        last = next(i for i in range(min(rows, len(tokenizer)) - 1, -1, -1) if i not in ends)
        chosen = (named or unknown or others or [tokenizer.convert_ids_to_tokens(last)])[0]
        tokenizer.pad_token = chosen
    else:
        chosen = _NEW_PAD_TOKEN
        tokenizer.add_special_tokens({"pad_token": chosen})
    assert tokenizer.pad_token_id not in ends and tokenizer.pad_token_id < rows
    return f"pad token: {chosen!r} (the model has none apart from its end token)"


def _reason(name: str, device: torch.device, error: Exception) -> str:
    if is_out_of_memory(error):
        free = free_memory(device) / 2**30
        return (
            f"model.name_or_path: not enough memory to load '{name}' ({free:.1f} GiB are free on "
            f"{device}); end other programs, name a smaller model, or set model.dtype=bfloat16, "
            "which halves what float32 takes"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
    return (
        f"model.name_or_path: cannot load '{name}' ({detail}); name a model of the Hugging Face "
        f"Hub that has safetensors weights, a folder that holds one, or '{EMBEDDED}'"
    )
