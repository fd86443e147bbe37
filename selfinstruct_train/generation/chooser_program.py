"""A user's own Python function that scores answers, run in a process of its own.

What a model wrote is handed to it as data and is never run.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.judging.arbiter import Answered

_START_SECONDS = 60.0
"""Longest that the file may take to be imported."""
_NAME = "generation.instances.chooser_program"

# Results go to a copy of standard output, so that what the function prints disturbs nobody.
_RUNNER = """
import json, os, runpy, sys
out = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
score = runpy.run_path(sys.argv[1]).get("score")
print(json.dumps({"ready": callable(score)}), file=out, flush=True)
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"score": float(score(*row))}), file=out, flush=True)
"""


class _Program(NamedTuple):
    process: subprocess.Popen[bytes]
    path: Path
    said: IO[bytes]
    """What it wrote to its standard output and error; a pipe that nobody reads would fill."""


def check_program(path: Path) -> None:
    """See that the file can be run and defines ``score``.

    Raises:
        ConfigError: it cannot, or does not.
    """
    _stop(_start(path))


def score_answers(path: Path, answers: Sequence[Answered], seconds: float) -> list[float]:
    """What the program's ``score(instruction, input, output)`` says of each answer.

    Args:
        path: the Python file.
        answers: what to score.
        seconds: longest that one answer may take; it scores 0 if it takes longer.

    Returns:
        A number for each answer, True being 1 and False 0.

    Raises:
        ConfigError: the program is missing, fails, or says something that is no number.
    """
    found: list[float] = []
    program: _Program | None = None
    try:
        for answer in answers:
            program = program or _start(path)
            reply = _ask(program, answer, seconds)
            if reply is None:
                _stop(program)
                program = None
            found.append(0.0 if reply is None else reply)
    finally:
        if program is not None:
            _stop(program)
    return found


def _start(path: Path) -> _Program:
    if not path.is_file():
        raise ConfigError(f"{_NAME}: no file {path}; name a Python file that defines score")
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the program is stopped
    program = _Program(
        subprocess.Popen(
            [sys.executable, "-c", _RUNNER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            # A group of its own: Ctrl-C is for the run, which then stops it.
            start_new_session=True,
        ),
        path,
        said,
    )
    line = _read_line(program, _START_SECONDS)
    if line is None or not json.loads(line).get("ready"):
        _stop(program)
        what = f"not imported within {_START_SECONDS:.0f} s" if line is None else "has no function"
        raise ConfigError(f"{_NAME}: {path}: {what} score(instruction, input, output); add it")
    return program


def _ask(program: _Program, answer: Answered, seconds: float) -> float | None:
    assert program.process.stdin is not None
    try:
        program.process.stdin.write(json.dumps(list(answer)).encode() + b"\n")
        program.process.stdin.flush()
    except BrokenPipeError:
        raise _failed(program) from None
    line = _read_line(program, seconds)
    if line is None:
        return None
    score = float(json.loads(line)["score"])
    if not math.isfinite(score):
        raise ConfigError(
            f"{_NAME}: {program.path}: score gave {score} for the answer {answer.output[:80]!r}; "
            "return a finite number, True or False"
        )
    return score


def _read_line(program: _Program, seconds: float) -> bytes | None:
    """The program's next line; None where it takes longer.

    Raises:
        ConfigError: it ended instead.
    """
    output = program.process.stdout
    assert output is not None
    deadline, read = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(output, selectors.EVENT_READ)
        while not read.endswith(b"\n"):
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(output.fileno(), 65536)
            if not piece:
                raise _failed(program)
            read += piece
    return read


def _failed(program: _Program) -> ConfigError:
    program.process.wait()
    program.said.seek(0)
    said = program.said.read().decode("utf-8", "replace").strip().splitlines()
    last = said[-1] if said else f"it ended with exit code {program.process.returncode}"
    _stop(program)
    return ConfigError(f"{_NAME}: {program.path}: {last[:300]}; fix the file and run again")


def _stop(program: _Program) -> None:
    program.process.kill()
    program.process.wait()
    for pipe in (program.process.stdin, program.process.stdout, program.said):
        if pipe is not None:
            pipe.close()
