"""Several trainings on one data set, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    best_training,
    compare_systems,
    make_system,
    read_comparison,
)
from selfinstruct_train.evaluation.suites import Suite, read_predictions
from selfinstruct_train.records import PairedComparison, Row
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import read_json, write_atomically

TRAININGS_FILE = "trainings.json"


class TrainingRecord(Row):
    """How one training of a round did on one suite."""

    training: str
    suite: str
    over_base: PairedComparison
    """Tuned against the stop-controlled base, ROUGE-L."""
    over_chosen: PairedComparison | None
    """Against the training that was chosen, ROUGE-L; None for that one itself."""


class TrainingsComparison(Row):
    """round-N/trainings.json: the trainings of a round, and which one was chosen."""

    chosen: str
    """Name of the training that the suite that chooses likes best."""
    chosen_on: str
    """The suite that chose, in words."""
    confidence: float
    rows: tuple[TrainingRecord, ...]
    """By suite, then by training."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The table for a terminal."""
        width = max(len(row.training) for row in self.rows)
        return tuple(
            f"{row.suite}  {row.training:<{width}}  {_figures(row.over_base)} over base"
            + (f", {_figures(row.over_chosen)} over chosen" if row.over_chosen else "  (chosen)")
            for row in self.rows
        )


def compare_trainings(
    directory: RoundDirectory,
    suites: Sequence[Suite],
    evaluation: EvaluationConfig,
    chosen_on: str,
    seed: int,
) -> TrainingsComparison | None:
    """Compare the evaluated trainings of a round, and write ``trainings.json``.

    Args:
        directory: the round; every process must make this call.
        suites: what all were evaluated on.
        evaluation: number of resamples and coverage of the intervals, and what chooses.
        chosen_on: what chooses, in words.
        seed: the run's seed, from which the resamples follow.

    Returns:
        None where fewer than two trainings are evaluated.

    Raises:
        DataError: a file of answers is damaged.
    """
    return directory.world.on_main(lambda: _compare(directory, suites, evaluation, chosen_on, seed))


def read_trainings(path: Path) -> TrainingsComparison:
    """Read a trainings.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(path, TrainingsComparison, "delete it and evaluate again")


def _compare(
    directory: RoundDirectory,
    suites: Sequence[Suite],
    evaluation: EvaluationConfig,
    chosen_on: str,
    seed: int,
) -> TrainingsComparison | None:
    chosen = best_training([directory], evaluation)
    rows = []
    for suite in suites:
        folders = {
            name: folder
            for name, training in directory.trainings().items()
            if ((folder := training.evaluation(suite.name)) / COMPARISON_FILE).exists()
        }
        if chosen is None or chosen.name not in folders or len(folders) < 2:
            continue
        systems = {
            name: make_system(name, read_predictions(folder / "tuned.jsonl", suite), suite)
            for name, folder in folders.items()
        }
        for name, folder in folders.items():
            over_chosen = None
            if name != chosen.name:
                over_chosen = compare_systems(
                    systems[chosen.name], systems[name], suite, evaluation, seed, by_group=False
                )[0]
            over_base = read_comparison(folder / COMPARISON_FILE).pairs[0]
            rows.append(
                TrainingRecord(
                    training=name, suite=suite.name, over_base=over_base, over_chosen=over_chosen
                )
            )
    if chosen is None or not rows:
        return None
    result = TrainingsComparison(
        chosen=chosen.name,
        chosen_on=chosen_on,
        confidence=evaluation.confidence,
        rows=tuple(rows),
    )
    write_atomically(directory.path / TRAININGS_FILE, result.model_dump_json(indent=1) + "\n")
    return result


def _figures(pair: PairedComparison) -> str:
    return f"{pair.delta:+.1f} ROUGE-L ({pair.ci_low:+.1f} to {pair.ci_high:+.1f})"
