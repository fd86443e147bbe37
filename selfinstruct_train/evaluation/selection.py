"""Which suite chooses: what is chosen on a suite looks better there than it is."""

from __future__ import annotations

from typing import NamedTuple

from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.evaluation.suites import suite_name
from selfinstruct_train.records import Comparison

_DEVELOPMENT = "-dev"


class Selection(NamedTuple):
    """What the best round, training and seeds-only model are chosen by."""

    suite: str
    """Name of the suite that chooses."""
    half: bool
    """Whether one half of its tasks chooses, so that the other half can be reported."""

    @property
    def description(self) -> str:
        """The suite in words."""
        return f"one half of the tasks of {self.suite}" if self.half else self.suite

    @property
    def warning(self) -> str:
        """What a user should know of this choice; empty where a suite of its own chooses."""
        if not self.half:
            return ""
        return (
            f"{self.description} choose the best model, so only the other half can tell how good "
            "it is; to report whole suites, add a suite that chooses and name it in "
            "evaluation.select_on"
        )

    def certainty(self, comparison: Comparison) -> float:
        """How surely tuned beats the stop-controlled base: the lower end of the interval.

        So a large gain that may be luck loses to a smaller one that is not.
        """
        if self.half and comparison.halves is not None:
            return comparison.halves.choosing.ci_low
        return comparison.ci_low


def selection_of(evaluation: EvaluationConfig) -> Selection:
    """The suite that chooses by the config, or by default.

    That is ``evaluation.select_on``, else the first suite of a name that ends in ``-dev``, else
    one half of the first suite's tasks.
    """
    if evaluation.select_on is not None:
        return Selection(suite_name(evaluation.select_on), half=False)
    names = [suite_name(suite) for suite in evaluation.suites]
    for name in names:
        if name.endswith(_DEVELOPMENT):
            return Selection(name, half=False)
    return Selection(names[0], half=True)
