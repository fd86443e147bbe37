"""The settings of a training, as TRL wants them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import constants
from trl import DPOConfig, SFTConfig

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.models.precision import has_fast_bf16
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.launcher import share_out

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

_CHECKPOINTS_KEPT = 2
ArgumentsT = TypeVar("ArgumentsT", SFTConfig, DPOConfig)


def seeds_only_lengths(
    epochs: Sequence[float], rows: int, batch_size: int, most: int
) -> tuple[int, ...]:
    """Numbers of steps to train on the seed tasks alone: ``most`` first, then shorter ones.

    Args:
        epochs: passes over the rows.
        rows: how many there are.
        batch_size: rows of a step.
        most: steps of the model that is compared with, which none exceeds.
    """
    shorter = {math.ceil(passes * rows / batch_size) for passes in epochs}
    return most, *sorted((steps for steps in shorter if steps < most), reverse=True)


def sft_arguments(
    loaded: LoadedModel,
    config: TrainingConfig,
    directory: RoundDirectory,
    seed: int,
    world: World,
    max_steps_override: int | None,
) -> SFTConfig:
    """Settings of the training on answers; TRL's defaults where nothing is said.

    Raises:
        ConfigError: TRL refuses a setting, or the processes cannot share a batch evenly.
    """
    common = _common(loaded, config, directory, seed, world)
    with _refused():
        arguments = SFTConfig(
            **common,
            learning_rate=config.learning_rate,
            num_train_epochs=config.epochs,
            max_steps=max_steps_override or config.max_steps or -1,
            # Longer rows are already left out, and TRL would write every row again to cut it.
            max_length=None,
            completion_only_loss=True,
            # TRL's own packing would count packed sequences, not rows, in a step.
            padding_free=config.packing,
        )
    return _on_one_device(arguments, world)


def dpo_arguments(
    loaded: LoadedModel,
    config: TrainingConfig,
    directory: RoundDirectory,
    seed: int,
    world: World,
) -> DPOConfig:
    """Settings of the training on pairs; TRL's defaults where nothing is said.

    Raises:
        ConfigError: TRL refuses a setting, or the processes cannot share a batch evenly.
    """
    common, preference = _common(loaded, config, directory, seed, world), config.preference
    with _refused():
        arguments = DPOConfig(
            **common,
            learning_rate=preference.learning_rate,
            num_train_epochs=preference.epochs,
            max_steps=preference.max_steps or -1,
            loss_type=[preference.loss],
            beta=preference.beta,
            # Longer pairs are already left out.
            max_length=min(config.max_length, loaded.context_length),
        )
    return _on_one_device(arguments, world)


def _common(
    loaded: LoadedModel, config: TrainingConfig, directory: RoundDirectory, seed: int, world: World
) -> dict[str, Any]:
    """What bears on the result or on what is left on disk, whatever is learned."""
    batching = share_out(config, world)
    device = torch.device(loaded.device)
    bf16 = has_fast_bf16(device)
    # By default tensorboard writes beside the checkpoints, which do not last.
    if "tensorboard" in config.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(directory.path / "tensorboard"))
    # The switch is read when huggingface_hub is imported, which may be long ago.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    return {
        "output_dir": str(directory.checkpoints),
        "use_cpu": device.type == "cpu",
        "bf16": bf16,
        "fp16": not bf16 and device.type == "cuda" and loaded.dtype == torch.float16,
        "per_device_train_batch_size": batching.micro_batch,
        "gradient_accumulation_steps": batching.accumulation,
        "lr_scheduler_type": config.scheduler,
        # From 1 on transformers takes it for a number of steps.
        "warmup_steps": min(config.warmup_fraction, 0.999),
        "weight_decay": config.weight_decay,
        "optim": "adamw_torch",
        # Mixture-of-experts models: the routers keep the balance that they were trained for.
        "router_aux_loss_coef": 0.0,
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": (
            {"use_reentrant": False} if config.gradient_checkpointing else None
        ),
        "logging_strategy": "steps",
        "logging_steps": config.logging_steps,
        # Otherwise a diverged training goes on and reports its last good loss.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": _CHECKPOINTS_KEPT,
        "report_to": list(config.report_to) or "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "dataloader_pin_memory": device.type == "cuda",
        "ddp_find_unused_parameters": False,
    }


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from None


def _on_one_device(arguments: ArgumentsT, world: World) -> ArgumentsT:
    if world.size == 1 and arguments.n_gpu > 1:
        # One process takes one GPU; more of them are a matter for `accelerate launch`.
        arguments._n_gpu = 1
    return arguments
