"""A run's forecast against what its finished rounds took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfinstruct_train.errors import RunError
from selfinstruct_train.planning.plan import Plan, make_plan
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.marks import Mark

_WRITING = ("instructions", "classification", "instances")


class Compared(Row):
    """One figure of a run."""

    figure: str
    forecast: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Forecast for one measured; None where nothing was."""
        return self.forecast / self.measured if self.measured else None


def compare(path: Path) -> tuple[Compared, ...]:
    """Hold the forecast of a run's config against its marks, on this machine's CPU.

    Args:
        path: the run directory; rounds that were not evaluated are left out.

    Raises:
        RunError: no round was evaluated.
        SelfInstructError: what the config names cannot be read.
    """
    run = RunDirectory(path)
    config = run.config()
    rounds = [part for part in run.rounds() if part.read_mark("evaluate")]
    if not rounds:
        raise RunError(
            f"{path}: no round has been evaluated, so there is nothing to compare with; finish "
            "the run, or name a config"
        )
    plan = make_plan(config.model_copy(update={"rounds": len(rounds)}))
    marks = [[part.read_mark(stage) for stage in _WRITING] for part in rounds]
    trained = [part.read_mark("train") for part in rounds]
    seeds_only = [part.read_mark("train") for part in run.all_seeds_only()]
    lists, instances = ([row[i] for row in marks] for i in (0, 2))
    evaluated = [part.read_mark("evaluate") for part in rounds]
    return (
        Compared(
            figure="step 1: requests",
            forecast=_asked(plan, "instructions")[0],
            measured=_sum(lists, "requests"),
        ),
        Compared(
            figure="step 1: tokens written",
            forecast=_asked(plan, "instructions")[1],
            measured=_sum(lists, "completion_tokens"),
        ),
        Compared(
            figure="step 3: tokens written",
            forecast=_asked(plan, "instances")[1],
            measured=_sum(instances, "completion_tokens"),
        ),
        Compared(
            figure="steps of training",
            forecast=_steps(plan, "training"),
            measured=_sum(trained, "steps"),
        ),
        Compared(
            figure="steps on seeds only",
            forecast=_steps(plan, "seeds-only training"),
            measured=_sum(seeds_only, "steps"),
        ),
        Compared(
            figure="steps 1 to 3: seconds",
            forecast=_seconds(plan, *_WRITING),
            # The steps take turns, so each mark counts the time of all three.
            measured=sum(max(mark.seconds for mark in row if mark) for row in marks if any(row)),
        ),
        Compared(
            figure="training: seconds",
            forecast=_seconds(plan, "training", "seeds-only training"),
            measured=sum(mark.seconds for mark in (*trained, *seeds_only) if mark),
        ),
        Compared(
            figure="evaluation: seconds",
            forecast=_seconds(plan, "evaluation"),
            measured=sum(mark.seconds for mark in evaluated if mark),
        ),
    )


def _sum(marks: Sequence[Mark | None], name: str) -> float:
    return float(sum(float(mark.figures.get(name) or 0) for mark in marks if mark))


def _asked(plan: Plan, stage: str) -> tuple[int, int]:
    found = [(w.requests, w.completion_tokens) for w in plan.asked if w.stage == stage]
    return found[0] if found else (0, 0)


def _steps(plan: Plan, stage: str) -> int:
    return sum(work.steps for work in plan.trained if work.stage == stage)


def _seconds(plan: Plan, *stages: str) -> float:
    return sum(found.seconds for found in plan.stages if found.stage in stages)
