"""What a run is at, read by any process while another one works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.lock import Holder, read_holder
from selfinstruct_train.run.log import Event, Figures
from selfinstruct_train.run.stage import STAGES


class StageStatus(Row):
    """A stage that was begun."""

    where: str
    """Folder within the run, such as ``round-0``."""
    stage: str
    is_finished: bool
    seconds: float | None = None
    """Time it took, where it is finished."""


class Pace(Row):
    """How far a stage is, and how fast it goes."""

    stage: str
    at: str
    """When it was so far; UTC, ISO 8601."""
    figures: Figures
    rows_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None

    @property
    def line(self) -> str:
        """As the run shows it."""
        rate = f" · {self.rows_per_second:.2f} rows/s" if self.rows_per_second else ""
        return self.figures.update(self.stage).line() + rate


class RunStatus(Row):
    """What ``selfinstruct status`` shows."""

    run: str
    state: Literal["working", "ended", "stopped", "failed", "killed", "not started"]
    """``killed``: without a word, so by kill -9, a power cut or too little memory."""
    reason: str
    """Why it is in that state, for people."""
    holder: Holder | None
    """The process that works on it."""
    stages: tuple[StageStatus, ...]
    progress: tuple[Pace, ...]
    """The last figures of each stage that the last process worked on, in their order."""
    warnings: int
    """Of the last process."""
    last_warning: str | None
    last_event_at: str | None

    @property
    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.run}: {self.state}" + (f" ({self.reason})" if self.reason else "")
        for where in dict.fromkeys(stage.where for stage in self.stages):
            own = (stage for stage in self.stages if stage.where == where)
            yield f"{where}: " + ", ".join(
                f"{stage.stage} {'finished' if stage.is_finished else 'begun'}" for stage in own
            )
        for pace in self.progress:
            yield pace.line
        if self.last_warning is not None:
            yield f"last of {self.warnings} warnings: {self.last_warning}"
        if self.last_event_at is not None:
            yield f"last entry in run.log: {_ago(self.last_event_at)}"


def read_status(run: RunDirectory) -> RunStatus:
    """Look at a run; no lock is needed and nothing is changed.

    Raises:
        RunError: the folder is not a run directory.
        DataError: a mark is damaged.
    """
    run.config()
    holder = read_holder(run.lock)
    alive = holder if holder is not None and holder.is_alive() else None
    events: list[Event] = []
    for event in run.log.events():
        if event.event == "started":
            events = []
        events.append(event)
    paces = {
        event.stage: _pace(event, event.progress) for event in events if event.progress is not None
    }
    warned = [event.text for event in events if event.event == "warning"]
    state, reason = _state(events, alive)
    return RunStatus(
        run=str(run.path),
        state=state,
        reason=reason,
        holder=alive,
        stages=tuple(_stages(run)),
        progress=tuple(paces.values()),
        warnings=len(warned),
        last_warning=warned[-1] if warned else None,
        last_event_at=events[-1].at if events else None,
    )


def _state(
    events: list[Event], holder: Holder | None
) -> tuple[Literal["working", "ended", "stopped", "failed", "killed", "not started"], str]:
    if holder is not None:
        return "working", holder.description
    if not events:
        return "not started", "run.log has no entry"
    last = events[-1]
    match last.event:
        case "ended" | "stopped" | "failed":
            return last.event, last.text
        case _:
            return "killed", "run the same command to go on"


def _pace(event: Event, figures: Figures) -> Pace:
    update: ProgressUpdate = figures.update(event.stage)
    fresh, seconds = figures.done - figures.resumed, figures.seconds
    return Pace(
        stage=event.stage,
        at=event.at,
        figures=figures,
        rows_per_second=fresh / seconds if fresh > 0 and seconds > 0 else None,
        tokens_per_second=figures.tokens / seconds if figures.tokens and seconds > 0 else None,
        seconds_left=update.seconds_left,
    )


def _stages(run: RunDirectory) -> Iterator[StageStatus]:
    for directory in run.rounds():
        for training in directory.trainings().values():
            yield from _stages_of(run, training, tuple(stage.name for stage in STAGES))
    for path in sorted(run.path.glob("seeds-only/**/done")):
        yield from _stages_of(run, RoundDirectory(path.parent), ("train",))


def _stages_of(
    run: RunDirectory, directory: RoundDirectory, names: tuple[str, ...]
) -> Iterator[StageStatus]:
    where = str(directory.path.relative_to(run.path))
    for name in names:
        if (mark := directory.read_mark(name)) is not None:
            yield StageStatus(where=where, stage=name, is_finished=True, seconds=mark.seconds)
        elif directory.has_begun(name):
            yield StageStatus(where=where, stage=name, is_finished=False)


def _ago(at: str) -> str:
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
    return f"{seconds / 60:.0f} min ago" if seconds >= 90 else f"{seconds:.0f} s ago"
