"""Weights spread over the processes while they train (FSDP2), and put together to be saved."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, Trainer

from selfinstruct_train.distributed import World
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.training.launcher import is_sharding_asked_for

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def is_sharded(model: Any) -> bool:
    """Whether a model's weights are spread over the processes."""
    return isinstance(model, FSDPModule)


def require_sharding(trainer: Trainer) -> None:
    """See that a trainer shards the weights where the launcher asks for it.

    Raises:
        ConfigError: it does not, since accelerate shards on GPUs and other accelerators alone, and
            on CPUs trains with whole copies without a word.
    """
    if is_sharding_asked_for() and not trainer.is_fsdp_enabled:
        raise ConfigError(
            "the launcher asks for FSDP, but accelerate shards no weights on CPUs; launch with "
            "configs/accelerate/cpu_2.yaml, or on GPUs"
        )


def gathered(model: Any) -> dict[str, Any]:
    """The trained weights of a sharded model, whole, on the main process; all must call."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return dict(get_model_state_dict(model, options=options))


@contextmanager
def filled(model: Any, trained: Collection[str], folder: Path, world: World) -> Iterator[Any]:
    """A sharded model with the trained weights that a folder holds; every process must call.

    None of those in memory is left: they are zero before the file is read.

    Args:
        model: the trained model, still sharded.
        trained: names of the weights that were trained.
        folder: an adapter or whole weights of this model.
        world: this process among its peers.
    """
    weights: dict[str, Any] = {}
    world.on_main(lambda: weights.update(_read(folder)))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.zero_()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, weights, options=options)
    yield model


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        whole = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        return dict(whole.state_dict())
    # Files leave out the name that peft gives to a model's one adapter.
    return {
        re.sub(r"(lora_(?:embedding_)?[AB])", r"\1.default", name): weight
        for name, weight in load_file(folder / _ADAPTER_WEIGHTS).items()
    }
