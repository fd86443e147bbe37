"""What lm-evaluation-harness found, as rows, and how base and tuned model differ in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import read_json

HARNESS_FOLDER = "harness"
DIFFERENCES_FILE = "differences.json"
FIX = "delete it and evaluate again"


class HarnessScore(Row):
    """One figure of one task, in the task's own unit; a group is a task as well."""

    task: str
    metric: str
    filter: str
    """How the harness took the answer out of the text; mostly ``none``."""
    value: float
    stderr: float | None
    """Standard error as the harness gives it; None where it gives none."""
    higher_is_better: bool | None
    """None where the task does not say."""
    n: int | None
    """Items; None for a group."""


class HarnessTask(Row):
    """What the harness found on a task that the config names, subtasks included."""

    name: str
    scores: tuple[HarnessScore, ...]


class HarnessSettings(Row):
    """What figures depend on; they are compared with none of other settings."""

    package: str
    """Version of lm_eval."""
    num_fewshot: int | None
    limit: int | None
    apply_chat_template: bool
    seed: int
    own_tasks: str | None = None
    """SHA-256 of the YAML and Python files in the folder of own tasks, 64 hex digits."""


class HarnessResult(Row):
    """eval/harness/base.json (in round 0 alone) and tuned.json: the tasks finished so far."""

    system: Literal["base", "tuned"]
    settings: HarnessSettings
    tasks: tuple[HarnessTask, ...] = ()


class HarnessDifference(Row):
    """Tuned against base on one figure."""

    task: str
    metric: str
    filter: str
    n: int | None
    higher_is_better: bool | None
    base: float
    tuned: float
    delta: float
    """Tuned minus base."""
    ci_low: float | None
    """None where a standard error is missing, or both are 0, which leaves no spread."""
    ci_high: float | None

    @property
    def outcome(self) -> Literal["better", "worse", "unclear"]:
        """What tuning did, where the interval is clear of zero and the task says what is good."""
        if self.ci_low is None or self.ci_high is None or self.higher_is_better is None:
            return "unclear"
        if self.ci_low <= 0 <= self.ci_high:
            return "unclear"
        return "better" if (self.delta > 0) == self.higher_is_better else "worse"


class HarnessComparison(Row):
    """eval/harness/differences.json: every figure that base and tuned model share."""

    settings: HarnessSettings
    confidence: float
    differences: tuple[HarnessDifference, ...]

    @property
    def sentence(self) -> str:
        """What was found, claiming no more than the intervals allow."""
        better, worse = (
            [
                f"{d.task} ({d.metric} {d.base:.3g} to {d.tuned:.3g})"
                for d in self.differences
                if d.outcome == outcome
            ]
            for outcome in ("better", "worse")
        )
        said = [
            f"{what} on {', '.join(found)}"
            for what, found in (("better", better), ("worse", worse))
            if found
        ]
        open_ = len(self.differences) - len(better) - len(worse)
        if open_:
            said.append(f"not to be told apart on {open_} of {len(self.differences)} figures")
        return f"On tasks of lm-evaluation-harness the tuned model is {'; '.join(said)}."


def compare_harness(
    base: HarnessResult, tuned: HarnessResult, confidence: float
) -> HarnessComparison:
    """Set the figures of two systems against each other.

    The interval is that of a difference of two independent means, from the harness's standard
    errors. Both models answered the same items, so it is wider than a paired one would be.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    before = {
        (task.name, s.task, s.metric, s.filter): s for task in base.tasks for s in task.scores
    }
    differences = []
    for task in tuned.tasks:
        for after in task.scores:
            known = before.get((task.name, after.task, after.metric, after.filter))
            if known is None:
                continue
            delta = after.value - known.value
            reach = None
            if known.stderr is not None and after.stderr is not None:
                reach = z * math.hypot(known.stderr, after.stderr) or None
            differences.append(
                HarnessDifference(
                    task=after.task,
                    metric=after.metric,
                    filter=after.filter,
                    n=after.n,
                    higher_is_better=after.higher_is_better,
                    base=known.value,
                    tuned=after.value,
                    delta=delta,
                    ci_low=None if reach is None else delta - reach,
                    ci_high=None if reach is None else delta + reach,
                )
            )
    return HarnessComparison(
        settings=tuned.settings, confidence=confidence, differences=tuple(differences)
    )


def read_harness(path: Path) -> HarnessComparison:
    """Read a differences.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(path, HarnessComparison, FIX)


def read_scores(results: Mapping[str, Any]) -> tuple[HarnessScore, ...]:
    """The figures in what ``lm_eval.simple_evaluate`` returns, in its order.

    Its keys have the form ``metric,filter`` and ``metric_stderr,filter``; a standard error that it
    cannot give is a text, and one of a single item is not a number.
    """
    scores = []
    for task, figures in results["results"].items():
        items = results["n-samples"].get(task)
        for key, value in figures.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or (number := _finite(value)) is None:
                continue
            scores.append(
                HarnessScore(
                    task=task,
                    metric=metric,
                    filter=filtered,
                    value=number,
                    stderr=_finite(figures.get(f"{metric}_stderr,{filtered}")),
                    higher_is_better=results["higher_is_better"].get(task, {}).get(metric),
                    n=int(items["effective"]) if items else None,
                )
            )
    return tuple(scores)


def _finite(value: object) -> float | None:
    # Figures come as floats and as numpy's.
    if isinstance(value, str) or value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None
