"""Tuned models that are whole weights, in the place of the base's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_train.errors import EngineError

if TYPE_CHECKING:
    import torch

_SETTINGS = "config.json"
_ADAPTER = "adapter_config.json"


def is_whole(folder: Path) -> bool:
    """Whether a tuned model's folder holds whole weights rather than an adapter."""
    return (folder / _SETTINGS).is_file()


def is_tuned(folder: Path) -> bool:
    """Whether a folder holds a tuned model, an adapter or whole weights."""
    return is_whole(folder) or (folder / _ADAPTER).is_file()


def weights_changed(folder: Path) -> int:
    """When the weights of a folder were last written, in nanoseconds; 0 where there are none."""
    return max((file.stat().st_mtime_ns for file in folder.glob("*.safetensors")), default=0)


def put_weights(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Put the weights of a folder in the place of a model's own.

    Args:
        model: of the same architecture; it keeps its precision and its device.
        folder: what `save_pretrained` wrote.

    Returns:
        The weights that the model had, by name, for `put_back`.

    Raises:
        EngineError: the folder does not hold such weights.
    """
    # Whoever asks which models are tuned needs none of these.
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        # Read as whoever loads the folder reads it, since names in files may differ from the
        # model's, as with the experts of a mixture.
        read = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=model.dtype, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # file and format faults come as a dozen unrelated classes
        raise _unfit(folder, f"{type(error).__name__}: {error}") from error
    fresh = dict(read.named_parameters())
    before: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        found = fresh.get(name)
        if found is None or found.shape != parameter.shape:
            put_back(model, before)
            raise _unfit(folder, f"no weight {name} of the shape {tuple(parameter.shape)}")
        before[name] = parameter.data
        parameter.data = found.data.to(parameter.device)
    return before


def put_back(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Give a model weights that it had before."""
    own = dict(model.named_parameters())
    for name, weight in weights.items():
        own[name].data = weight


def _unfit(folder: Path, detail: str) -> EngineError:
    detail = (detail.splitlines() or [""])[0][:200]
    return EngineError(
        f"{folder}: not the weights of a model tuned from this one ({detail}); use the model that "
        "it was tuned from"
    )
