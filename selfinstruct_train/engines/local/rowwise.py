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
    functions: dict[torch.dtype, ctypes._NamedFuncPointer]
    """By the precision of keys and values; one of an earlier version may know float32 alone."""
    pool: ThreadPoolExecutor


def can_attend_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether `attend_rows` takes these: one query a row, on a CPU, laid as in `Slots`."""
    size = query.shape[-1]
    return (
        query.shape[2] == 1
        and query.dtype == key.dtype == value.dtype
        and query.device.type == "cpu"
        and size % _LANES == 0
        and size <= _LARGEST
        and key.stride() == value.stride()
        and key.stride()[2:] == (size, 1)
        and key.stride(0) == key.stride(1) * key.shape[1]
        and (library := _library()) is not None
        and query.dtype in library.functions
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
    """Attend from one new token a row; sums are in float32 whatever the precision.

    Args:
        query: [rows, heads, 1, size], float32 or bfloat16.
        key: [rows, key heads, places, size], the busy part of the slots.
        value: likewise.
        seen: [rows], how many places of its slot each row sees.
        window: sliding window, None for no limit.
        scale: what scores are multiplied by.

    Returns:
        [rows, heads, 1, size] in the precision of the query, and [rows, heads, 1] in float32: the
        logarithm of the sum that the softmax divides by.
    """
    library = _library()
    assert library is not None
    rows, heads, _, size = query.shape
    kept, capacity = key.shape[1], key.stride(1) // size
    dtype = query.dtype
    query, seen = query.float().contiguous(), seen.contiguous()
    out, mass = torch.empty_like(query), query.new_empty(rows, heads, 1)
    threads = min(torch.get_num_threads(), rows, 1 + key.numel() // _WORTH_A_THREAD)
    scores = query.new_empty(threads, key.shape[2] + _LANES)

    def part(thread: int) -> None:
        library.functions[dtype](
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
    return out.to(dtype), mass


@cache
def _library() -> _Library | None:
    found = importlib.util.find_spec("selfinstruct_train.engines.local._attention")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    names = {torch.float32: "attend_rows", torch.bfloat16: "attend_half_rows"}
    functions = {dtype: getattr(library, n) for dtype, n in names.items() if hasattr(library, n)}
    pointer, whole = ctypes.c_void_p, ctypes.c_int64
    for function in functions.values():
        function.argtypes = [*[pointer] * 7, *[whole] * 7, ctypes.c_float]
        function.restype = None
    return _Library(functions, ThreadPoolExecutor(thread_name_prefix="attention"))
