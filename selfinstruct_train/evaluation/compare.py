"""Two systems on the same instances: paired differences with an interval, overall and per group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.config import DEFAULT_TRAINING, EvaluationConfig
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.metrics import (
    AnswerScores,
    Scores,
    score_answers,
    summarise,
)
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.records import (
    Comparison,
    Halves,
    PairedComparison,
    Prediction,
    SystemScore,
)
from selfinstruct_train.run.decisions import is_rolled_back
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.stores import read_json
from selfinstruct_train.statistics import bootstrap_interval, comparison_rng, count_wins

Metric = Literal[
    "rouge_l", "accuracy", "oracle_accuracy", "instruction_level_strict", "prompt_level_strict"
]

COMPARISON_FILE = "comparison.json"
OVERALL = "overall"
_LISTED = 5


class System(NamedTuple):
    """A system's answers to a suite, scored."""

    name: str
    predictions: tuple[Prediction, ...]
    """One per instance of the suite, in its order."""
    scores: AnswerScores

    @property
    def summary(self) -> SystemScore:
        """The means of its scores."""
        return summarise(self.name, self.predictions, self.scores)


def make_system(name: str, predictions: Sequence[Prediction], suite: Suite) -> System:
    """Score a system's answers."""
    return System(name, tuple(predictions), score_answers(predictions, suite))


def compare_systems(
    a: System,
    b: System,
    suite: Suite,
    evaluation: EvaluationConfig,
    seed: int,
    by_group: bool = True,
) -> tuple[PairedComparison, ...]:
    """B against A: ROUGE-L, accuracy, the oracle and the constraints, as far as the suite has them.

    Args:
        a: the system that is compared with.
        b: the system whose gain is measured.
        suite: what both have answered.
        evaluation: number of resamples and coverage of the intervals.
        seed: the run's seed, from which the resamples follow.
        by_group: also compare within each application, where the suite names any. These intervals
            are not corrected for their number: of twenty, one misses the truth by chance.

    Returns:
        Overall first, then the groups in alphabetical order, for each metric. A group in which
        nothing could be judged has no row.
    """
    groups = np.array([item.group for item in suite.items], dtype=np.str_)
    names = sorted(set(groups.tolist()) - {""}) if by_group else []
    pair = _Pair(a, b, suite, evaluation, seed)
    every = np.ones(len(groups), dtype=np.bool_)
    rows = []
    for metric in _metrics(a):
        rows.append(pair.compare(metric, OVERALL, every))
        rows += [pair.compare(metric, name, groups == name) for name in names]
    return tuple(row for row in rows if row is not None)


def compare_halves(
    a: System,
    b: System,
    suite: Suite,
    evaluation: EvaluationConfig,
    seed: int,
    rivals: Sequence[System] = (),
) -> Halves | None:
    """B against A in ROUGE-L on the half of the tasks that may choose, and on the other half.

    Args:
        a: the system that is compared with.
        b: the system whose gain is measured.
        suite: what all have answered.
        evaluation: number of resamples and coverage of the intervals.
        seed: the run's seed, from which the resamples follow.
        rivals: systems that B is also held against, on the other half alone.

    Returns:
        None where the suite has one task alone.
    """
    choosing = suite.choosing_half
    pair = _Pair(a, b, suite, evaluation, seed)
    first = pair.compare("rouge_l", "choosing half", choosing)
    second = pair.compare("rouge_l", "reported half", ~choosing)
    if first is None or second is None:
        return None
    found = (
        _Pair(rival, b, suite, evaluation, seed).compare(metric, "reported half", ~choosing)
        for rival in (a, *rivals)
        for metric in _metrics(rival)
    )
    return Halves(choosing=first, reported=second, pairs=tuple(row for row in found if row))


def gain_where_chosen(
    a: System, b: System, suite: Suite, evaluation: EvaluationConfig, seed: int
) -> PairedComparison:
    """B against A in ROUGE-L on the suite that chooses, or on the half of it that may choose."""
    if selection_of(evaluation).half:
        halves = compare_halves(a, b, suite, evaluation, seed)
        if halves is not None:
            return halves.choosing
    return compare_systems(a, b, suite, evaluation, seed, by_group=False)[0]


class _Pair(NamedTuple):
    """Two systems on one suite."""

    a: System
    b: System
    suite: Suite
    evaluation: EvaluationConfig
    seed: int

    def compare(
        self, metric: Metric, group: str, members: NDArray[np.bool_]
    ) -> PairedComparison | None:
        """B against A on some of the items; None where nothing of them could be judged."""
        differences = _scores(self.b, metric) - _scores(self.a, metric)
        weights = _weights(self.a, metric)
        chosen = members & ~np.isnan(differences)
        if not chosen.any():
            return None
        interval = bootstrap_interval(
            differences[chosen],
            comparison_rng(self.seed, self.suite.name, self.a.name, self.b.name, metric, group),
            self.evaluation.bootstrap_samples,
            self.evaluation.confidence,
            weights=None if weights is None else weights[chosen],
            clusters=self.suite.clusters[chosen],
        )
        count = count_wins(differences[chosen])
        return PairedComparison(
            a=self.a.name,
            b=self.b.name,
            metric=metric,
            group=group,
            n=int(chosen.sum()),
            delta=interval.mean,
            ci_low=interval.low,
            ci_high=interval.high,
            wins=count.wins,
            ties=count.ties,
            losses=count.losses,
        )


def make_comparison(
    suite: Suite,
    systems: Sequence[System],
    pairs: Sequence[PairedComparison],
    confidence: float,
) -> Comparison:
    """Put the parts of a comparison together; the first pair is its headline."""
    headline = pairs[0]
    return Comparison(
        suite=suite.name,
        n=headline.n,
        delta=headline.delta,
        ci_low=headline.ci_low,
        ci_high=headline.ci_high,
        wins=headline.wins,
        ties=headline.ties,
        losses=headline.losses,
        confidence=confidence,
        scores=tuple(system.summary for system in systems),
        pairs=tuple(pairs),
    )


def contamination_sentence(comparison: Comparison) -> str:
    """Which rows of a suite the tuned model may know by heart; empty where none are known."""
    if not comparison.contaminated:
        return ""
    ids = [row.id for row in comparison.contaminated]
    exact = sum(row.level == "exact" for row in comparison.contaminated)
    listed = ", ".join(ids[:_LISTED]) + (" and others" if len(ids) > _LISTED else "")
    return (
        f"{len(ids)} of {comparison.n} rows of {comparison.suite} resemble what was trained on "
        f"({exact} ask the same), so a gain on them may be memory: {listed}."
    )


def compare_predictions(
    a: System, b: System, suite: Suite, evaluation: EvaluationConfig, seed: int
) -> Comparison:
    """B against A, overall and per application; the headline is ROUGE-L overall."""
    pairs = compare_systems(a, b, suite, evaluation, seed)
    return make_comparison(suite, (a, b), pairs, evaluation.confidence)


def compare_sources(a: Path, b: Path, suite: str) -> Comparison:
    """Compare two sets of answers to a suite, each a predictions file or a run directory.

    A run stands for what the tuned model of its best round answered.

    Args:
        a: what is compared with.
        b: what is compared.
        suite: name or path of the suite.

    Raises:
        DataError: the suite or a file is at fault, or a file does not answer the suite.
        RunError: a folder is not a run, or the run was not evaluated on the suite.
    """
    loaded = load_suite(suite)
    first, second = read_systems(a, b, loaded)
    defaults = EvaluationConfig(suites=(suite,))
    return compare_predictions(first, second, loaded, defaults, seed=0)


def read_systems(a: Path, b: Path, suite: Suite) -> tuple[System, System]:
    """Read and score the answers that two run directories or files of answers stand for.

    Raises:
        DataError: a file is at fault, or does not answer the suite.
        RunError: a folder is not a run, or the run was not evaluated on the suite.
    """
    names = _source_name(a), _source_name(b)
    if names[0] == names[1]:
        names = str(a), str(b)
    first, second = (
        make_system(name, read_predictions(_answers_of(path, suite), suite), suite)
        for name, path in zip(names, (a, b), strict=True)
    )
    return first, second


def read_comparison(path: Path) -> Comparison:
    """Read a comparison.json.

    Raises:
        DataError: the file is missing or is not a comparison.
    """
    return read_json(
        path,
        Comparison,
        "the file was changed by hand or by another version: delete it and evaluate again",
    )


class Trained(NamedTuple):
    """A tuned model of a run."""

    round: int
    name: str
    """Of its training."""
    directory: RoundDirectory

    @property
    def description(self) -> str:
        """Which one it is, for a user."""
        named = "" if self.name == DEFAULT_TRAINING else f", training {self.name}"
        return f"round {self.round}{named}"


def evaluated_trainings(rounds: Iterable[RoundDirectory], suite: str) -> list[Trained]:
    """The tuned models that were evaluated on a suite, in order."""
    return [
        Trained(int(directory.path.name.removeprefix("round-")), name, training)
        for directory in rounds
        for name, training in directory.trainings().items()
        if (training.evaluation(suite) / COMPARISON_FILE).exists()
    ]


def best_training(
    rounds: Iterable[RoundDirectory], evaluation: EvaluationConfig, on: str = ""
) -> Trained | None:
    """The tuned model that beats the stop-controlled base most surely.

    The suite that `selection_of` names decides; of equal ones the first. Rounds that are rolled
    back count only where all are.

    Args:
        rounds: where to look.
        evaluation: the settings, which say what suite chooses.
        on: name of a suite; only models that were evaluated on it count.

    Returns:
        The model; the last one where the suite that chooses was not evaluated, but `on` was; None
        where there is none.

    Raises:
        DataError: a comparison.json is malformed.
    """
    selection = selection_of(evaluation)
    candidates = evaluated_trainings(rounds, on or selection.suite)
    live = [trained for trained in candidates if not is_rolled_back(trained.directory.decision)]
    candidates = live or candidates

    def certainty(trained: Trained) -> float:
        file = trained.directory.evaluation(selection.suite) / COMPARISON_FILE
        return selection.certainty(read_comparison(file)) if file.exists() else -math.inf

    best = max(candidates, key=certainty, default=None)
    return candidates[-1] if best and certainty(best) == -math.inf else best


def _answers_of(path: Path, suite: Suite) -> Path:
    if not path.is_dir():
        return path
    run = RunDirectory(path)
    best = best_training(run.rounds(), run.config().evaluation, suite.name)
    if best is None:
        raise RunError(
            f"{path}: no round was evaluated on '{suite.name}'; add it to evaluation.suites and "
            "run 'selfinstruct evaluate'"
        )
    return best.directory.evaluation(suite.name) / "tuned.jsonl"


def _source_name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _metrics(system: System) -> tuple[Metric, ...]:
    metrics: list[Metric] = ["rouge_l"]
    if system.scores.accuracy is not None:
        metrics.append("accuracy")
    if system.scores.oracle_accuracy is not None:
        metrics.append("oracle_accuracy")
    if system.scores.constraints is not None:
        metrics += ["instruction_level_strict", "prompt_level_strict"]
    return tuple(metrics)


def _scores(system: System, metric: Metric) -> Scores:
    scores = system.scores
    if metric == "rouge_l":
        return scores.rouge_l
    if metric == "accuracy":
        assert scores.accuracy is not None
        return scores.accuracy
    if metric == "oracle_accuracy":
        assert scores.oracle_accuracy is not None
        return scores.oracle_accuracy
    assert scores.constraints is not None
    if metric == "prompt_level_strict":
        return scores.constraints.prompt_level
    return scores.constraints.instruction_level


def _weights(system: System, metric: Metric) -> Scores | None:
    """Every constraint counts once, so an answer counts as often as it has constraints."""
    if metric != "instruction_level_strict":
        return None
    assert system.scores.constraints is not None
    return system.scores.constraints.declared
