"""What a run is made on: hardware, and the commit of the code where it runs from a checkout."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_HERE = Path(__file__).parents[1]
_CPU_FILE = Path("/proc/cpuinfo")
_GIT_SECONDS = 10


def processor() -> str | None:
    """Name of the processor; None where the system does not say."""
    if _CPU_FILE.exists():
        for line in _CPU_FILE.read_text("utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or None


def memory_gib() -> float | None:
    """Memory of the machine in GiB; None where the system does not say."""
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return round(pages * page / 2**30, 1)


def accelerators() -> tuple[str, ...]:
    """Names of the CUDA devices that torch finds."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def commit(folder: Path = _HERE) -> str | None:
    """Commit of the checkout that holds the package, and whether files of it were changed.

    None where the package is installed from a wheel, or git is not there.
    """
    if not (folder.parent / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head} with uncommitted changes" if changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
