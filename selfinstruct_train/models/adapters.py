"""Switching tuned models on and off on the one loaded base: LoRA adapters, or whole weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.whole import is_whole, put_back, put_weights, weights_changed

_WEIGHTS = "adapter_model.safetensors"
_KEPT = 2
"""Adapters kept in memory: the best round so far, and the one being measured against it."""
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM reserves room for."""


def vllm_ranks(ranks: int) -> int:
    """The ``max_lora_rank`` with which vLLM takes an adapter of so many ranks."""
    return min((known for known in _VLLM_RANKS if known >= ranks), default=ranks)


@contextmanager
def without_advice() -> Iterator[None]:
    """Leave out what transformers and PEFT say to those who wrote the call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for category in (UserWarning, RuntimeWarning):
            warnings.filterwarnings("ignore", category=category, module=r"peft\.")
        yield


class _Key(NamedTuple):
    path: Path
    modified: int
    """Nanoseconds; an adapter that was trained again under the same name is another adapter."""


class AdapterSwitch:
    """Which tuned model is in force on a base.

    With none in force the base computes bit for bit what it did before it ever had one: the
    low-rank layers of an adapter hand over to the linear layers that they wrap, and for whole
    weights the base's own are kept aside. Of whole weights one set is in memory beside the base's.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._wrapped: Any = None
        self._names: dict[_Key, str] = {}
        self._loads = 0
        self._active: str | None = None
        self._base_weights: dict[str, torch.Tensor] = {}
        self._whole: _Key | None = None

    def activate(self, adapter: Path | None) -> str | None:
        """Put a tuned model in force, reading it if need be, or none.

        Args:
            adapter: folder of a LoRA adapter or of whole weights.

        Returns:
            A name that tells this model in this state from any other; None for the base.

        Raises:
            EngineError: the folder holds no model that was tuned from this one.
        """
        if adapter is not None and is_whole(adapter):
            return self._activate_whole(adapter)
        self._put_base_back()
        name = None if adapter is None else self._load(adapter)
        if name != self._active:
            if name is None:
                self._wrapped.base_model.disable_adapter_layers()
            else:
                self._wrapped.base_model.enable_adapter_layers()
                self._wrapped.base_model.set_adapter(name, inference_mode=True)
            self._active = name
        return name

    def release(self) -> None:
        """Take every tuned model out of the base, which is then as it was loaded.

        They are read again when they are next asked for.
        """
        self._put_base_back()
        if self._wrapped is None:
            return
        self._wrapped.unload()
        # PEFT leaves this behind and would take the next training for a second adapter on top of a
        # first.
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config
        self._wrapped, self._active = None, None
        self._names.clear()

    def _activate_whole(self, folder: Path) -> str:
        key = _Key(folder.resolve(), weights_changed(folder))
        if key != self._whole:
            # An adapter wraps the layers, whose weights are then called otherwise.
            self.release()
            self._base_weights = put_weights(self._model, folder)
            self._whole = key
        return f"{key.path} {key.modified}"

    def _put_base_back(self) -> None:
        put_back(self._model, self._base_weights)
        self._base_weights, self._whole = {}, None

    def _load(self, adapter: Path) -> str:
        weights = adapter / _WEIGHTS
        if not weights.is_file():
            raise EngineError(
                f"{weights}: no such file; an adapter is a folder with adapter_config.json and "
                f"{_WEIGHTS}"
            )
        key = _Key(adapter.resolve(), weights.stat().st_mtime_ns)
        if key in self._names:
            return self._names[key]
        self._loads += 1
        name = f"adapter-{self._loads}"
        try:
            with without_advice():
                self._read(adapter, name)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            self.release()
            detail = (str(error).splitlines() or [""])[0][:200]
            raise EngineError(
                f"{adapter}: not a LoRA adapter for this model ({type(error).__name__}: "
                f"{detail}); use the model that it was trained on"
            ) from error
        self._names[key] = name
        while len(self._names) > _KEPT:
            self._wrapped.delete_adapter(self._names.pop(next(iter(self._names))))
        return name

    def _read(self, adapter: Path, name: str) -> None:
        from peft import PeftModel

        if self._wrapped is None:
            self._wrapped = PeftModel.from_pretrained(
                self._model, str(adapter), adapter_name=name, is_trainable=False
            )
        else:
            self._wrapped.load_adapter(str(adapter), adapter_name=name, is_trainable=False)
        self._wrapped.eval()
        self._wrapped.base_model.disable_adapter_layers()
        self._active = None
