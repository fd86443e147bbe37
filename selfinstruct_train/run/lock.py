"""One process writes: a lock that the system drops with its holder, and a file that names it."""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread, current_thread
from threading import Lock as Mutex
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import Field

from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import Moment, Row
from selfinstruct_train.run.stores import read_json, write_atomically

RUN_LOCK = "run.lock"
"""In a run directory while a process works on it."""

BEAT_SECONDS = 5.0
"""So often a holder gives a sign of life."""
_SIGNING = Mutex()
"""A process that holds a lock twice signs from two threads, through one scratch file."""
_BEATS_TO_WAIT = 2.5
"""A holder on another machine that stays silent for so many beats is gone."""


class Holder(Row):
    """A lock file: who holds the lock."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    host: str
    command: tuple[str, ...]
    since: Moment
    """UTC, ISO 8601."""
    heartbeat: Moment
    """Last sign of life; UTC, ISO 8601."""

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == socket.gethostname()

    @property
    def description(self) -> str:
        """Which process it is, and how long it has been silent."""
        silent = max(0.0, (_now() - datetime.fromisoformat(self.heartbeat)).total_seconds())
        return (
            f"process {self.pid} on {self.host} (since {self.since}, last sign of life "
            f"{silent:.0f} s ago)"
        )

    def is_alive(self) -> bool:
        """Whether it still runs, as far as this machine can tell."""
        if self.is_here:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
            return True
        silent = (_now() - datetime.fromisoformat(self.heartbeat)).total_seconds()
        return abs(silent) < 2 * _BEATS_TO_WAIT * BEAT_SECONDS


class Lock:
    """A lock of this process, until `release`, the end of the object or of the process."""

    def __init__(self, file: Path, guard: FileLock, notes: tuple[str, ...] = ()) -> None:
        self.notes = notes
        """What was found, one sentence each."""
        began = _now().isoformat(timespec="seconds")
        _sign(file, began)
        ended = Event()
        beat = Thread(target=_beat, args=(file, began, ended), daemon=True)
        beat.start()
        self.release = weakref.finalize(self, _release, file, guard, beat, ended, os.getpid())
        """Give it back; a second call does nothing."""

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def hold(file: Path, what: str, instead: str) -> Lock:
    """Take a lock, for writing; readers need none. A process may hold one several times.

    The system drops the lock of a process that ends, however it ends. Where machines do not see
    each other's locks, a holder elsewhere counts for as long as it gives signs of life.

    Args:
        file: names the holder while the lock is held. Its folder is made where it is missing;
            beside it, with a dot before its name, stays the empty file that the system locks.
        what: the holder works on, for the user: ``run``.
        instead: what else the user can do, as the end of a sentence.

    Raises:
        RunError: another process holds it, or the folder cannot be written.
    """
    before = read_holder(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        guard = FileLock(guard_of(file), is_singleton=True, thread_local=False)
        guard.acquire(timeout=0)
    except Timeout:
        raise _held(file, what, read_holder(file) or before, instead) from None
    except OSError as error:
        raise RunError(f"{file.parent}: cannot be used ({error.strerror}); {instead}") from None
    if guard.lock_counter > 1 or not file.exists():
        return Lock(file, guard)
    before = read_holder(file)
    if before is not None and not before.is_here and _gives_sign(file, before):
        guard.release()
        raise _held(file, what, before, instead)
    who = before.description if before else "a process that left a damaged lock"
    note = f"{file.parent}: taken over from {who}, which ended without giving it back"
    return Lock(file, guard, (note,))


def guard_of(file: Path) -> Path:
    """The file that the system locks, beside the one that names the holder."""
    return file.with_name(f".{file.name}")


def read_holder(file: Path) -> Holder | None:
    """Who holds a lock, or ended without giving it back; None where nobody does."""
    with suppress(DataError):  # it was given back meanwhile, or a power cut damaged it
        if file.exists():
            return read_json(file, Holder, "delete it")
    return None


def _held(file: Path, what: str, holder: Holder | None, instead: str) -> RunError:
    who = holder.description if holder else "another process"
    return RunError(
        f"{file.parent}: {who} works on this {what}; wait until it ends, stop it, or {instead}"
    )


def _gives_sign(file: Path, before: Holder) -> bool:
    """Watch a holder elsewhere: clocks of two machines may differ, so only a change counts."""
    deadline = time.monotonic() + _BEATS_TO_WAIT * BEAT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 10)
        if read_holder(file) not in (before, None):
            return True
    return False


def _sign(file: Path, began: str) -> None:
    holder = Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        command=tuple(sys.argv),
        since=began,
        heartbeat=_now().isoformat(timespec="seconds"),
    )
    with _SIGNING:
        write_atomically(file, holder.model_dump_json() + "\n")


def _beat(file: Path, began: str, ended: Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        # A full disk stops the work itself, with a sentence; a beat may be missed.
        with suppress(RunError):
            _sign(file, began)


def _release(file: Path, guard: FileLock, beat: Thread, ended: Event, process: int) -> None:
    if os.getpid() != process:  # a forked worker that ends gives nothing back
        return
    ended.set()
    if beat is not current_thread():
        beat.join()
    if guard.lock_counter == 1:
        file.unlink(missing_ok=True)
    guard.release()


def _now() -> datetime:
    return datetime.now(UTC)
