"""Attention of one query a row, read row by row by ``attention.c``.

Where the install found no compiler for it, matrix products do the same, only slower.
"""

from __future__ import annotations

import ctypes
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import torch

_LANES = 16
_LARGEST = 256
"""Largest head size, as in ``attention.c``."""
_WORTH_A_THREAD = 1 << 18
"""Fewest floats of keys that pay for handing rows to another thread."""


class _Library(NamedTuple):
    attend_rows: ctypes._NamedFuncPointer
    pool: ThreadPoolExecutor


def can_attend_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether `attend_rows` takes these: one query a row, float32 on a CPU, laid as in `Slots`."""
    size = query.shape[-1]
    return (
        query.shape[2] == 1
        and query.dtype == key.dtype == value.dtype == torch.float32
        and query.device.type == "cpu"
        and size % _LANES == 0
        and size <= _LARGEST
        and key.stride() == value.stride()
        and key.stride()[2:] == (size, 1)
        and key.stride(0) == key.stride(1) * key.shape[1]
        and _library() is not None
    )


def has_kernel() -> bool:
    """Whether the install found a compiler for ``attention.c``."""
    return _library() is not None


def attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    window: int | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from one new token a row.

    Args:
        query: [rows, heads, 1, size].
        key: [rows, key heads, places, size], the busy part of the slots.
        value: likewise.
        seen: [rows], how many places of its slot each row sees.
        window: sliding window, None for no limit.
        scale: what scores are multiplied by.

    Returns:
        [rows, heads, 1, size], and [rows, heads, 1]: the logarithm of the sum that the softmax
        divides by.
    """
    library = _library()
    assert library is not None
    rows, heads, _, size = query.shape
    kept, capacity = key.shape[1], key.stride(1) // size
    query, seen = query.contiguous(), seen.contiguous()
    out, mass = torch.empty_like(query), query.new_empty(rows, heads, 1)
    threads = min(torch.get_num_threads(), rows, 1 + key.numel() // _WORTH_A_THREAD)
    scores = query.new_empty(threads, key.shape[2] + _LANES)

    def part(thread: int) -> None:
        library.attend_rows(
            *(tensor.data_ptr() for tensor in (query, key, value, seen, out, mass, scores[thread])),
            rows * thread // threads,
            rows * (thread + 1) // threads,
            *(kept, heads // kept, size, capacity, window or capacity, scale),
        )

    if threads == 1:
        part(0)
    else:
        for _ in library.pool.map(part, range(threads)):
            pass
    return out, mass


@cache
def _library() -> _Library | None:
    found = importlib.util.find_spec("selfinstruct_train.engines.local._attention")
    if found is None or found.origin is None:
        return None
    function = ctypes.CDLL(found.origin).attend_rows
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [*[pointer] * 7, *[whole] * 7, ctypes.c_float]
    function.restype = None
    return _Library(function, ThreadPoolExecutor(thread_name_prefix="attention"))
