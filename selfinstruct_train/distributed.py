"""Processes that take the same decisions: each does a share of the work, one writes.

Every process holds the same pool and sees the same completions in the same order, so that nothing
but completions is ever sent between them and a run with two processes writes the files of a run
with one.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

from selfinstruct_train.errors import ConfigError

T = TypeVar("T")

_LAUNCHED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets beside WORLD_SIZE."""

_LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""PyTorch's errors of a connection between processes."""

_GONE = (
    *("by peer", "Timed out waiting", "Broken pipe", "Connection timed out", "No route to host"),
    "Network is unreachable",
)
"""What Gloo's errors say of it."""

_SIGN_OF_LIFE_SECONDS = 60.0
"""So often the main process tells its peers that it still waits; less than any time-out."""


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

    def stream(self, make: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What ``make`` yields on the main process, on every one, as it comes; so with an error.

        The main process may wait for its next item as long as it likes: peers are told that it is
        alive, so that the time-out of the process group is for processes that are not.
        """
        if self.size == 1:
            yield from make()
            return
        import torch.distributed as dist

        # Before this, a peer may still be reading a file to which the main process adds items.
        dist.barrier()
        parts = _parts(make) if self.is_main else None
        while True:
            sent: list[_Part[T] | None] = [None if parts is None else next(parts)]
            dist.broadcast_object_list(sent, src=0)
            part = sent[0]
            assert part is not None
            yield from part.items
            if part.error is not None:
                raise part.error
            if part.is_last:
                return

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


class _Part(NamedTuple, Generic[T]):
    """Some items of a stream, perhaps none, and whether it ended behind them."""

    items: list[T]
    is_last: bool
    error: Exception | None


def _parts(make: Callable[[], Iterator[T]]) -> Iterator[_Part[T]]:
    """Items as they come, and an empty part now and then while none does."""
    waiting: SimpleQueue[_Part[T]] = SimpleQueue()

    def work() -> None:
        error = None
        try:
            for item in make():
                waiting.put(_Part([item], False, None))
        except BaseException as raised:  # whatever it is, the peers must not wait for ever
            error = _sendable(raised)
        waiting.put(_Part([], True, error))

    Thread(target=work, daemon=True).start()
    while True:
        try:
            part = waiting.get(timeout=_SIGN_OF_LIFE_SECONDS)
        except Empty:
            part = _Part([], False, None)
        yield part
        if part.is_last:
            return


def _sendable(error: BaseException) -> Exception:
    # Peers would wait for ever for an error that cannot be pickled.
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def is_launched() -> bool:
    """Whether a launcher started this process, which will stop it where another one ends."""
    return "LOCAL_RANK" in os.environ


def on_next(number: int) -> signal.Handlers:
    """What the next signal of a kind does to a process that is leaving: it ends it at once.

    Not so a launcher's SIGTERM. It comes as soon as another process has left, and nobody is in
    haste: SIGKILL follows after half a minute.
    """
    launchers = number == signal.SIGTERM and is_launched()
    return signal.SIG_IGN if launchers else signal.SIG_DFL


def has_lost_peer(error: BaseException) -> bool:
    """Whether an error is only that another process, for which this one waited, is not there."""
    found: BaseException | None = error
    while found is not None:
        # Gloo has no class of its own for it, and PyTorch's own need torch to be imported.
        if type(found).__name__ in _LOST or any(said in str(found) for said in _GONE):
            return True
        found = found.__cause__ or found.__context__
    return False


ALONE = World(rank=0, size=1)


def _whole_number(name: str, default: str = "") -> int:
    text = os.environ.get(name, default)
    valid = text.isascii() and text.isdigit() and len(text) < 10
    if not valid or (name == "WORLD_SIZE" and int(text) == 0):
        raise ConfigError(
            f"environment variable {name}: {text[:40]!r} is not a number of processes; unset it, "
            "or start with accelerate launch"
        )
    return int(text)


def join_world(timeout_minutes: float = 30.0) -> World:
    """Join the processes that the launcher started; a program started without a launcher is alone.

    Without a GPU the processes meet over gloo, which accelerate chooses only when told that this is
    a CPU run.

    Args:
        timeout_minutes: longest that a process waits for another; fixed by the first call.

    Raises:
        ConfigError: the variables of a launcher are incomplete, as another job leaves them behind.
    """
    size = _whole_number("WORLD_SIZE", default="1")
    if size == 1:
        return ALONE
    if missing := [name for name in _LAUNCHED if not os.environ.get(name)]:
        raise ConfigError(
            f"environment variable WORLD_SIZE: is {size}, but without {', '.join(missing)} it is "
            "left over from another job; unset it, or start with accelerate launch"
        )
    if (rank := _whole_number("RANK")) >= size:
        raise ConfigError(
            f"environment variable RANK: is {rank}, but WORLD_SIZE is {size}; unset both, or start "
            "with accelerate launch"
        )
    import torch
    from accelerate import PartialState

    state = PartialState(
        cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=timeout_minutes)
    )
    # Left to the end of the interpreter, gloo's threads now and then abort a process that is done.
    atexit.register(_leave)
    return World(rank=state.process_index, size=state.num_processes)


def _leave() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
