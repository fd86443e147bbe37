"""Stopping on the signals of a scheduler as on Ctrl-C: what is written is whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from selfinstruct_train.distributed import is_launched, on_next

_NAMES = ("SIGTERM", "SIGHUP")
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 8.0
"""For a process whose launcher has died, to leave in good order."""


class Stopped(BaseException):
    """A signal asked the program to stop; like KeyboardInterrupt, no error to be handled."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """Name of the signal."""
        return signal.Signals(self.number).name


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise `Stopped` on the first SIGTERM or SIGHUP; the next one ends the process at once.

    A signal that is ignored, as SIGHUP is under nohup, stays so. Compiled libraries that were
    calling back into Python make an error of their own of what the signal raised: where such a stop
    is behind an error, the stop is raised.
    """
    try:
        with _raising():
            yield
    except Exception as error:
        stop = _stop_behind(error)
        if stop is None:
            raise
        raise stop from None


def _stop_behind(error: BaseException | None) -> BaseException | None:
    while error is not None and not isinstance(error, (Stopped, KeyboardInterrupt)):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def _raising() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    watched = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        forked = os.getpid() != process
        for each in watched:
            signal.signal(each, signal.SIG_DFL if forked else on_next(each))
        if forked:  # a worker just ends
            os.kill(os.getpid(), number)
        raise Stopped(number)

    for number in watched:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in watched:
            signal.signal(number, signal.SIG_DFL)


def end_with_launcher() -> None:
    """Watch the parent, in a process that a launcher started, and end soon after it.

    A launcher that is killed cannot end its processes, which would wait for each other or work on
    where nobody sees them. One that hangs outside Python is ended after some seconds: what is on
    the disk is whole at any moment.
    """
    if is_launched():
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    print(f"\nthe launcher (process {parent}) has ended, so this process ends", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
