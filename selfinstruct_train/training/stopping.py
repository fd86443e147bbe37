"""A training that a scheduler stops: the steps so far are saved before the process leaves."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from selfinstruct_train.distributed import World, on_next

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 20.0
"""Longest wait for a step that can be saved; Slurm and Kubernetes kill after 30 s."""
_NOT_ASKED, _AT_A_ROW, _NOW = 0, 1, 2


class StopRequest:
    """A SIGTERM or SIGHUP that waits until the training has been saved."""

    def __init__(self) -> None:
        self.urgency: Callable[[], int] = lambda: _NOT_ASKED
        self.leave: Callable[[], None] = lambda: None
        """Do what the signal asks for, if one came."""
        self.leave_too: Callable[[], None] = lambda: None
        """Leave likewise at the end: another process was asked to."""


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Let the first SIGTERM or SIGHUP wait, at the longest until the end of this context.

    A second one ends the process at once. Where the program handles neither, nothing is changed.
    """
    request = StopRequest()
    in_main = threading.current_thread() is threading.main_thread()
    before: dict[int, Callable[[int, FrameType | None], Any]] = {
        number: handler
        for number in (signal.SIGTERM, signal.SIGHUP)
        if in_main and callable(handler := signal.getsignal(number))
    }
    process = os.getpid()

    def later(number: int, frame: FrameType | None) -> None:
        forked = os.getpid() != process
        for each in before:
            signal.signal(each, signal.SIG_DFL if forked else on_next(each))
        if forked:  # a worker just ends
            os.kill(os.getpid(), number)
        came = time.monotonic()
        request.urgency = lambda: _AT_A_ROW if time.monotonic() - came < _PATIENCE_SECONDS else _NOW
        request.leave = lambda: before[number](number, frame)

    def with_others() -> None:
        if signal.SIGTERM in before:
            later(signal.SIGTERM, None)

    request.leave_too = with_others
    for number in before:
        signal.signal(number, later)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    request.leave()


class SaveAndStop(TrainerCallback):  # type: ignore[misc]
    """Ends a training that is asked to stop, with a checkpoint of its last step.

    Figures are means since the row before, so only a step that has a row can be gone on from as if
    nothing had happened. Where none comes soon, the checkpoint before has to do.
    """

    def __init__(self, request: StopRequest, world: World) -> None:
        self._request = request
        self._world = world

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop, on all processes after the same step."""
        step = state.global_step
        urgency = self._agreed(args.device)
        if urgency == _NOT_ASKED or step >= state.max_steps:
            return
        has_row = step % args.logging_steps == 0 or step % args.save_steps == 0
        if not has_row and urgency != _NOW:
            return
        control.should_save = has_row
        control.should_training_stop = True
        # A training that ends before its last step must not be taken for a whole one.
        if self._request.urgency() == _NOT_ASKED:
            self._request.leave_too()
        if self._world.is_main:
            kept = "they are saved" if has_row else "those since the last checkpoint are lost"
            log.warning("training stopped after %s of %s steps: %s", step, state.max_steps, kept)

    def _agreed(self, device: torch.device) -> int:
        urgency = self._request.urgency()
        if self._world.size == 1:
            return urgency
        most = torch.tensor(urgency, device=device)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        return int(most)
