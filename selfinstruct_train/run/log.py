"""run.log: what a run did and when, a line of JSON for each event, for people and for programs."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from selfinstruct_train.errors import RunError, SelfInstructError
from selfinstruct_train.progress import ProgressUpdate, Said
from selfinstruct_train.records import Moment, Row
from selfinstruct_train.run.stores import append_bytes, is_torn

EventKind = Literal[
    "started", "begun", "progress", "note", "warning", "finished", "ended", "stopped", "failed"
]
"""Of a process: started, ended, stopped, failed. Of a stage: begun, progress, finished."""

_EVERY_SECONDS = 10.0
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""A shorter value would also be found in innocent words."""


class Figures(Row):
    """How far a stage was."""

    done: int
    total: int | None
    kept: int
    dropped: dict[str, int]
    """Reason -> how many."""
    tokens: int
    """Written since the process began the stage."""
    seconds: float
    """Since the process began the stage."""
    resumed: int
    """How much of ``done`` an earlier process did."""
    note: str

    def update(self, stage: str) -> ProgressUpdate:
        """As it was shown."""
        return ProgressUpdate(
            stage,
            self.done,
            self.total,
            self.kept,
            Counter(self.dropped),
            self.tokens,
            self.seconds,
            self.resumed,
            self.note,
        )


class Event(Row):
    """A line of run.log."""

    at: Moment
    """UTC, ISO 8601."""
    event: EventKind
    pid: int
    where: str = ""
    """Folder of the stage within the run, such as ``round-0``."""
    stage: str = ""
    text: str = ""
    """For people."""
    progress: Figures | None = None


class RunLog:
    """The log of a run; silent until the process that owns the run opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secrets: tuple[str, ...] | None = None
        self._waiting: ProgressUpdate | None = None
        self._shown = ("", 0.0)

    def open(self, secret_variables: Sequence[str]) -> None:
        """Write from now on.

        Args:
            secret_variables: environment variables whose values must not be written; those of
                which the name says so are known.
        """
        self._secrets = _secrets(os.environ, secret_variables)
        if is_torn(self.path):
            append_bytes(self.path, b"\n", sync=False)
        self.write("started", text=" ".join(sys.argv))

    def write(
        self,
        event: EventKind,
        *,
        where: str = "",
        stage: str = "",
        text: str = "",
        progress: Figures | None = None,
    ) -> None:
        """Append an event.

        Raises:
            RunError: the disk is full.
        """
        if self._secrets is None:
            return
        if event != "progress":
            self._flush()
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = self._without_secrets(text)
        row = Event(
            at=at,
            event=event,
            pid=os.getpid(),
            where=where,
            stage=stage,
            text=text,
            progress=progress,
        )
        line = row.model_dump_json(exclude_defaults=True) + "\n"
        append_bytes(self.path, line.encode(), sync=False)

    def record(self, shown: ProgressUpdate | Said) -> None:
        """Keep what the user is told: progress now and then, and each stage's last."""
        if isinstance(shown, Said):
            self.write("warning" if shown.is_warning else "note", text=shown.text)
            return
        stage, at = self._shown
        if self._waiting is not None and self._waiting.stage != shown.stage:
            self._flush()
        self._waiting = shown
        if shown.stage != stage or time.monotonic() - at >= _EVERY_SECONDS:
            self._flush()

    @contextmanager
    def recording(self, what: str) -> Iterator[None]:
        """Note how a process ends, and what the package warns of until then.

        Args:
            what: it does, for the user.
        """
        handler = _WarningsToLog(self)
        package = logging.getLogger("selfinstruct_train")
        package.addHandler(handler)
        try:
            yield
            self.write("ended", text=what)
        except BaseException as error:
            # The error itself matters more than a full disk that hides it.
            with suppress(RunError):
                if isinstance(error, Exception):
                    known = isinstance(error, SelfInstructError)
                    name = "" if known else f"{type(error).__name__}: "
                    self.write("failed", text=f"{name}{error}")
                else:
                    self.write("stopped", text=getattr(error, "name", type(error).__name__))
            raise
        finally:
            package.removeHandler(handler)

    def events(self) -> Iterator[Event]:
        """All events in order; lines that a kill tore or a newer version wrote are left out."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                for line in file:
                    with suppress(ValidationError):
                        yield Event.model_validate_json(line)

    def _flush(self) -> None:
        if (update := self._waiting) is None:
            return
        self._waiting = None
        self._shown = update.stage, time.monotonic()
        figures = Figures(
            done=update.done,
            total=update.total,
            kept=update.kept,
            dropped=dict(update.dropped),
            tokens=update.tokens,
            seconds=round(update.seconds, 3),
            resumed=update.resumed,
            note=self._without_secrets(update.note),
        )
        self.write("progress", stage=update.stage, progress=figures)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets or ():
            text = text.replace(secret, "***")
        return text


class _WarningsToLog(logging.Handler):
    """Takes warnings into the log, and shows them as they would be without it."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write("warning", text=record.getMessage())
        if logging.lastResort is not None and not logging.getLogger().handlers:
            logging.lastResort.handle(record)


def _secrets(environment: Mapping[str, str], named: Sequence[str]) -> tuple[str, ...]:
    found = (
        value
        for name, value in environment.items()
        if (name in named or _SECRET_NAME.search(name)) and len(value) >= _SHORTEST_SECRET
    )
    # The longest first: one may be the beginning of another.
    return tuple(sorted(set(found), key=len, reverse=True))
