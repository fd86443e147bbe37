"""Stopping on the signals of a scheduler as on Ctrl-C: what is written is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")


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

    A signal that is ignored, as SIGHUP is under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    watched = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in watched:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker just ends
            os.kill(os.getpid(), number)
        raise Stopped(number)

    for number in watched:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in watched:
            signal.signal(number, signal.SIG_DFL)
