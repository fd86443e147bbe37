"""Which rows go through the model together, in all steps and on all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch.utils.data import Sampler

from selfinstruct_train.training.arguments import Batching


class StepBatches(Sampler[list[int]]):
    """Micro-batches of row numbers, those of all processes in turn.

    Which rows a step has depends on the seed alone. Of these, rows of like length go together, so
    that smaller micro-batches have less padding and the step stays the same. Where an epoch ends in
    a step that is not whole, its rows are shared out evenly; a process for which none is left gets
    an empty micro-batch. So no row is trained on twice in an epoch, as it would be by accelerate,
    which fills the last micro-batches with rows of the epoch's beginning.

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
        each, more = divmod(len(rows), count)
        for start, stop in pairwise(i * each + min(i, more) for i in range(count + 1)):
            yield rows[start:stop]

    def _count(self, rows: int) -> int:
        """Micro-batches of a step of so many rows, on all processes together."""
        return math.ceil(rows / self._together) * self._processes
