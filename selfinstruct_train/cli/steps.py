"""What a command that works on a run says first and last: what it does, wrote, and what follows."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfinstruct_train.text.characters import printable

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop

Step = Literal["generate", "train", "evaluate"]
_FOLLOWS: dict[Step, Step] = {"generate": "train", "train": "evaluate"}


def say_begin(stages: tuple[Step, ...], config: Path) -> None:
    """Say what is begun before the libraries are loaded, which alone takes many seconds."""
    if os.environ.get("RANK", "0") == "0":
        text = f"{', '.join(stages)}: loading libraries, then checking the model of {config}"
        print(printable(text), file=sys.stderr, flush=True)


def say_end(loop: Loop, step: Step) -> None:
    """Say what a step wrote and by which command the run goes on."""
    if not loop.world.is_main:
        return
    loop.progress.close()
    last = loop.run.round(loop.config.rounds - 1)
    if step == "generate":
        mark = last.read_mark("instances")
        rows = mark.figures.get("kept") if mark else None
        print(printable(f"written: {last.instances} ({rows} rows)"))
    else:
        for training in loop.config.training.trainings:
            print(printable(f"written: {last.training(training.name).tuned}"))
    print(f"next: {printable(_command(_FOLLOWS[step]))}")


def _command(step: Step) -> str:
    """The command of another step with the arguments of this one."""
    program, *arguments = sys.argv
    if Path(program).stem in _FOLLOWS:  # a recipe
        begin = f"accelerate launch {shlex.quote(str(Path(program).with_name(step + '.py')))}"
    else:
        begin, arguments = f"selfinstruct {step}", arguments[1:]
    return " ".join([begin, *map(shlex.quote, _without_redo(arguments))])


def _without_redo(arguments: list[str]) -> list[str]:
    """What was made again is made; the next step begins with it."""
    found = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--redo":
            next(waiting, None)
        elif not argument.startswith("--redo="):
            found.append(argument)
    return found
