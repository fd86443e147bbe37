"""The suites of a run as typed facts: scores, answers, and what a judge made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from selfinstruct_train.config import DEFAULT_TRAINING, Config
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    OVERALL,
    best_training,
    evaluated_trainings,
    read_comparison,
)
from selfinstruct_train.evaluation.selection import Selection, selection_of
from selfinstruct_train.evaluation.suites import suite_name
from selfinstruct_train.evaluation.win_rate import (
    JUDGE_FOLDER,
    PAIRS_FILE,
    SUMMARY_FILE,
    Judgement,
    grades_file,
    read_judgement,
)
from selfinstruct_train.judging.results import GradeVerdict, PairVerdict
from selfinstruct_train.records import (
    Comparison,
    PairedComparison,
    Prediction,
    Row,
)
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import RowStore

RowT = TypeVar("RowT", bound=Row)

SYSTEMS = ("base", "base-few-shot", "seeds-only", "tuned")
"""Systems whose answers are stored, in the order in which they are shown."""


class Result(NamedTuple):
    """How one round did on one suite."""

    round: int
    comparison: Comparison
    name: str = DEFAULT_TRAINING
    """The training: of several on the round's data, the best."""

    def pair(self, a: str, metric: str) -> PairedComparison | None:
        """Tuned against another system over the whole suite."""
        return next(iter(self._pairs(a, metric, overall=True)), None)

    def groups(self, a: str, metric: str) -> tuple[PairedComparison, ...]:
        """Tuned against another system, per application, largest gain first."""
        found = self._pairs(a, metric, overall=False)
        return tuple(sorted(found, key=lambda pair: (-pair.delta, pair.group)))

    def _pairs(self, a: str, metric: str, overall: bool) -> tuple[PairedComparison, ...]:
        return tuple(
            p
            for p in self.comparison.pairs
            if (p.a, p.b, p.metric) == (a, "tuned", metric) and (p.group == OVERALL) == overall
        )


class UnreadReply(NamedTuple):
    """What a judge wrote where a verdict was asked for and none could be read."""

    task_id: str
    asked: str
    """What it was asked."""
    text: str


class JudgedSuite(NamedTuple):
    """What a model that judges made of one round's answers to one suite."""

    round: int
    judgement: Judgement
    unread: tuple[UnreadReply, ...]


class SuiteFacts(NamedTuple):
    """All that is known of one suite."""

    name: str
    source: str
    """Name or path by which the config knows it."""
    results: tuple[Result, ...]
    """One for each evaluated round, in order; never empty."""
    answers: Mapping[str, tuple[Prediction, ...]]
    """Answers of the best round by system; empty where the files are gone."""
    selection: Selection
    """What chose the best round."""
    best_round: int
    candidates: int
    """Trainings of all rounds that it was chosen from."""
    judged: tuple[JudgedSuite, ...] = ()
    """One for each round that a model judged, in order."""

    @property
    def best(self) -> Result:
        """The result of the best round."""
        return next(result for result in self.results if result.round == self.best_round)


def read_rows(path: Path, row_type: type[RowT]) -> tuple[RowT, ...]:
    """All rows of a file of the run; none where it is not there."""
    return tuple(stream_rows(path, row_type))


def stream_rows(path: Path, row_type: type[RowT]) -> Iterator[RowT]:
    """The rows of a file of the run, one after the other."""
    # A report only looks: the stores of a run that is still going must not be cut.
    return RowStore(path, row_type, writable=False).stream()


def read_suites(config: Config, directories: list[RoundDirectory]) -> tuple[SuiteFacts, ...]:
    """What the rounds reached on each suite, in the order of the config."""
    found: dict[str, list[tuple[Result, Path]]] = {}
    for directory in directories:
        names = {
            path.parent.name
            for training in directory.trainings().values()
            for path in training.path.glob(f"eval/*/{COMPARISON_FILE}")
        }
        for name in sorted(names):
            best = best_training([directory], config.evaluation, name)
            assert best is not None
            folder = best.directory.evaluation(name)
            result = Result(best.round, read_comparison(folder / COMPARISON_FILE), best.name)
            found.setdefault(name, []).append((result, folder))
    # Names as the config gives them; a suite that was taken out of it comes last.
    sources = {suite_name(source): source for source in config.evaluation.suites}
    suites = []
    for name in [n for n in sources if n in found] + sorted(found.keys() - sources.keys()):
        results = tuple(result for result, _ in found[name])
        best = best_training(directories, config.evaluation, name)
        assert best is not None
        folder = best.directory.evaluation(name)
        answers = {
            s: rows for s in SYSTEMS if (rows := read_rows(folder / f"{s}.jsonl", Prediction))
        }
        judged = (_read_judged(result.round, path) for result, path in found[name])
        suites.append(
            SuiteFacts(
                name,
                sources.get(name, name),
                results,
                answers,
                selection_of(config.evaluation),
                best.round,
                len(evaluated_trainings(directories, name)),
                tuple(one for one in judged if one),
            )
        )
    return tuple(suites)


def _read_judged(number: int, folder: Path) -> JudgedSuite | None:
    folder = folder / JUDGE_FOLDER
    if not (folder / SUMMARY_FILE).exists():
        return None
    unread = [
        UnreadReply(row.task_id, f"{row.first} first, {row.second} second", row.text)
        for row in read_rows(folder / PAIRS_FILE, PairVerdict)
        if row.choice is None and row.finish_reason
    ]
    unread += [
        UnreadReply(row.task_id, f"grade of {row.system}", row.text)
        for side in "ab"
        for row in read_rows(grades_file(folder, side), GradeVerdict)
        if row.level is None and row.finish_reason
    ]
    return JudgedSuite(number, read_judgement(folder / SUMMARY_FILE), tuple(unread))
