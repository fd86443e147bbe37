"""Kills in the midst of a round, played within one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer

Writer = Callable[[Request, Path | None], ScriptedAnswer]


class Killed(BaseException):
    """Stands for a kill: no handler of the pipeline catches it."""


def killed_after(answers: int, writer: Writer) -> Writer:
    """A writer that is killed when it is asked once more than so many times."""
    left = answers

    def write(request: Request, adapter: Path | None) -> ScriptedAnswer:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return writer(request, adapter)

    return write
