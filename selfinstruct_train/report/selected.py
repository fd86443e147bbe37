"""Which rows of a round the selection took, which it left out, and why."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import NamedTuple

from selfinstruct_train.records import GeneratedInstance, LeftOutRow, RowScores
from selfinstruct_train.report.wording import left_out_words, spread
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import RowStore

_SHOWN = 12
_SCORES = ("arbiter", "ifd", "length", "novelty")


class ScoreMeans(NamedTuple):
    """What rows score on average; None where none has the score."""

    name: str
    taken: float | None
    left_out: float | None


class LeftOutShown(NamedTuple):
    """A row that is not trained on, and why in words."""

    row: GeneratedInstance
    why: str


class RoundSelection(NamedTuple):
    """What the selection of one round did."""

    rows: int
    left_out: Counter[str]
    """By reason."""
    means: tuple[ScoreMeans, ...]
    """Of the scores that were computed."""
    sample: tuple[LeftOutShown, ...]
    """Some of the rows that were left out, spread over the round."""

    @property
    def taken(self) -> int:
        """Rows that are trained on, unless they were pruned."""
        return self.rows - self.left_out.total()


def read_selection(directory: RoundDirectory) -> RoundSelection | None:
    """What the selection of a round did; None where the round has none.

    Raises:
        DataError: a row cannot be read.
    """
    if not directory.selection.exists():
        return None
    store = RowStore(directory.selection, LeftOutRow, writable=False)
    left_out = {row.id: row for row in store.stream()}
    instances = RowStore(directory.instances, GeneratedInstance, writable=False)
    rows, found = 0, []
    for row in instances.stream():
        rows += 1
        if row.id in left_out:
            found.append(row)
    return RoundSelection(
        rows=rows,
        left_out=Counter(row.reason for row in left_out.values()),
        means=_means(directory, left_out),
        sample=tuple(
            LeftOutShown(row, left_out_words(left_out[row.id])) for row in spread(found, _SHOWN)
        ),
    )


def _means(directory: RoundDirectory, left_out: dict[str, LeftOutRow]) -> tuple[ScoreMeans, ...]:
    taken: dict[str, list[float]] = {name: [] for name in _SCORES}
    others: dict[str, list[float]] = {name: [] for name in _SCORES}
    for row in RowStore(directory.scores, RowScores, writable=False).stream():
        for name in _SCORES:
            if (score := getattr(row, name)) is not None:
                (others if row.id in left_out else taken)[name].append(score)
    return tuple(
        ScoreMeans(
            name,
            fmean(taken[name]) if taken[name] else None,
            fmean(others[name]) if others[name] else None,
        )
        for name in _SCORES
        if taken[name] or others[name]
    )
