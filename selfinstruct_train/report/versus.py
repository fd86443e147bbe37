"""Two runs, or two files of answers, on one page: which is better, where, and by what answers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.evaluation.compare import (
    OVERALL,
    System,
    compare_predictions,
    read_systems,
)
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.records import Comparison, PairedComparison
from selfinstruct_train.report import figures
from selfinstruct_train.report.drawing import Plot
from selfinstruct_train.report.headline import outcome
from selfinstruct_train.report.page import page_environment
from selfinstruct_train.report.wording import number, signed
from selfinstruct_train.run.stores import write_atomically

_MOST_ANSWERS = 100


class Disagreement(NamedTuple):
    """A task on which the two answers differ in score."""

    task_id: str
    group: str
    instruction: str
    input: str
    reference: str
    a: str
    b: str
    gain: float
    """B's ROUGE-L x 100 less A's."""


def write_versus(a: Path, b: Path, suite: str, page: Path) -> Comparison:
    """Compare B with A and write what is found as one self-contained HTML page.

    Args:
        a: run directory or file of answers that is compared with.
        b: run directory or file of answers that is compared.
        suite: name or path of the suite.
        page: the file to write.

    Raises:
        DataError: the suite or a file is at fault, or a file does not answer the suite.
        RunError: a folder is not a run or was not evaluated on the suite, or the page cannot be
            written.
    """
    loaded = load_suite(suite)
    first, second = read_systems(a, b, loaded)
    settings = EvaluationConfig(suites=(suite,))
    comparison = compare_predictions(first, second, loaded, settings, seed=0)
    groups = [p for p in comparison.pairs if p.group != OVERALL and p.metric == "rouge_l"]
    plot = figures.groups_plot(
        groups, "rouge_l", comparison.confidence, "groups", f"over {first.name}"
    )
    text = (
        page_environment()
        .get_template("versus.html")
        .render(
            comparison=comparison,
            a=first.name,
            b=second.name,
            of_run=a.is_dir() or b.is_dir(),
            outcome=outcome(comparison.ci_low, comparison.ci_high),
            headline=_headline(comparison, first.name, second.name),
            plots=_present(plot),
            pairs=_sorted(comparison.pairs),
            disagreements=_disagreements(first, second, loaded),
        )
    )
    write_atomically(page, text)
    return comparison


def _headline(comparison: Comparison, a: str, b: str) -> str:
    figures = (
        f"{signed(comparison.delta)} ROUGE-L ({100 * comparison.confidence:g} % interval "
        f"{number(comparison.ci_low)} to {number(comparison.ci_high)}) on {comparison.n:,} items "
        f"of {comparison.suite}"
    )
    return {
        "helped": f"{b} is better than {a}: {figures}.",
        "hurt": f"{b} is worse than {a}: {figures}.",
        "unclear": f"{b} and {a} cannot be told apart: {figures}.",
    }[outcome(comparison.ci_low, comparison.ci_high)]


def _present(plot: Plot | None) -> tuple[Plot, ...]:
    return (plot,) if plot else ()


def _sorted(pairs: tuple[PairedComparison, ...]) -> tuple[PairedComparison, ...]:
    return tuple(sorted(pairs, key=lambda p: (p.metric, p.group != OVERALL, -p.delta, p.group)))


def _disagreements(a: System, b: System, suite: Suite) -> tuple[Disagreement, ...]:
    """The tasks on which the scores differ most, largest difference first."""
    gains = b.scores.rouge_l - a.scores.rouge_l
    order = sorted(np.flatnonzero(~np.isnan(gains)).tolist(), key=lambda i: (-abs(gains[i]), i))
    items = suite.items
    return tuple(
        Disagreement(
            items[i].task_id,
            items[i].group,
            items[i].instruction,
            items[i].input,
            items[i].target,
            a.predictions[i].response,
            b.predictions[i].response,
            float(gains[i]),
        )
        for i in order[:_MOST_ANSWERS]
        if gains[i]
    )
