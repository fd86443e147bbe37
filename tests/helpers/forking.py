"""Starts commands without their imports: a process that has loaded the libraries forks for each.

``python -m tests.helpers.forking`` reads a command as a line of JSON, writes the number of the
process that runs it and, when that has ended, its exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class Forking:
    """Runs one command at a time, in the folder of the project."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forking"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: ``run``, ``validate``, …, or the path of a recipe."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            self._begin(arguments, out, err)
            code = int(self._line())
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())

    def kill_when(self, path: Path, *arguments: str) -> None:
        """Run a command until a file exists, and kill it there."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self._begin(arguments, out, err)
            deadline = time.monotonic() + 240
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(process, signal.SIGKILL)
            code = int(self._line())
            err.seek(0)
            assert code == -signal.SIGKILL, f"ended before {path.name} was there: {err.read()}"
            assert path.exists(), f"{path.name} never came"

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()

    def _begin(self, arguments: tuple[str, ...], out: IO[str], err: IO[str]) -> int:
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        assert self._process.stdin is not None
        print(json.dumps([*files, *arguments]), file=self._process.stdin, flush=True)
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _serve() -> None:
    from benchmarks.small_run import load_libraries

    load_libraries()
    for line in sys.stdin:
        out, err, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(arguments, out, err)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], out: str, err: str) -> None:
    from benchmarks.small_run import end_as
    from selfinstruct_train.cli.app import main

    def program() -> None:
        for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_RDWR), number)
        if arguments[0].endswith(".py"):
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            sys.argv = ["selfinstruct", *arguments]
            main()

    end_as(program)


if __name__ == "__main__":
    _serve()
