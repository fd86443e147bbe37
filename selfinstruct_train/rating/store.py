"""Ratings on the disk: one line for each thing a rater did, never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.rating.sheet import RatedQuestion, RatingItem
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore

Grade = Literal["A", "B", "C", "D"]

GRADES: tuple[Grade, ...] = ("A", "B", "C", "D")
"""The paper's four levels (section 5.4 of Self-Instruct), the best first."""
LONGEST_COMMENT = 4000
"""Characters of a comment."""
LONGEST_NAME = 80
"""Characters of a rater's name."""


class Rating(Row):
    """One act of a rater: a grade or comment given, changed, or taken back."""

    act: Literal["rate", "undo"]
    """``undo`` repeats the row that it takes back."""
    rater: str
    suite: str
    round: int
    task_id: str
    question: str
    answer: str
    """Id that follows from the question and the answer's text."""
    systems: tuple[str, ...]
    """The models that gave this answer."""
    grade: Grade | None
    """None where there is a comment alone."""
    comment: str = Field(default="", max_length=LONGEST_COMMENT)
    at: str
    """UTC, ISO 8601."""


class AnswerKey(NamedTuple):
    """What one rater has one opinion of."""

    rater: str
    question: str
    answer: str


class RatingBook:
    """The ratings of a run, on the disk before a call returns."""

    def __init__(self, run: RunDirectory) -> None:
        """Read what is there.

        Raises:
            DataError: a line of the file is no rating.
        """
        self.path = ratings_file(run)
        self._store = RowStore(self.path, Rating)
        self._acts = list(self._store.read())

    def standing(self) -> dict[AnswerKey, Rating]:
        """The last word of each rater on each answer."""
        return standing_ratings(self._acts)

    def rate(
        self,
        rater: str,
        question: RatedQuestion,
        candidate: RatingItem,
        grade: Grade | None,
        comment: str,
    ) -> None:
        """Keep a grade, a comment or both.

        Raises:
            RunError: it could not be written.
        """
        self._append(
            Rating(
                act="rate",
                rater=rater,
                suite=question.suite,
                round=question.round,
                task_id=question.task_id,
                question=question.id,
                answer=candidate.id,
                systems=candidate.systems,
                grade=grade,
                comment=comment,
                at=_now(),
            )
        )

    def undo(self, rater: str) -> Rating | None:
        """Take back the rater's last act that still stands; what was said before stands again.

        Returns:
            What was taken back, or None where the rater has said nothing.

        Raises:
            RunError: it could not be written.
        """
        history = _history(act for act in self._acts if act.rater == rater)
        if not history:
            return None
        self._append(history[-1].model_copy(update={"act": "undo", "at": _now()}))
        return history[-1]

    def _append(self, row: Rating) -> None:
        self._store.append([row])
        self._acts.append(row)


def ratings_file(run: RunDirectory) -> Path:
    """Where the ratings of a run are kept."""
    return run.path / "ratings.jsonl"


def read_ratings(run: RunDirectory) -> tuple[Rating, ...]:
    """The grades that stand, in the order in which they were first given.

    Raises:
        RunError: the folder is not a run.
        DataError: a line of the file is no rating.
    """
    run.config()
    acts = RowStore(ratings_file(run), Rating, writable=False).read()
    return tuple(row for row in standing_ratings(acts).values() if row.grade is not None)


def standing_ratings(acts: Iterable[Rating]) -> dict[AnswerKey, Rating]:
    """The last word of each rater on each answer, once all that was taken back is gone."""
    by_rater: dict[str, list[Rating]] = {}
    for act in acts:
        by_rater.setdefault(act.rater, []).append(act)
    return {
        AnswerKey(row.rater, row.question, row.answer): row
        for rows in by_rater.values()
        for row in _history(rows)
    }


def rater_name(text: str) -> str:
    """A rater's name with white space folded, so that a stray blank makes no second person.

    Raises:
        ConfigError: it is empty, too long, or holds characters that cannot be seen.
    """
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f"a rater's name has 1 to {LONGEST_NAME} visible characters; {text[:LONGEST_NAME]!r} "
            "has not"
        )
    return name


def _history(acts: Iterable[Rating]) -> list[Rating]:
    """One rater's acts that stand, in order."""
    history: list[Rating] = []
    for act in acts:
        if act.act == "rate":
            history.append(act)
        elif history:
            history.pop()
    return history


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
