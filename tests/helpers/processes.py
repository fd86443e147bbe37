"""Processes that a test starts together, and whether those that it started are gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def run_on_two(helper: str, *arguments: str, seconds: float = 600.0) -> list[str]:
    """Run a program of tests/helpers on two processes that meet, and see that both end well.

    Returns:
        What each wrote to its standard output.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    meeting |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, str(_ROOT / "tests" / "helpers" / helper), *arguments],
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in ended]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left_of(pids: Path, seconds: float = 60.0) -> list[int]:
    """Those of the processes in a file that are still alive after so long."""
    found = [int(pid) for pid in pids.read_text().split()]
    end = time.monotonic() + seconds
    while (left := [pid for pid in found if is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left
