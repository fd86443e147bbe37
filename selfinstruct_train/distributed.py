"""Processes that take the same decisions: each does a share of the work, one writes.

Every process holds the same pool and sees the same completions in the same order, so that nothing
but completions is ever sent between them and a run with two processes writes the files of a run
with one.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class World(NamedTuple):
    """This process among its peers."""

    rank: int
    size: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run directory."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``size``-th item, beginning with this process's rank."""
        return items[self.rank :: self.size]

    def gather(self, make: Callable[[], list[T]]) -> list[T]:
        """What ``make`` returns on all processes, in the order that `share` took it from.

        An error of one process is raised on all of them: none is left waiting for a share that
        never comes.
        """
        if self.size == 1:
            return make()
        import torch.distributed as dist

        outcome: list[T] | Exception
        try:
            outcome = make()
        except Exception as error:
            outcome = _sendable(error)
        gathered: list[list[T] | Exception | None] = [None] * self.size
        dist.all_gather_object(gathered, outcome)
        parts: list[list[T]] = []
        for part in gathered:
            if isinstance(part, Exception):
                raise part
            parts.append(part or [])
        return [parts[i % self.size][i // self.size] for i in range(sum(map(len, parts)))]

    def on_main(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on the main process, on every one; so with an error."""
        if self.size == 1:
            return make()
        import torch.distributed as dist

        outcome: list[T | Exception | None] = [None]
        if self.is_main:
            try:
                outcome[0] = make()
            except Exception as error:  # sent to the peers, who would otherwise wait for ever
                outcome[0] = _sendable(error)
        dist.broadcast_object_list(outcome, src=0)
        result = outcome[0]
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[return-value]


def _sendable(error: Exception) -> Exception:
    # Peers would wait for ever for an error that cannot be pickled.
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


ALONE = World(rank=0, size=1)


def join_world() -> World:
    """Join the processes that the launcher started; a program started without a launcher is alone.

    Without a GPU the processes meet over gloo, which accelerate chooses only when told that this is
    a CPU run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return World(rank=state.process_index, size=state.num_processes)
