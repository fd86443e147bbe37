"""Switching LoRA adapters on and off on the one loaded base model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from selfinstruct_train.errors import EngineError

_WEIGHTS = "adapter_model.safetensors"
_KEPT = 2
"""Adapters kept in memory: the best round so far, and the one being measured against it."""


class _Key(NamedTuple):
    path: Path
    modified: int
    """Nanoseconds; an adapter that was trained again under the same name is another adapter."""


class AdapterSwitch:
    """Which adapter is in force on a model.

    With none in force the model computes bit for bit what it did before it ever had one: the
    low-rank layers hand over to the linear layers that they wrap.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._wrapped: Any = None
        self._names: dict[_Key, str] = {}
        self._loads = 0
        self._active: str | None = None

    def activate(self, adapter: Path | None) -> str | None:
        """Put an adapter in force, reading it if need be, or none.

        Returns:
            A name that tells this adapter in this state from any other; None for the base.

        Raises:
            EngineError: the folder holds no LoRA adapter for this model.
        """
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
        """Take every adapter out of the model, which is then as it was loaded.

        They are read again when they are next asked for.
        """
        if self._wrapped is None:
            return
        self._wrapped.unload()
        # PEFT leaves this behind and would take the next training for a second adapter on top of a
        # first.
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config
        self._wrapped, self._active = None, None
        self._names.clear()

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
            with warnings.catch_warnings():
                # Advice of transformers to those who wrote PEFT.
                warnings.simplefilter("ignore", FutureWarning)
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
