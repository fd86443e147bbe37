"""Whether processes that a test started are gone."""

from __future__ import annotations

import time
from pathlib import Path


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
