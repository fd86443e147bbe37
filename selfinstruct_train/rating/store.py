"""Ratings on the disk: one line for each thing a rater did, never changed afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field

from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.rating.sheet import RatedQuestion, RatingItem
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.lock import guard_of
from selfinstruct_train.run.stores import RowStore

Grade = Literal["A", "B", "C", "D"]

GRADES: tuple[Grade, ...] = ("A", "B", "C", "D")
"""The paper's four levels (section 5.4 of Self-Instruct), the best first."""
LONGEST_COMMENT = 4000
"""Characters of a comment."""
_SECONDS_TO_WAIT = 10
"""For another server that is writing."""
LONGEST_NAME = 80
"""Characters of a rater's name."""


class Rating(Row):
    """One act of a rater: a grade or comment given, changed, or taken back."""

    act: Literal["rate", "undo"]
    """``undo`` repeats the row that it takes back, its id too."""
    id: str = ""
    """Name of the act; empty in files of an earlier version, where an undo takes back the rater's
    last act."""
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
    """The ratings of a run, on the disk before a call returns.

    The file is the one store of them: several servers may serve one run. Each looks at what others
    have written before it answers, and writes alone.
    """

    def __init__(self, run: RunDirectory) -> None:
        """Read what is there.

        Raises:
            DataError: a line of the file is no rating.
        """
        self.path = ratings_file(run)
        self._guard = FileLock(guard_of(self.path), timeout=_SECONDS_TO_WAIT)
        self._seen = 0
        self._acts: tuple[Rating, ...] = ()
        self._read()

    def standing(self) -> dict[AnswerKey, Rating]:
        """The last word of each rater on each answer."""
        return standing_ratings(self._read())

    def rate(
        self,
        rater: str,
        question: RatedQuestion,
        candidate: RatingItem,
        grade: Grade | None,
        comment: str,
    ) -> Rating:
        """Keep a grade, a comment or both.

        Returns:
            The act, with the name by which it can be taken back.

        Raises:
            RunError: it could not be written.
        """
        row = Rating(
            act="rate",
            id=secrets.token_hex(8),
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
        with self._alone():
            RowStore(self.path, Rating).append([row])
        return row

    def undo(self, rater: str, act: str | None = None) -> Rating | None:
        """Take back an act of a rater that still stands; what was said before stands again.

        Args:
            rater: whose act it is.
            act: its name; None for the rater's last one.

        Returns:
            What was taken back, or None where the rater has no such act that stands.

        Raises:
            RunError: it could not be written.
        """
        with self._alone():
            history = _history(row for row in self._read() if row.rater == rater)
            found = next((row for row in reversed(history) if act in (None, row.id)), None)
            if found is not None:
                taken = found.model_copy(update={"act": "undo", "at": _now()})
                RowStore(self.path, Rating).append([taken])
        return found

    def _read(self) -> tuple[Rating, ...]:
        """All acts; the file is read again where it has grown."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._seen:
            self._acts = RowStore(self.path, Rating, writable=False).read()
            self._seen = size
        return self._acts

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._guard.acquire()
        except (Timeout, OSError) as error:
            raise RunError(
                f"{self.path}: another server has been writing for {_SECONDS_TO_WAIT} s, or the "
                f"folder cannot be written ({error}); try again"
            ) from None
        try:
            yield
        finally:
            self._guard.release()


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
        elif act.id:
            history = [row for row in history if row.id != act.id]
        elif history:
            history.pop()
    return history


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
