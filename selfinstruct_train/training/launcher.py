"""What a launcher asks of a training by the environment, held against the settings."""

from __future__ import annotations

import os

from selfinstruct_train.errors import ConfigError


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
