"""The rounds of a run as decisions: what each wrote and showed, and what followed."""

from __future__ import annotations

from typing import Literal

from selfinstruct_train.records import Row
from selfinstruct_train.rounds.governor import Decision, RoundResult
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import read_json
from selfinstruct_train.text.characters import printable


class RoundLine(Row):
    """A round, for people and programs."""

    round: int
    rows: int
    """Training rows that it wrote, less the pruned ones."""
    decision: Literal["kept", "rolled back", "not decided"]
    stops: bool
    """Whether the run ends here, whatever ``rounds`` is."""
    reason: str
    """Empty where nothing is decided yet."""
    shown: RoundResult | None
    """What was decided on; None where nothing is, or where another version decided."""

    @property
    def line(self) -> str:
        """For a terminal."""
        score = gain = ""
        if self.shown is not None and self.shown.score is not None:
            score = f"{self.shown.score:.1f}"
        if self.shown is not None and (found := self.shown.gain) is not None:
            gain = f"{found.delta:+.1f} ({found.ci_low:+.1f} to {found.ci_high:+.1f}) to {found.a}"
        decision = f"{self.decision}{', stop' if self.stops else ''}"
        reason = f"  {self.reason}" if self.reason else ""
        return printable(
            f"{self.round:>5}  {self.rows:>6}  {score:>7}  {gain:<36}  {decision:<17}{reason}"
        ).rstrip()


def rounds_of(run: RunDirectory) -> tuple[RoundLine, ...]:
    """The rounds begun so far.

    Raises:
        RunError: the folder is not a run.
        DataError: a row or a decision cannot be read.
    """
    run.config()
    live = LiveRows(run)
    return tuple(_line(number, directory, live) for number, directory in enumerate(run.rounds()))


def table_lines(rounds: tuple[RoundLine, ...]) -> list[str]:
    """The table for a terminal, with what its figures are of."""
    head = f"{'round':>5}  {'rows':>6}  {'ROUGE-L':>7}  {'gain':<36}  {'decision':<17}  reason"
    suites = dict.fromkeys(r.shown.suite for r in rounds if r.shown is not None and r.shown.suite)
    found = [head, *(row.line for row in rounds)]
    if suites:
        found.append(
            f"ROUGE-L of the tuned model, and its gain over the best round before, on "
            f"{printable(', '.join(suites))}, which chooses"
        )
    return found


def read_decision(directory: RoundDirectory) -> Decision | None:
    """What followed a round; None where nothing is decided.

    Raises:
        DataError: the decision cannot be read.
    """
    if not directory.decision.exists():
        return None
    return read_json(directory.decision, Decision, "restore the file")


def _line(number: int, directory: RoundDirectory, live: LiveRows) -> RoundLine:
    rows = sum(1 for _ in live.instances_of(directory))
    decision = read_decision(directory)
    if decision is None:
        return RoundLine(
            round=number, rows=rows, decision="not decided", stops=False, reason="", shown=None
        )
    return RoundLine(
        round=number,
        rows=rows,
        decision="rolled back" if decision.rolled_back else "kept",
        stops=decision.action == "stop",
        reason=decision.reason,
        shown=decision.shown,
    )
