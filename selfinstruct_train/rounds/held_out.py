"""Seed tasks that are kept out of prompts and training, as a suite of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfinstruct_train.config import Config
from selfinstruct_train.evaluation.constraints import ConstrainedTask
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.records import SeedTask

HELD_OUT = "held-out-seeds"


def held_out_file(config: Config) -> Path:
    """The suite's file in the run directory."""
    return config.output_dir / f"{HELD_OUT}.jsonl"


def held_out_suite(tasks: Sequence[SeedTask]) -> Suite:
    """The suite as it is read from its file."""
    return Suite(
        HELD_OUT,
        tuple(
            ConstrainedTask(id=task.id, instruction=task.instruction, instances=task.instances)
            for task in tasks
        ),
        is_microworld=False,
    )


def with_held_out(config: Config) -> Config:
    """The settings with the suite among those that are measured, where seeds are held out."""
    name, evaluation = str(held_out_file(config)), config.evaluation
    if not config.seeds.hold_out or name in evaluation.suites:
        return config
    suites = {"suites": (*evaluation.suites, name)}
    return config.model_copy(update={"evaluation": evaluation.model_copy(update=suites)})
