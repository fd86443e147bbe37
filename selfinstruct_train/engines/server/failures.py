"""What went wrong with a request, whether another try may help, and what the user can do."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.connection import proxy_variable
from selfinstruct_train.engines.server.dialects import ServerRequest
from selfinstruct_train.engines.server.replies import ErrorBody, NoReply, read_reply
from selfinstruct_train.errors import EngineError

_LONGEST_RETRY_AFTER = 3600.0
"""A server that asks for a longer pause is not waited for."""
_PASSING = (408, 409, 425, 429)
"""Statuses below 500 that say "not now" rather than "never"."""
_LATER = "run the same command again later: finished requests are kept"


class RefusedError(EngineError):
    """The server does not take this kind of request."""


class Failure(NamedTuple):
    """Why a try gave no reply."""

    error: EngineError
    again: bool
    """Whether another try may help."""
    pause: float = 0.0
    """Seconds that the server asks to wait for."""


class Failures:
    """Says what failed, with a server's address and never with its key."""

    def __init__(self, config: EngineConfig, address: str, key: str) -> None:
        self._config = config
        self._address = address
        self._key = key
        self._proxy = proxy_variable(address)
        self._setting = f"generation.engine.base_url{'s' if config.base_urls else ''}"

    def too_late(self, tried: int) -> Failure:
        """The whole reply did not come in time."""
        text = (
            f"{self._address}: no answer within {self._config.timeout_seconds:g} s (try "
            f"{tried}); raise generation.engine.timeout_seconds or lower "
            "generation.engine.concurrency"
        )
        return Failure(EngineError(text), again=True)

    def unreached(self, tried: int, error: Exception) -> Failure:
        """No connection, or one that broke."""
        detail = self._clean(str(error)) or type(error).__name__
        proxy = f", or the proxy that {self._proxy} names" if self._proxy else ""
        text = (
            f"{self._address}: cannot be reached (try {tried}: {detail}); start the server "
            f"or fix {self._setting}{proxy}, and run the same command again: finished requests "
            "are kept"
        )
        return Failure(EngineError(text), again=True)

    def moved(self, url: str, status: int, tried: int) -> Failure:
        """A redirect led to what is no completion: where it leads, a question may not arrive."""
        parts = urlsplit(url)
        text = (
            f"{self._address}: sends requests on to {parts.scheme}://{parts.netloc}{parts.path}, "
            f"which gives no completion (status {status}, try {tried}); set {self._setting} to "
            "where the server itself answers"
        )
        return Failure(EngineError(text), again=status >= 500 or status in _PASSING)

    def too_large(self, limit: int) -> Failure:
        """The reply is longer than what was asked for can be."""
        text = (
            f"{self._address}: the reply is longer than {limit / 2**20:.0f} MB, which the "
            f"tokens asked for cannot be; check that {self._setting} is the address of "
            "the model server and that it keeps to max_tokens"
        )
        return Failure(EngineError(text), again=False)

    def no_reply(self, found: NoReply, text: str, question: ServerRequest, tried: int) -> Failure:
        """Status 200, but no completion."""
        if found.error is not None:
            # Gateways pass the errors of the server behind them on as a success.
            return self.by_status(found.error.status, {}, text, question, tried)
        said = (
            f"{self._address}: answered what is not a completion (try {tried}: "
            f"{self._clean(text)!r}); {self._setting} must be the address that stands "
            f"before /{'chat/' * (self._config.server_endpoint == 'chat')}completions"
        )
        return Failure(EngineError(said), again=found.incomplete)

    def by_status(
        self,
        status: int,
        headers: Mapping[str, str],
        text: str,
        question: ServerRequest | None,
        tried: int,
    ) -> Failure:
        """The server says that it failed; without a question it was asked about a batch."""
        body = read_reply(text)
        error: ErrorBody | None = body.error if isinstance(body, NoReply) else None
        detail = self._clean(error.message if error is not None and error.message else text)
        begin = f"{self._address}: status {status} (try {tried}: {detail})"
        # llama-server refuses to echo with a status that says that the server is ill.
        if question is not None and question.echo and "echo" in detail.lower():
            return Failure(RefusedError(f"{begin}; the server does not echo prompts"), again=False)
        if status in (401, 403):
            variable = self._config.api_key_variable
            fix = f"put the server's key into the environment variable {variable}"
            return Failure(EngineError(f"{begin}; {fix}"), again=False)
        loading = "loading" in detail.lower()
        if status in (404, 405) and question is None:
            fix = (
                "the server must have the endpoints /files and /batches: set "
                "generation.engine.server_mode to requests"
            )
            return Failure(EngineError(f"{begin}; {fix}"), again=False)
        if status == 404 and question is not None and not loading:
            fix = (
                f"the server must have a {self._config.server_endpoint} endpoint (see "
                f"generation.engine.server_endpoint) and know a model '{question.model}': set "
                "generation.engine.server_model to a name that "
                f"{self._address.rstrip('/')}/models lists"
            )
            return Failure(EngineError(f"{begin}; {fix}"), again=False)
        if not loading and status not in _PASSING and (status < 500 or status == 501):
            fix = "the server does not take this request: change the setting that it names"
            return Failure(RefusedError(f"{begin}; {fix}"), again=False)
        pause = retry_after(headers)
        fix = _LATER
        if pause > _LONGEST_RETRY_AFTER:
            late = f"{begin}; it asks for a pause of {pause:.0f} s: {fix}"
            return Failure(EngineError(late), again=False)
        if status == 429:
            fix = f"lower generation.engine.concurrency, or {fix}"
        return Failure(EngineError(f"{begin}; {fix}"), again=True, pause=pause)

    def _clean(self, text: str) -> str:
        """One short line without the key: servers like to quote a key that they refuse."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text[:2000].split())[:200]


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` header asks for, 0 without one (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
