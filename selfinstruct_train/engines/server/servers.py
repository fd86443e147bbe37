"""Servers of one model: a question goes where most places are free, and past what is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from selfinstruct_train.engines.server.connection import Connector
from selfinstruct_train.engines.server.failures import Failures
from selfinstruct_train.engines.server.replies import Reply, tokens_of

SAMENESS_PROMPT = "Once upon a time, in a small town by the"
"""What every server is asked to continue by one token before it is asked anything else."""
SAMENESS_WIDTH = 5
"""Likeliest tokens that are compared: no server offers fewer."""
_TOLERANCE = 0.2
"""Largest difference of a log-probability between servers of one model, quantized or not."""


class Server:
    """One address, and how it fares."""

    def __init__(self, address: str, failures: Failures) -> None:
        self.address = address
        self.failures = failures
        self.connector = Connector(address)
        self.under_way = 0
        self.failed = 0
        """Failures in a row."""
        self.rests_until = 0.0
        """Time of the monotonic clock before which others are asked, where there are any."""
        self.known: set[str] = set()
        """Models that it was seen to serve as the others do, since it last failed."""

    @property
    def is_up(self) -> bool:
        """Whether it may be asked now."""
        return time.monotonic() >= self.rests_until

    def answered(self, failed: int) -> bool:
        """Count an answer; whether it is the first after failures.

        Args:
            failed: its failures when it was asked. What was asked before it failed again says
                nothing of how it is now.
        """
        if failed != self.failed or not failed:
            return False
        self.failed, self.rests_until = 0, 0.0
        return True

    def has_failed(self, pause: float) -> bool:
        """Let it rest for so many seconds; whether it is the first failure since an answer."""
        is_first = self.failed == 0
        self.failed += 1
        self.rests_until = time.monotonic() + pause
        self.known.clear()
        return is_first


class Places:
    """The places of all servers during one list of questions."""

    def __init__(self, servers: Sequence[Server], each: int) -> None:
        """Count from none.

        Args:
            servers: whom to ask.
            each: most questions under way at one server.
        """
        self._servers = servers
        self._each = each
        self._changed = asyncio.Condition()
        for server in servers:
            server.under_way = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Server]:
        """A place at the server that has most of them, for one try; wait until there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free(self._best()) > 0)
            server = self._best()
            server.under_way += 1
        try:
            yield server
        finally:
            async with self._changed:
                server.under_way -= 1
                self._changed.notify_all()

    def another_is_up(self) -> bool:
        """Whether some server may be asked at once."""
        return len(self._servers) > 1 and any(server.is_up for server in self._servers)

    def _best(self) -> Server:
        up = [server for server in self._servers if server.is_up]
        return max(up or self._servers, key=self._free)

    def _free(self, server: Server) -> int:
        # What was down is tried with one question, lest all wait for it in vain.
        alone = len(self._servers) == 1
        return (self._each if alone or not server.failed else 1) - server.under_way


class Likeliest(NamedTuple):
    """What a model says after `SAMENESS_PROMPT`."""

    text: str
    logprobs: dict[str, float]
    """Likeliest tokens; none where the server does not tell."""


def likeliest(reply: Reply) -> Likeliest:
    """Read the answer to `SAMENESS_PROMPT`."""
    tokens = tokens_of(reply.choices[0])
    return Likeliest(reply.choices[0].text, dict(tokens[0].top) if tokens else {})


def differ(one: Likeliest, other: Likeliest) -> str | None:
    """How the answers of two servers show that their models are not the same; None where not.

    Servers round differently, so tokens that both name may differ a little, and the last of those
    that one names may be missing from the other's. Without log-probabilities nothing is decided.
    """
    if not one.logprobs or not other.logprobs:
        return None
    shared = one.logprobs.keys() & other.logprobs.keys()
    if 2 * len(shared) < min(len(one.logprobs), len(other.logprobs)):
        return f"the likeliest words are {sorted(one.logprobs)} and {sorted(other.logprobs)}"
    for token in sorted(shared):
        first, second = one.logprobs[token], other.logprobs[token]
        if abs(first - second) > _TOLERANCE:
            return f"{token!r} has the log-probabilities {first:.2f} and {second:.2f}"
    return None
