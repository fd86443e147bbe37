"""Telling the user how long work goes: on a terminal a live line, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from selfinstruct_train.text.characters import printable


class ProgressUpdate(NamedTuple):
    """How far a stage is."""

    stage: str
    done: int
    total: int | None
    """None where the end is not known."""
    kept: int
    dropped: Counter[str]
    """Reason -> how many."""
    tokens: int
    """Tokens written since this process began the stage."""
    seconds: float
    """Time since this process began the stage."""
    resumed: int = 0
    """How much of ``done`` an earlier process did."""
    note: str = ""

    def line(self) -> str:
        """The update as one line of text."""
        parts = [f"{self.stage}: {self.done}" + (f"/{self.total}" if self.total else "")]
        if self.kept or self.dropped:
            parts.append(f"kept {self.kept}")
        if self.dropped:
            reasons = ", ".join(f"{reason} {n}" for reason, n in self.dropped.most_common(4))
            parts.append(f"dropped {self.dropped.total()} ({reasons})")
        if self.tokens and self.seconds > 0:
            parts.append(f"{self.tokens / self.seconds:,.0f} tokens/s")
        if (left := self.seconds_left) is not None:
            parts.append(f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left")
        if self.note:
            parts.append(self.note)
        return " · ".join(parts)

    @property
    def seconds_left(self) -> float | None:
        """Until the end, at the pace so far; None where nothing tells."""
        fresh = self.done - self.resumed
        if self.total and fresh > 0 and self.done < self.total:
            return self.seconds / fresh * (self.total - self.done)
        return None


class Said(NamedTuple):
    """A line that the user was told."""

    text: str
    is_warning: bool


Report = Callable[[ProgressUpdate], None]


class Progress:
    """Shows how far each stage is on standard error; quiet on every process but the main one."""

    def __init__(
        self,
        quiet: bool = False,
        every_seconds: float = 10.0,
        record: Callable[[ProgressUpdate | Said], None] | None = None,
    ) -> None:
        """Show nothing yet.

        Args:
            quiet: show and record nothing at all.
            every_seconds: between two lines where no terminal is.
            record: also gets everything, as it comes.
        """
        self._quiet = quiet
        self._record = record or (lambda shown: None)
        self._every = every_seconds
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._stage = ""
        self._shown = 0.0

    def __call__(self, update: ProgressUpdate) -> None:
        """Show an update, if it is time."""
        if self._quiet:
            return
        self._record(update)
        if self._console.is_terminal:
            if self._live is None or update.stage != self._stage:
                self.close()
                self._live = Live(console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(Text(printable(update.line())))
        elif (
            update.stage != self._stage
            or time.monotonic() - self._shown >= self._every
            or update.done == update.total
        ):
            self._console.print(Text(printable(update.line())), soft_wrap=True)
            self._shown = time.monotonic()
        self._stage = update.stage

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._say(text, is_warning=False)

    def warn(self, text: str) -> None:
        """Print a line that stays, and is the run's last warning until the next one."""
        self._say(text, is_warning=True)

    def _say(self, text: str, is_warning: bool) -> None:
        if not self._quiet:
            self._record(Said(text, is_warning))
            self.close()
            self._console.print(Text(printable(text)), soft_wrap=True)

    def close(self) -> None:
        """End the live line, leaving its last state."""
        if self._live is not None:
            self._live.stop()
            self._live = None
