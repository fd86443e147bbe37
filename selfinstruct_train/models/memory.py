"""How much memory is free, and whether an error says that there was too little."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

_TOO_LITTLE = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not allocate",
    "bad_alloc",
    "out of memory",
)
"""As torch, its libraries and the operating system say it, in lower case."""


def free_memory(device: torch.device) -> int:
    """Bytes that this process could still take, by the limits of machine and control group."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reusable
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = (Path("/sys/fs/cgroup", f"memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return max(0, free)


def release_memory(device: torch.device) -> None:
    """Give back what a dropped model has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on either kind of device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError | OSError)
        and any(words in str(error).lower() for words in _TOO_LITTLE)
    )
