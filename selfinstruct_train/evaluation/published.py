"""Published answers beside a run's own: what other models, long measured, did on the same tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import System, compare_systems, make_system
from selfinstruct_train.evaluation.suites import Suite, read_predictions
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import PairedComparison, Prediction, SystemScore
from selfinstruct_train.sources.fetch import find_pulled
from selfinstruct_train.sources.registry import find_source
from selfinstruct_train.statistics import Interval, bootstrap_interval, comparison_rng
from selfinstruct_train.templates import cut_at_new_example

PUBLISHED_SUITE = "user-oriented-252"
"""The suite that the published models answered."""
_SOURCE = "published-predictions"
_SUFFIX = "_predictions"


class Standing(NamedTuple):
    """How one system did, of the run or published."""

    name: str
    is_published: bool
    raw: SystemScore
    stopped: SystemScore
    """The same answers, each cut where it begins a new example."""
    interval: Interval
    """Of the stop-controlled ROUGE-L x 100, over the tasks."""


class Standings(NamedTuple):
    """All systems on one suite, and every two of them compared."""

    systems: tuple[Standing, ...]
    """By falling stop-controlled ROUGE-L."""
    pairs: tuple[PairedComparison, ...]
    """Every two systems once, stop-controlled; ``b`` is never the lower."""
    confidence: float

    def pair(self, one: str, other: str) -> PairedComparison:
        """The comparison of two systems, whichever is the better.

        Raises:
            KeyError: one of them is not among the systems, or both are the same.
        """
        for pair in self.pairs:
            if {pair.a, pair.b} == {one, other}:
                return pair
        raise KeyError(f"{one}, {other}")


def published_files(configured: str | None, cache: Path | None = None) -> tuple[Path, ...]:
    """The files of published answers on this machine, in the order of the data set.

    Args:
        configured: a folder of answer files that stands in for the pulled ones; None: what
            ``selfinstruct data pull published-predictions`` fetched, if anything.
        cache: where pulled files are kept, if not in the default place.

    Raises:
        DataError: the configured folder is none, or holds no file of answers.
    """
    folder = find_pulled(_SOURCE, cache) if configured is None else Path(configured)
    if folder is None:
        return ()
    found = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not found:
        raise DataError(
            f"evaluation.published: {folder} is not a folder with files of answers (*.jsonl); name "
            "the folder that holds them"
        )
    order = {file.name: i for i, file in enumerate(find_source(_SOURCE).files)}
    if configured is None:
        # The cache may hold what a person put beside the data set's own files.
        found = [path for path in found if path.name in order]
    return tuple(sorted(found, key=lambda path: (order.get(path.name, len(order)), path.name)))


def compare_with_published(
    own: Mapping[str, Sequence[Prediction]],
    files: Sequence[Path],
    suite: Suite,
    evaluation: EvaluationConfig,
    seed: int,
    form: AnswerFormat,
) -> Standings:
    """Put a run's systems and published ones into one ranking.

    Systems are compared by their stop-controlled answers: published answers were cut in several
    ways, so raw scores would compare the cutting. The raw scores stand beside them.

    Args:
        own: the run's answers by system, each to the whole suite in its order.
        files: files of published answers.
        suite: what all have answered.
        evaluation: number of resamples and coverage of the intervals.
        seed: the run's seed, from which the resamples follow.
        form: names the labels at which answers are cut.

    Raises:
        DataError: a file does not answer the suite, or two systems have one name.
    """
    answers = {name: tuple(rows) for name, rows in own.items()}
    for path in files:
        name = path.stem.removesuffix(_SUFFIX)
        if name in answers:
            raise DataError(
                f"{path}: '{name}' is already the name of another system; rename the file"
            )
        answers[name] = read_predictions(path, suite)
    stopped: dict[str, System] = {}
    standings = []
    for name, rows in answers.items():
        standing, stopped[name] = _standing(
            name, rows, name not in own, suite, evaluation, seed, form
        )
        standings.append(standing)
    ranked = sorted(standings, key=lambda s: (-s.stopped.rouge_l, s.name))
    pairs = []
    for better, worse in combinations([s.name for s in ranked], 2):
        compared = compare_systems(
            stopped[worse], stopped[better], suite, evaluation, seed, by_group=False
        )
        pairs += [pair for pair in compared if pair.metric == "rouge_l"]
    return Standings(tuple(ranked), tuple(pairs), evaluation.confidence)


def _standing(
    name: str,
    rows: tuple[Prediction, ...],
    is_published: bool,
    suite: Suite,
    evaluation: EvaluationConfig,
    seed: int,
    form: AnswerFormat,
) -> tuple[Standing, System]:
    raw = make_system(name, rows, suite)
    changed = {
        i: row.model_copy(update={"response": text, "finish_reason": None})
        for i, row in enumerate(rows)
        if (text := cut_at_new_example(row.response, form)) != row.response
    }
    stopped = raw
    if changed:
        cut = tuple(changed.get(i, row) for i, row in enumerate(rows))
        stopped = make_system(name, cut, suite)
    rng = comparison_rng(seed, suite.name, name, "standing")
    scored = ~np.isnan(stopped.scores.rouge_l)
    interval = bootstrap_interval(
        stopped.scores.rouge_l[scored],
        rng,
        evaluation.bootstrap_samples,
        evaluation.confidence,
        clusters=suite.clusters[scored],
    )
    return Standing(name, is_published, raw.summary, stopped.summary, interval), stopped
