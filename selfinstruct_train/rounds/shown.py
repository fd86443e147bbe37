"""What a round has shown, as the governor decides on it."""

from __future__ import annotations

from statistics import fmean

from selfinstruct_train.config import Config
from selfinstruct_train.evaluation.beyond.forgetting import FORGETTING_FILE, read_forgetting
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    Trained,
    best_training,
    gain_where_chosen,
    make_system,
    read_comparison,
)
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Suite, read_predictions
from selfinstruct_train.records import PairedComparison
from selfinstruct_train.rounds.governor import RoundResult
from selfinstruct_train.run.decisions import is_rolled_back
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import count_rows


def read_result(
    run: RunDirectory, rows: LiveRows, suite: Suite, config: Config, number: int
) -> RoundResult:
    """Gather what a round has shown, from what it left in the run directory.

    Args:
        run: the run directory.
        rows: its live rows.
        suite: the one that chooses.
        config: the settings.
        number: the round, counted from 0.

    Raises:
        DataError: a file of the round is damaged.
    """
    directory = run.round(number)
    result = RoundResult(
        number=number,
        rows=sum(1 for _ in rows.instances_of(directory)),
        accepted=accepted_share(directory),
        diversity=_diversity(rows, directory),
    )
    trained = best_training([directory], config.evaluation)
    if trained is None:
        return result
    live = [run.round(i) for i in range(number) if not is_rolled_back(run.round(i).decision)]
    before = best_training(live, config.evaluation)
    comparison = read_comparison(trained.directory.evaluation(suite.name) / COMPARISON_FILE)
    tuned = next(score for score in comparison.scores if score.system == "tuned")
    forgetting = trained.directory.evaluation(FORGETTING_FILE)
    rise = read_forgetting(forgetting).delta if forgetting.exists() else None
    return result.model_copy(
        update={
            "suite": selection_of(config.evaluation).description,
            "score": tuned.rouge_l,
            "answer_words": tuned.mean_words,
            "best_before": None if before is None else before.round,
            "gain": _gain(trained, before, suite, config),
            "held_out_rise": rise,
        }
    )


def _gain(
    trained: Trained, before: Trained | None, suite: Suite, config: Config
) -> PairedComparison:
    selection = selection_of(config.evaluation)
    folder = trained.directory.evaluation(suite.name)
    if before is None:
        found = read_comparison(folder / COMPARISON_FILE)
        return found.halves.choosing if selection.half and found.halves else found.pairs[0]
    sides = (
        (before.description, before.directory.evaluation(suite.name)),
        (trained.description, folder),
    )
    a, b = (
        make_system(name, read_predictions(answers / "tuned.jsonl", suite), suite)
        for name, answers in sides
    )
    return gain_where_chosen(a, b, suite, config.evaluation, config.seed)


def accepted_share(directory: RoundDirectory) -> float | None:
    """Share of a round's candidate rows that the filters kept; None where it has none."""
    kept = count_rows(directory.instances)
    dropped = sum(count_rows(directory.rejected(s)) for s in ("instructions", "instances"))
    return kept / (kept + dropped) if kept + dropped else None


def _diversity(rows: LiveRows, directory: RoundDirectory) -> float | None:
    nearest = [row.nearest.score for row in rows.instructions_of(directory) if row.nearest]
    return 1 - fmean(nearest) if nearest else None
