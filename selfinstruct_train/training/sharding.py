"""Weights spread over the processes while they train (FSDP2), and put together to be saved."""

from __future__ import annotations

import os
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

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def is_asked_for() -> bool:
    """Whether the launcher wants the weights spread over the processes."""
    return _is_on("ACCELERATE_USE_FSDP")


def is_sharded(model: Any) -> bool:
    """Whether a model's weights are spread over the processes."""
    return isinstance(model, FSDPModule)


def check_launcher(method: str, adapter: str, start: str) -> None:
    """See that the launcher's settings are those that a sharded training here can take.

    Args:
        method: of the training.
        adapter: what is trained.
        start: what each round starts from.

    Raises:
        ConfigError: they are not.
    """
    if not is_asked_for():
        return
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(
            f"fsdp_version: is {version} in the launcher's settings, and weights are sharded here "
            "by FSDP2 alone; set it to 2, as configs/accelerate/fsdp2.yaml does"
        )
    if _is_on("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise ConfigError(
            "fsdp_cpu_ram_efficient_loading: would leave all processes but the first without the "
            "weights that they write with; set it to false in the launcher's settings"
        )
    if adapter == "qlora":
        raise ConfigError(
            "training.adapter: weights in 4 bits are not sharded here; set it to lora, or launch "
            "with configs/accelerate/ddp.yaml"
        )
    if start == "merged":
        raise ConfigError(
            "training.start: weights that are sharded have nothing merged into them here; set it "
            "to base or previous, or launch with configs/accelerate/ddp.yaml"
        )
    if method != "sft":
        raise ConfigError(
            f"training.method: '{method}' cannot be trained with sharded weights; set it to sft, "
            "or launch without FSDP"
        )


def require_sharding(trainer: Trainer) -> None:
    """See that a trainer shards the weights where the launcher asks for it.

    Raises:
        ConfigError: it does not, since accelerate shards on GPUs and other accelerators alone, and
            on CPUs trains with whole copies without a word.
    """
    if is_asked_for() and not trainer.is_fsdp_enabled:
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


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
