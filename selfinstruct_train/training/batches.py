"""Which rows go through the model together, in all steps and on all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Sampler

from selfinstruct_train.training.launcher import Batching

_ROWS_AT_ONCE = 256
"""Cutting a step takes time by the cube of its rows; larger ones are halved by length first."""


class StepBatches(Sampler[list[int]]):
    """Micro-batches of row numbers, those of all processes in turn.

    Which rows a step has depends on the seed alone. Of these, rows of like length go together: the
    few long ones in small micro-batches, the many short ones in large ones, as pads least. The step
    stays the same, and none is larger than equal ones could be. Where an epoch ends in a step that
    is not whole, a process for which no row is left gets an empty micro-batch. So no row is trained
    on twice in an epoch, as it would be by accelerate, which fills the last micro-batches with rows
    of the epoch's beginning.

    Args:
        lengths: tokens of each row.
        batching: how each process takes its share of a step.
        processes: how many there are.
        seed: of the order of the rows.
        done: how many steps were taken so far; asked when an epoch begins, or is gone on with.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batching: Batching,
        processes: int,
        seed: int,
        done: Callable[[], int],
    ) -> None:
        self._lengths = lengths
        self._together = batching.micro_batch * processes
        self._rows = self._together * batching.accumulation
        self._processes, self._seed, self._done = processes, seed, done

    def __len__(self) -> int:
        whole, rest = divmod(len(self._lengths), self._rows)
        return whole * self._count(self._rows) + self._count(rest)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self._done() // math.ceil(len(self._lengths) / self._rows)
        drawn = torch.Generator().manual_seed(self._seed + epoch)
        order = torch.randperm(len(self._lengths), generator=drawn).tolist()
        for start in range(0, len(order), self._rows):
            yield from self._shared_out(order[start : start + self._rows])

    def _shared_out(self, rows: list[int]) -> Iterator[list[int]]:
        count = self._count(len(rows))
        if count > 1:
            rows = sorted(rows, key=lambda row: -self._lengths[row])
        ends = least_padding([int(self._lengths[row]) for row in rows], count)
        for start, stop in pairwise((0, *ends)):
            yield rows[start:stop]

    def _count(self, rows: int) -> int:
        """Micro-batches of a step of so many rows, on all processes together."""
        return math.ceil(rows / self._together) * self._processes


def least_padding(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    """Where to cut a step into micro-batches, so that the fewest tokens are computed.

    Args:
        lengths: tokens of each row, the longest first.
        count: micro-batches; those for which no row is left are empty.

    Returns:
        The end of each, shape (count,). None has more tokens, padding included, than the first of
        equal ones would. With more than 256 rows the fewest tokens of each half.
    """
    rows = len(lengths)
    if count == 1:
        return (rows,)
    if rows > _ROWS_AT_ONCE:
        few = count // 2
        half = rows * few // count
        first = least_padding(lengths[:half], few)
        return (*first, *(half + end for end in least_padding(lengths[half:], count - few)))
    longest = np.asarray(lengths, dtype=np.float64)[:, None]
    held = np.arange(rows + 1) - np.arange(rows)[:, None]
    tokens = held * longest
    fits = (held > 0) & (tokens <= math.ceil(rows / count) * longest[0])
    tokens = np.where(fits, tokens, np.inf)
    """Of a micro-batch, by its first row and its end, shape (rows, rows + 1)."""
    least = np.full(rows + 1, np.inf)
    least[0] = 0.0
    """Tokens of the micro-batches so far, by their end."""
    cuts = []
    for _ in range(min(count, rows)):
        together = least[:-1, None] + tokens
        cuts.append(together.argmin(axis=0))
        least = together.min(axis=0)
    ends, end = [rows] * (count - len(cuts)), rows
    for cut in reversed(cuts):
        ends.append(end)
        end = int(cut[end])
    return tuple(reversed(ends))
