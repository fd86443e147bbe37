"""A run's forecast against what its finished rounds took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_train.planning.measured import (
    WRITING,
    Compared,
    Forecast,
    measured,
    measured_rounds,
    side_by_side,
)
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import write_atomically

if TYPE_CHECKING:
    from selfinstruct_train.planning.plan import Plan


def compare(path: Path) -> tuple[Compared, ...]:
    """Hold the forecast of a run's config against its marks, on this machine's CPU.

    Args:
        path: the run directory; rounds that were not evaluated are left out.

    Raises:
        RunError: no round was evaluated.
        SelfInstructError: what the config names cannot be read.
    """
    run = RunDirectory(path)
    rounds = measured_rounds(run)
    return side_by_side(forecast_of(run, len(rounds)), measured(run, rounds))


def write_forecast(run: RunDirectory) -> None:
    """Keep what is forecast for a run that has ended, for its report.

    Raises:
        SelfInstructError: what the config names cannot be read, or no round was evaluated.
    """
    forecast = forecast_of(run, len(measured_rounds(run)))
    write_atomically(run.forecast, forecast.model_dump_json(indent=1) + "\n")


def forecast_of(run: RunDirectory, rounds: int) -> Forecast:
    """What is expected of so many rounds of a run's config."""
    from selfinstruct_train.planning.plan import make_plan  # loads torch

    plan = make_plan(run.config().model_copy(update={"rounds": rounds}))
    figures = {
        "step 1: requests": _requests(plan, "instructions"),
        # The marks of both steps count what was written for texts, and in place of wrong answers.
        "step 1: tokens written": _written(plan, "passages", "instructions"),
        "step 3: tokens written": _written(plan, "instances", "fixing"),
        "steps of training": _steps(plan, "training"),
        "steps on seeds only": _steps(plan, "seeds-only training"),
        "training: seconds": _seconds(plan, "training", "seeds-only training"),
        "evaluation: seconds": _seconds(plan, "evaluation"),
    }
    if of_texts := _requests(plan, "passages"):
        figures["own texts: requests"] = of_texts
    if plan.served_prompt_tokens is None:  # how fast a server is nobody knows
        figures["steps 1 to 3: seconds"] = _seconds(plan, *WRITING, "passages", "fixing")
    return Forecast(basis=plan.expected.basis, figures=figures)


def _requests(plan: Plan, stage: str) -> int:
    return sum(work.requests for work in plan.asked if work.stage == stage)


def _written(plan: Plan, *stages: str) -> int:
    return sum(work.completion_tokens for work in plan.asked if work.stage in stages)


def _steps(plan: Plan, stage: str) -> int:
    return sum(work.steps for work in plan.trained if work.stage == stage)


def _seconds(plan: Plan, *stages: str) -> float:
    return sum(found.seconds for found in plan.stages if found.stage in stages)
