"""What a run took, figure by figure, from its marks, and what was forecast for it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from selfinstruct_train.errors import RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.marks import Mark
from selfinstruct_train.run.stores import read_json

WRITING = ("instructions", "classification", "instances")


class Forecast(BaseModel):
    """forecast.json: what was expected of the rounds that a run went."""

    model_config = ConfigDict(frozen=True)

    basis: str
    """What the yields rest on."""
    figures: dict[str, float]
    """Figure -> value; the names are those of `measured`."""


class Compared(Row):
    """One figure of a run."""

    figure: str
    forecast: float
    measured: float

    @property
    def ratio(self) -> float | None:
        """Forecast for one measured; None where nothing was."""
        return self.forecast / self.measured if self.measured else None


def measured_rounds(run: RunDirectory) -> list[RoundDirectory]:
    """The rounds of a run that were evaluated: those that can be compared.

    Raises:
        RunError: there is none.
    """
    rounds = [part for part in run.rounds() if part.read_mark("evaluate")]
    if not rounds:
        raise RunError(
            f"{run.path}: no round has been evaluated, so there is nothing to compare with; finish "
            "the run, or name a config"
        )
    return rounds


def measured(run: RunDirectory, rounds: Sequence[RoundDirectory]) -> dict[str, float]:
    """What rounds took, by figure."""
    marks = [[part.read_mark(stage) for stage in WRITING] for part in rounds]
    trained = [part.read_mark("train") for part in rounds]
    seeds_only = [part.read_mark("train") for part in run.all_seeds_only()]
    evaluated = [part.read_mark("evaluate") for part in rounds]
    lists, instances = ([row[i] for row in marks] for i in (0, 2))
    return {
        "own texts: requests": _sum(lists, "candidates_of_texts"),
        "step 1: requests": _sum(lists, "requests"),
        "step 1: tokens written": _sum(lists, "completion_tokens"),
        "step 3: tokens written": _sum(instances, "completion_tokens"),
        "steps of training": _sum(trained, "steps"),
        "steps on seeds only": _sum(seeds_only, "steps"),
        # The steps take turns, so each mark counts the time of all three.
        "steps 1 to 3: seconds": sum(
            max(mark.seconds for mark in row if mark) for row in marks if any(row)
        ),
        "training: seconds": sum(mark.seconds for mark in (*trained, *seeds_only) if mark),
        "evaluation: seconds": sum(mark.seconds for mark in evaluated if mark),
    }


def compared(run: RunDirectory) -> tuple[Compared, ...]:
    """A finished run against the forecast that was written when it ended; empty without one.

    Raises:
        DataError: the file of the forecast is damaged.
    """
    if not run.forecast.exists():
        return ()
    rounds = [part for part in run.rounds() if part.read_mark("evaluate")]
    forecast = read_json(run.forecast, Forecast, "delete it; finishing the run writes it again")
    return side_by_side(forecast, measured(run, rounds))


def side_by_side(forecast: Forecast, taken: dict[str, float]) -> tuple[Compared, ...]:
    """The figures that both know."""
    return tuple(
        Compared(figure=name, forecast=forecast.figures[name], measured=value)
        for name, value in taken.items()
        if name in forecast.figures
    )


def _sum(marks: Sequence[Mark | None], name: str) -> float:
    return float(sum(float(mark.figures.get(name) or 0) for mark in marks if mark))
