"""A little of a run, written to be looked at and thrown away."""

from __future__ import annotations

from pathlib import Path

from selfinstruct_train.config import Config, GenerationConfig
from selfinstruct_train.errors import ConfigError


def trial_of(config: Config, folder: Path, rounds: int, why: str) -> Config:
    """The settings of a trial: in a folder of its own, by the base, told to no tracker.

    Args:
        config: the settings of the run, of which nothing is written.
        folder: where there is nothing yet.
        rounds: how many it may have.
        why: what cannot be done where nothing is written, for the user.

    Raises:
        ConfigError: by these settings nothing is written.
    """
    if not config.generates:
        raise ConfigError(
            f"training.mix.generated is 0, so this run writes nothing that could be {why}; raise it"
        )
    return config.model_copy(
        update={
            "output_dir": folder,
            "rounds": rounds,
            "metrics_file": None,
            "training": config.training.model_copy(update={"report_to": ()}),
            "generation": _by_the_base(config.generation),
        }
    )


def _by_the_base(generation: GenerationConfig) -> GenerationConfig:
    return generation.model_copy(
        update={
            "instruction_writer": "base",
            "instance_writer": "base",
            "instances": generation.instances.model_copy(update={"consistency": False}),
            "engine": generation.engine.at_once,
        }
    )
