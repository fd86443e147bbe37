"""An engine shared by processes: all see every answer, in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from selfinstruct_train.distributed import World
from selfinstruct_train.engines.base import Completion, Engine, PassedOn, Request


class ParallelEngine(PassedOn):
    """Wraps the engine of each process; all must make the same calls in the same order.

    An engine that works here answers a share in each process. One whose requests are independent
    works elsewhere, on a server: the main process alone asks it, for all, and each completion is
    passed on as it arrives.
    """

    def __init__(self, engine: Engine, world: World) -> None:
        super().__init__(engine)
        self._world = world

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield the completions: as they arrive, or in the order of the requests where shared."""
        if self.independent_requests:
            yield from self._world.stream(lambda: self._engine.generate(requests, adapter))
            return
        share = self._world.share(requests)
        position = {request.id: i for i, request in enumerate(share)}
        yield from self._world.gather(
            lambda: sorted(self._engine.generate(share, adapter), key=lambda c: position[c.id])
        )

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, one row per suffix."""
        if self.independent_requests:
            return list(
                self._world.stream(
                    lambda: iter(self._engine.score(prefix, suffixes, continuations, adapter))
                )
            )
        share = self._world.share(suffixes)
        return self._world.gather(
            lambda: self._engine.score(prefix, share, continuations, adapter) if share else []
        )
