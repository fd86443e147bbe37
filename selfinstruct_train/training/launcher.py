"""What a launcher asks of a training, held against the settings: shares, and sharded weights."""

from __future__ import annotations

import os
from typing import NamedTuple

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import ConfigError


class Batching(NamedTuple):
    """How the rows of one optimizer step are shared out."""

    micro_batch: int
    """Rows that each process puts through the model at once."""
    accumulation: int
    """Micro-batches of each process in one optimizer step."""


def share_out(config: TrainingConfig, world: World) -> Batching:
    """Split one optimizer step of ``batch_size`` rows over processes and micro-batches.

    Raises:
        ConfigError: the processes cannot take equal shares.
    """
    share, rest = divmod(config.batch_size, world.size)
    if rest:
        raise ConfigError(
            f"training.batch_size is {config.batch_size}, which {world.size} processes cannot "
            f"share evenly; set it to a multiple of {world.size}"
        )
    micro = next(n for n in range(min(share, config.micro_batch_size), 0, -1) if share % n == 0)
    return Batching(micro, share // micro)


def is_sharding_asked_for() -> bool:
    """Whether the launcher wants the weights spread over the processes."""
    return _is_on("ACCELERATE_USE_FSDP")


def check_launcher(method: str, adapter: str, start: str) -> None:
    """See that the launcher's settings are those that a sharded training here can take.

    Args:
        method: of the training.
        adapter: what is trained.
        start: what each round starts from.

    Raises:
        ConfigError: they are not.
    """
    if not is_sharding_asked_for():
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


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
