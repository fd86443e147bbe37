"""Asking an OpenAI-compatible server, and asking again where that may help."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime
from itertools import count
from threading import Event
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DefaultHttpxClient,
    OpenAI,
)
from pydantic import ValidationError

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.dialects import Question, body_of
from selfinstruct_train.engines.server.replies import Reply
from selfinstruct_train.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

_FIRST_WAIT = 0.5
"""Seconds before the second try; doubled with every further one."""
_LONGEST_WAIT = 30.0
"""Seconds between tries at most, where the server does not ask for more."""
_LONGEST_RETRY_AFTER = 3600.0
"""A server that asks for a longer pause is not waited for."""
_NO_KEY = "none"
"""The client insists on a key; servers on this machine take any."""


class Answered(NamedTuple):
    """A reply and the question that it answers."""

    position: int
    """Index of the question."""
    reply: Reply


class RefusedError(EngineError):
    """The server does not take this kind of request."""


class _Fault(NamedTuple):
    error: EngineError
    again: bool
    """Whether another try may help."""
    pause: float = 0.0
    """Seconds that the server asks to wait for."""


class CompletionsClient:
    """A server, and the manners towards it: few requests at once, and patience."""

    def __init__(self, config: EngineConfig) -> None:
        """Read the key from the environment; nothing is sent yet.

        Raises:
            ConfigError: ``base_url`` is no address, or the key cannot be one.
        """
        host = _host(config.base_url)
        self._config = config
        self._key = os.environ.get(config.api_key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(
                f"environment variable {config.api_key_variable}: holds characters that no key "
                "has; set it again"
            )
        self._client = OpenAI(
            base_url=config.base_url,
            api_key=self._key or _NO_KEY,
            timeout=config.timeout_seconds,
            max_retries=0,
            # A proxy of the environment cannot reach a server on this machine.
            http_client=DefaultHttpxClient(trust_env=not _is_loopback(host)),
        )

    def ask_all(self, questions: Sequence[Question]) -> Iterator[Answered]:
        """Yield replies as they come, at most ``concurrency`` questions under way.

        After a failure nothing new is asked, what is under way is still yielded, and then the error
        is raised.

        Raises:
            RefusedError: the server does not take such a request.
            EngineError: the server cannot be reached, or goes on failing.
        """
        stopping = Event()
        waiting = iter(enumerate(questions))
        under_way: dict[Future[Reply], int] = {}
        fault: BaseException | None = None
        threads = max(1, min(self._config.concurrency, len(questions)))
        pool = ThreadPoolExecutor(threads, thread_name_prefix="completions")
        try:
            while True:
                while fault is None and len(under_way) < threads:
                    if (following := next(waiting, None)) is None:
                        break
                    position, question = following
                    under_way[pool.submit(self.ask, question, stopping)] = position
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    position = under_way.pop(future)
                    if (error := future.exception()) is None:
                        yield Answered(position, future.result())
                    elif fault is None:
                        fault = error
                        stopping.set()
        finally:
            stopping.set()
            pool.shutdown(wait=False)
        if fault is not None:
            raise fault

    def ask(self, question: Question, stopping: Event) -> Reply:
        """The reply to one question.

        Args:
            question: what to ask.
            stopping: once set, the question is not tried again.

        Raises:
            RefusedError: the server does not take such a request.
            EngineError: the server cannot be reached, or goes on failing.
        """
        for tried in count(1):
            outcome = self._try(question, tried)
            if isinstance(outcome, Reply):
                return outcome
            if not outcome.again or tried > self._config.max_retries:
                raise outcome.error
            pause = max(outcome.pause, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (tried - 1)))
            log.warning("%s; trying again in %.1f s", outcome.error, pause)
            if stopping.wait(pause):
                raise outcome.error
        raise AssertionError("unreachable")

    def _try(self, question: Question, tried: int) -> Reply | _Fault:
        # Faults are returned, not raised, so that no traceback holds the client's own error and
        # its headers.
        body = body_of(question, self._config)
        try:
            text = self._post(question.model, body)
        except APITimeoutError:
            return _Fault(EngineError(self._timeout_text(tried)), again=True)
        except APIConnectionError as error:
            return _Fault(EngineError(self._unreached_text(tried, error)), again=True)
        except APIStatusError as error:
            return self._status_fault(error, question, tried)
        try:
            return Reply.model_validate_json(text)
        except ValidationError:
            return _Fault(EngineError(self._malformed_text(text)), again=False)

    def _post(self, model: str, body: dict[str, Any]) -> str:
        # The whole body goes as an extra, which wins: the client's own words are too few.
        if self._config.server_endpoint == "chat":
            chat = self._client.chat.completions.with_raw_response
            return chat.create(model=model, messages=[], extra_body=body).http_response.text
        plain = self._client.completions.with_raw_response
        return plain.create(model=model, prompt="", extra_body=body).http_response.text

    def _timeout_text(self, tried: int) -> str:
        return (
            f"{self._config.base_url}: no answer within {self._config.timeout_seconds:g} s (try "
            f"{tried}); raise generation.engine.timeout_seconds or lower "
            "generation.engine.concurrency"
        )

    def _unreached_text(self, tried: int, error: Exception) -> str:
        return (
            f"{self._config.base_url}: cannot be reached (try {tried}: "
            f"{self._clean(str(error.__cause__ or error))}); start the server or mend "
            "generation.engine.base_url, and run the same command again: finished requests are kept"
        )

    def _malformed_text(self, text: str) -> str:
        return (
            f"{self._config.base_url}: answered what is no completion ({self._clean(text)!r}); "
            "generation.engine.base_url must be the address that stands before "
            f"/{'chat/' * (self._config.server_endpoint == 'chat')}completions"
        )

    def _status_fault(self, error: APIStatusError, question: Question, tried: int) -> _Fault:
        status = error.status_code
        said = error.body.get("message") if isinstance(error.body, Mapping) else None
        detail = self._clean(str(said or error.response.text))
        begin = f"{self._config.base_url}: status {status} (try {tried}: {detail})"
        # llama-server refuses to echo with a status that says that the server is ill.
        if question.echo and "echo" in detail.lower():
            return _Fault(RefusedError(f"{begin}; the server does not echo prompts"), again=False)
        if status in (401, 403):
            variable = self._config.api_key_variable
            mend = f"put the server's key into the environment variable {variable}"
            return _Fault(EngineError(f"{begin}; {mend}"), again=False)
        if status == 404:
            mend = (
                f"the server must have a {self._config.server_endpoint} endpoint (see "
                f"generation.engine.server_endpoint) and know a model '{question.model}': set "
                "generation.engine.server_model to a name that "
                f"{self._config.base_url.rstrip('/')}/models lists"
            )
            return _Fault(EngineError(f"{begin}; {mend}"), again=False)
        if status not in (408, 429) and (status < 500 or status == 501):
            mend = "the server does not take this request: change the setting that it names"
            return _Fault(RefusedError(f"{begin}; {mend}"), again=False)
        pause = _retry_after(error.response.headers)
        mend = "run the same command again later: finished requests are kept"
        if pause > _LONGEST_RETRY_AFTER:
            late = f"{begin}; it asks for a pause of {pause:.0f} s: {mend}"
            return _Fault(EngineError(late), again=False)
        if status == 429:
            mend = f"lower generation.engine.concurrency, or {mend}"
        return _Fault(EngineError(f"{begin}; {mend}"), again=True, pause=pause)

    def _clean(self, text: str) -> str:
        """One short line without the key: servers like to quote a key that they refuse."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:200]


def _host(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or parts.query:
        # The address is not repeated here: it holds a secret.
        raise ConfigError(
            "generation.engine.base_url: must not hold a user, a password or a query; put the key "
            "into the environment variable that generation.engine.api_key_variable names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"generation.engine.base_url: '{base_url}' is no address of a server; write it like "
            "http://127.0.0.1:8000/v1"
        )
    return parts.hostname


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` header asks for, 0 without one (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
