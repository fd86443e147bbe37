"""A server's endpoints for files and batches, each call with patience.

As OpenAI documents them (platform.openai.com/docs/api-reference/batch), which others took over.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.client import pause_before, sleep
from selfinstruct_train.engines.server.connection import Connector, authorization
from selfinstruct_train.engines.server.failures import Failure, Failures
from selfinstruct_train.errors import EngineError

_LARGEST_ANSWER = 2**22
"""Bytes of an answer that is not the content of a file."""
_WINDOW = "24h"
"""Time in which a job must end: the only one that OpenAI takes."""


class _Answer(BaseModel):
    # Every server adds fields of its own.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _File(_Answer):
    id: str


class Counts(_Answer):
    """Requests of a job."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class _Fault(_Answer):
    code: str | None = None
    message: str | None = None
    line: int | None = None


class _Faults(_Answer):
    data: tuple[_Fault, ...] = ()


class BatchState(_Answer):
    """A job as the server tells of it."""

    id: str
    status: str
    """validating, in_progress, finalizing; completed, failed, expired, cancelled."""
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Counts | None = None
    errors: _Faults | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ("completed", "failed", "expired", "cancelled")

    @property
    def fault(self) -> str:
        """Why it failed as a whole."""
        found = self.errors.data if self.errors is not None else ()
        told = [f"{f.message or f.code}" + (f" (line {f.line})" if f.line else "") for f in found]
        return "; ".join(told[:3]) or "no reason was given"


class _List(_Answer):
    data: tuple[BatchState, ...]
    has_more: bool = False


AnswerT = TypeVar("AnswerT", bound=_Answer)


class BatchEndpoint:
    """Uploads requests, makes jobs of them, tells their state and brings their answers."""

    def __init__(self, config: EngineConfig, failures: Failures, key: str) -> None:
        self._config = config
        self._failures = failures
        self._headers = authorization(key)
        self._connector = Connector(config.base_url)

    def upload(self, lines: bytes) -> str:
        """Send a file of requests; its id. Sent twice it costs nothing more."""
        form = {"purpose": (None, "batch"), "file": ("requests.jsonl", lines)}
        return self._patiently(_File, "POST", "files", files=form).id

    def create(self, file_id: str, path: str) -> str | Failure:
        """Order the answers to a file of requests, by a single try; the job's id.

        Where the try failed the job may be there nonetheless: see `find`.
        """
        body = {"input_file_id": file_id, "endpoint": path, "completion_window": _WINDOW}
        found = self._try(BatchState, 1, "POST", "batches", json=body)
        return found if isinstance(found, Failure) else found.id

    def find(self, file_id: str) -> str | None:
        """The id of the job that was made of a file; None where there is none.

        Raises:
            EngineError: the server cannot be reached, or lists no jobs.
        """
        after: dict[str, str] = {}
        while True:
            page = self._patiently(_List, "GET", "batches", params={"limit": "100", **after})
            for state in page.data:
                if state.input_file_id == file_id:
                    return state.id
            if not page.has_more or not page.data:
                return None
            after = {"after": page.data[-1].id}

    def state(self, batch_id: str) -> BatchState:
        """How far a job is."""
        return self._patiently(BatchState, "GET", f"batches/{batch_id}")

    def content(self, file_id: str, limit: int) -> str:
        """The text of a file.

        Args:
            file_id: of the file.
            limit: bytes that it cannot exceed.
        """
        for tried in count(1):
            found = self._send(tried, limit, "GET", f"files/{file_id}/content")
            if isinstance(found, str):
                return found
            self._wait_or_raise(found, tried)
        raise AssertionError("unreachable")

    def _patiently(self, kind: type[AnswerT], method: str, path: str, **sent: Any) -> AnswerT:
        for tried in count(1):
            found = self._try(kind, tried, method, path, **sent)
            if not isinstance(found, Failure):
                return found
            self._wait_or_raise(found, tried)
        raise AssertionError("unreachable")

    def _wait_or_raise(self, failure: Failure, tried: int) -> None:
        if not failure.again or tried > self._config.max_retries:
            raise failure.error
        sleep(pause_before(failure, tried))

    def _try(
        self, kind: type[AnswerT], tried: int, method: str, path: str, **sent: Any
    ) -> AnswerT | Failure:
        found = self._send(tried, _LARGEST_ANSWER, method, path, **sent)
        if isinstance(found, Failure):
            return found
        try:
            return kind.model_validate_json(found)
        except ValidationError:
            text = (
                f"{self._config.base_url}: /{path} answered what no batch endpoint says (try "
                f"{tried}); set generation.engine.server_mode to requests, or correct "
                "generation.engine.base_url"
            )
            # A body that was cut comes whole another time; anything else does not.
            return Failure(EngineError(text), again=not found.rstrip().endswith("}"))

    def _send(self, tried: int, limit: int, method: str, path: str, **sent: Any) -> str | Failure:
        url = f"{self._config.base_url.rstrip('/')}/{path}"
        body = bytearray()
        try:
            with (
                self._connector.connect_and_wait(self._config.timeout_seconds) as http,
                http.stream(method, url, headers=self._headers, **sent) as response,
            ):
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > limit:
                        return self._failures.too_large(limit)
                status = response.status_code
                headers: Mapping[str, str] = response.headers
        except httpx2.TimeoutException:
            return self._failures.too_late(tried)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._failures.unreached(tried, error)
        text = body.decode("utf-8", errors="replace")
        if status >= 400:
            return self._failures.by_status(status, headers, text, None, tried)
        return text
