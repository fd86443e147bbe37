"""Asking an OpenAI-compatible server, and asking again where that may help."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from itertools import count
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import httpx2

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.connection import Connector
from selfinstruct_train.engines.server.dialects import ServerRequest, body_of, longest_reply
from selfinstruct_train.engines.server.failures import Failure, Failures, RefusedError
from selfinstruct_train.engines.server.replies import Reply, read_reply
from selfinstruct_train.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT = 0.5
"""Seconds before the second try; doubled with every further one."""
_LONGEST_WAIT = 30.0
"""Seconds between tries at most, where the server does not ask for more."""
_NO_KEY = "none"
"""Servers on this machine take any key, and some insist on one."""
_LONGEST_CLEAN_UP = 1.0
"""Seconds that open connections get to close."""

__all__ = ["Answered", "CompletionsClient", "RefusedError"]


class Answered(NamedTuple):
    """A reply and the question that it answers."""

    position: int
    """Index of the question."""
    reply: Reply


class CompletionsClient:
    """A server, and the manners towards it: few requests at once, and patience."""

    def __init__(self, config: EngineConfig) -> None:
        """Read the key from the environment; nothing is sent yet.

        Raises:
            ConfigError: the key cannot be one, or a variable of the environment that says how to
                reach servers cannot be used.
        """
        self._config = config
        self._key = os.environ.get(config.api_key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(
                f"environment variable {config.api_key_variable}: holds characters that no key "
                "has; set it again"
            )
        self._failures = Failures(config, self._key)
        self._connector = Connector(config.base_url)

    def ask_all(self, questions: Sequence[ServerRequest]) -> Iterator[Answered]:
        """Yield replies as they come, at most ``concurrency`` questions under way.

        After a failure nothing new is asked, what is under way is still yielded, and then the error
        is raised.

        Raises:
            RefusedError: the server does not take such a request.
            EngineError: the server cannot be reached, or goes on failing.
        """
        waiting = iter(enumerate(questions))
        under_way: dict[Future[Reply], int] = {}
        error: BaseException | None = None
        with _background_loop() as loop:
            stopping = asyncio.Event()
            http = self._connector.connect()
            try:
                while True:
                    while error is None and len(under_way) < self._config.concurrency:
                        if (following := next(waiting, None)) is None:
                            break
                        position, question = following
                        asked = self._ask(http, question, stopping)
                        under_way[asyncio.run_coroutine_threadsafe(asked, loop)] = position
                    if not under_way:
                        break
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        position = under_way.pop(future)
                        if (raised := future.exception()) is None:
                            yield Answered(position, future.result())
                        elif error is None:
                            error = raised
                            loop.call_soon_threadsafe(stopping.set)
            finally:
                for future in under_way:
                    future.cancel()
                _finish(http.aclose(), loop)
        if error is not None:
            raise error

    async def _ask(
        self, http: httpx2.AsyncClient, question: ServerRequest, stopping: asyncio.Event
    ) -> Reply:
        """The reply to one question, which is not tried again once ``stopping`` is set."""
        for tried in count(1):
            outcome = await self._try(http, question, tried)
            if isinstance(outcome, Reply):
                return outcome
            if not outcome.again or tried > self._config.max_retries:
                raise outcome.error
            pause = max(outcome.pause, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tried - 1)))
            log.warning("%s; trying again in %.1f s", outcome.error, pause)
            try:
                await asyncio.wait_for(stopping.wait(), pause)
            except TimeoutError:
                continue
            raise outcome.error
        raise AssertionError("unreachable")

    async def _try(
        self, http: httpx2.AsyncClient, question: ServerRequest, tried: int
    ) -> Reply | Failure:
        # Failures are returned, not raised, so that no traceback holds the client's own error and
        # its headers.
        try:
            received = await asyncio.wait_for(
                self._post(http, question), self._config.timeout_seconds
            )
        except TimeoutError:
            return self._failures.too_late(tried)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._failures.unreached(tried, error)
        if received.text is None:
            return self._failures.too_large(received.limit)
        if received.status >= 400:
            status, headers = received.status, received.headers
            return self._failures.by_status(status, headers, received.text, question, tried)
        reply = read_reply(received.text)
        if isinstance(reply, Reply):
            return reply
        return self._failures.no_reply(reply, received.text, question, tried)

    async def _post(self, http: httpx2.AsyncClient, question: ServerRequest) -> _Received:
        chat = "chat/" if self._config.server_endpoint == "chat" else ""
        url = f"{self._config.base_url.rstrip('/')}/{chat}completions"
        headers = {"Authorization": f"Bearer {self._key or _NO_KEY}"}
        limit = longest_reply(question)
        body = bytearray()
        async with http.stream(
            "POST", url, json=body_of(question, self._config), headers=headers
        ) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > limit:
                    return _Received(response.status_code, response.headers, None, limit)
            text = body.decode("utf-8", errors="replace")
            return _Received(response.status_code, response.headers, text, limit)


class _Received(NamedTuple):
    status: int
    headers: httpx2.Headers
    text: str | None
    """None where it is longer than the limit."""
    limit: int


@contextmanager
def _background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: only there can a whole request be given up in time."""
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(ended.wait())  # and then cancels what is left

    thread = Thread(target=work, name="completions", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(_LONGEST_CLEAN_UP)


def _finish(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    wait([asyncio.run_coroutine_threadsafe(work, loop)], _LONGEST_CLEAN_UP)
