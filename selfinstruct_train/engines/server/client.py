"""Asking OpenAI-compatible servers, and asking again where that may help."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import NamedTuple

import httpx2

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.connection import (
    authorization,
    background_loop,
    finish,
    key_of,
)
from selfinstruct_train.engines.server.dialects import ServerRequest, body_of, longest_reply
from selfinstruct_train.engines.server.failures import Failure, Failures, RefusedError
from selfinstruct_train.engines.server.replies import Reply, read_reply
from selfinstruct_train.engines.server.servers import (
    SAMENESS_PROMPT,
    SAMENESS_WIDTH,
    Likeliest,
    Places,
    Server,
    differ,
    likeliest,
)
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.records import Sampling

log = logging.getLogger(__name__)

_FIRST_WAIT = 0.5
"""Seconds before the second try; doubled with every further one."""
_LONGEST_WAIT = 30.0
"""Seconds between tries at most, where the server does not ask for more."""
LOOK_SECONDS = 0.5
"""So often whoever waits looks whether a signal has come."""

__all__ = ["Answered", "CompletionsClient", "RefusedError"]


class Answered(NamedTuple):
    """A reply and the question that it answers."""

    position: int
    """Index of the question."""
    reply: Reply


class CompletionsClient:
    """Servers, and the manners towards them: few requests at once, and patience."""

    def __init__(self, config: EngineConfig) -> None:
        """Read the key from the environment; nothing is sent yet.

        Raises:
            ConfigError: the key cannot be one, or a variable of the environment that says how to
                reach servers cannot be used.
        """
        self._config = config
        key = key_of(config)
        self._headers = authorization(key)
        self._servers = tuple(
            Server(address, Failures(config, address, key)) for address in config.addresses
        )
        self._said: dict[str, tuple[str, Likeliest]] = {}
        """Model -> the server that was first heard, and what it says to `SAMENESS_PROMPT`."""

    def ask_all(self, questions: Sequence[ServerRequest]) -> Iterator[Answered]:
        """Yield replies as they come, at most ``concurrency`` questions under way at each server.

        After a failure that no other server makes good nothing new is asked, what is under way is
        still yielded, and then the error is raised.

        Raises:
            RefusedError: a server does not take such a request.
            EngineError: no server can be reached, or all go on failing.
            ConfigError: the servers do not serve the same model.
        """
        waiting = iter(enumerate(questions))
        under_way: dict[Future[Reply], int] = {}
        error: BaseException | None = None
        most = self._config.concurrency * len(self._servers)
        with background_loop() as loop, self._connected(loop) as session:
            if questions:
                asyncio.run_coroutine_threadsafe(self._meet(session, questions[0]), loop).result()
            try:
                while True:
                    while error is None and len(under_way) < most:
                        if (following := next(waiting, None)) is None:
                            break
                        position, question = following
                        asked = self._ask(session, question)
                        under_way[asyncio.run_coroutine_threadsafe(asked, loop)] = position
                    if not under_way:
                        break
                    for future in wait(under_way, LOOK_SECONDS, FIRST_COMPLETED).done:
                        position = under_way.pop(future)
                        if (raised := future.exception()) is None:
                            yield Answered(position, future.result())
                        elif error is None:
                            error = raised
                            loop.call_soon_threadsafe(session.stopping.set)
            finally:
                for future in under_way:
                    future.cancel()
        if error is not None:
            raise error

    @contextmanager
    def _connected(self, loop: asyncio.AbstractEventLoop) -> Iterator[_Session]:
        clients = {server: server.connector.connect() for server in self._servers}
        places = Places(self._servers, self._config.concurrency)
        try:
            yield _Session(clients, places, asyncio.Event())
        finally:
            for http in clients.values():
                finish(http.aclose(), loop)

    async def _meet(self, session: _Session, question: ServerRequest) -> None:
        """Of several servers, see that all that are up serve one model, before any is asked."""
        if len(self._servers) == 1:
            return
        # The first one is heard alone, so that the others are held against the same one.
        for servers in (self._servers[:1], self._servers[1:]):
            for server, failure in zip(
                servers,
                await asyncio.gather(*(self._know(session, s, question, 1) for s in servers)),
                strict=True,
            ):
                if failure is not None and failure.again:
                    self._set_aside(session, server, failure)

    async def _know(
        self, session: _Session, server: Server, question: ServerRequest, tried: int
    ) -> Failure | None:
        """See that a server's model is that of the others.

        Raises:
            ConfigError: it is not.
        """
        if len(self._servers) == 1 or question.model in server.known:
            return None
        width = None if self._config.server_endpoint == "chat" else SAMENESS_WIDTH
        test = ServerRequest(
            question.model, SAMENESS_PROMPT, Sampling(max_tokens=1), question.context_length, width
        )
        outcome = await self._try(session.clients[server], server, test, tried)
        if isinstance(outcome, Reply):
            said = likeliest(outcome)
            first, expected = self._said.setdefault(question.model, (server.address, said))
            if (difference := differ(expected, said)) is not None:
                raise ConfigError(
                    f"generation.engine.base_urls: {first} and {server.address} do not serve the "
                    f"same model (after {SAMENESS_PROMPT!r}, {difference}); start both with the "
                    "model that model.name_or_path names"
                )
        elif outcome.again:
            return outcome
        # A server that refuses this question may still take others, and says so if not.
        server.known.add(question.model)
        return None

    async def _ask(self, session: _Session, question: ServerRequest) -> Reply:
        """The reply to one question, which is not tried again once the session is stopping.

        A failure counts as a try only where no other server can be asked at once.
        """
        tried = 1
        while True:
            async with session.places.place() as server:
                failed = server.failed
                outcome: Reply | Failure | None
                outcome = await self._know(session, server, question, tried)
                if outcome is None:
                    outcome = await self._try(session.clients[server], server, question, tried)
            if isinstance(outcome, Reply):
                if server.answered(failed) and len(self._servers) > 1:
                    log.warning("%s: answers again", server.address)
                return outcome
            if not outcome.again:
                raise outcome.error
            takes_over = self._set_aside(session, server, outcome)
            if session.stopping.is_set() or (not takes_over and tried > self._config.max_retries):
                raise outcome.error
            if takes_over:
                continue
            pause = pause_before(outcome, tried)
            log.warning("%s; trying again in %.1f s", outcome.error, pause)
            try:
                await asyncio.wait_for(session.stopping.wait(), pause)
            except TimeoutError:
                tried += 1
                continue
            raise outcome.error

    def _set_aside(self, session: _Session, server: Server, failure: Failure) -> bool:
        """Let a server rest that failed; whether others take over, which is said once."""
        is_first = server.has_failed(pause_before(failure, server.failed + 1))
        takes_over = session.places.another_is_up()
        if is_first and takes_over:
            log.warning("%s; the other servers take over", failure.error)
        return takes_over

    async def _try(
        self, http: httpx2.AsyncClient, server: Server, question: ServerRequest, tried: int
    ) -> Reply | Failure:
        # Failures are returned, not raised, so that no traceback holds the client's own error and
        # its headers.
        failures = server.failures
        try:
            received = await asyncio.wait_for(
                self._post(http, server.address, question), self._config.timeout_seconds
            )
        except TimeoutError:
            return failures.too_late(tried)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return failures.unreached(tried, error)
        if received.text is None:
            return failures.too_large(received.limit)
        reply = read_reply(received.text)
        if received.status < 400 and isinstance(reply, Reply):
            return reply
        if received.moved_to is not None:
            return failures.moved(received.moved_to, received.status, tried)
        if isinstance(reply, Reply) or received.status >= 400:
            status, headers = received.status, received.headers
            return failures.by_status(status, headers, received.text, question, tried)
        return failures.no_reply(reply, received.text, question, tried)

    async def _post(
        self, http: httpx2.AsyncClient, address: str, question: ServerRequest
    ) -> _Received:
        chat = "chat/" if self._config.server_endpoint == "chat" else ""
        url = f"{address.rstrip('/')}/{chat}completions"
        limit = longest_reply(question)
        body = bytearray()
        async with http.stream(
            "POST", url, json=body_of(question, self._config), headers=self._headers
        ) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > limit:
                    break
            text = None if len(body) > limit else body.decode("utf-8", errors="replace")
            moved_to = str(response.url) if response.history else None
            return _Received(response.status_code, response.headers, text, limit, moved_to)


class _Session(NamedTuple):
    """What the questions of one list share."""

    clients: dict[Server, httpx2.AsyncClient]
    places: Places
    stopping: asyncio.Event


class _Received(NamedTuple):
    status: int
    headers: httpx2.Headers
    text: str | None
    """None where it is longer than the limit."""
    limit: int
    moved_to: str | None
    """Where redirects led, if there were any."""


def pause_before(failure: Failure, tried: int) -> float:
    """Seconds to wait after a failed try, the first of which is 1."""
    return max(failure.pause, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** (tried - 1)))


def sleep(seconds: float) -> None:
    """Sleep in short pieces: a signal that arrives just before a sleep is seen when that ends."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
