"""Asking through a vendor's batches: requests in a file, answers in a file, hours later, for less.

What is paid for once is never asked again: each job is written down before it is ordered, is found
again by its file where a kill came between, and its answers are kept whole on the disk.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server.batch_endpoint import BatchEndpoint, BatchState
from selfinstruct_train.engines.server.client import Answered, pause_before, sleep
from selfinstruct_train.engines.server.connection import key_of
from selfinstruct_train.engines.server.dialects import ServerRequest, body_of, longest_reply
from selfinstruct_train.engines.server.failures import Failure, Failures
from selfinstruct_train.engines.server.replies import Reply, read_reply
from selfinstruct_train.errors import EngineError
from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import read_json, write_atomically

_FIRST_LOOK, _LONGEST_LOOK = 2.0, 60.0
"""Seconds between two looks at a job: at first, and at most."""
_TELL_SECONDS = 60.0
"""Between two lines about a job whose status stays the same."""
_LINE_OVERHEAD = 4096
"""Bytes of a line of answers beside the reply, rather too many."""


class Job(Row):
    """A batch as it is kept on the disk."""

    address: str
    ids: tuple[str, ...]
    """Of its requests: hashes of what was asked."""
    file_id: str
    """Of the requests at the server."""
    is_ordered: bool = False
    """Whether the server may have it: set before it is asked to."""
    batch_id: str | None = None
    """Of the job at the server, once that is known."""
    has_failed: bool = False
    """Whether the server refused it as a whole: nothing was answered."""


class _Kept(NamedTuple):
    """A job and its file; the answers are beside it once they are here."""

    file: Path
    job: Job

    @property
    def answers(self) -> Path:
        return self.file.with_suffix(".jsonl")

    def with_changes(self, **changes: object) -> _Kept:
        job = self.job.model_copy(update=changes)
        write_atomically(self.file, job.model_dump_json(indent=1) + "\n")
        return _Kept(self.file, job)


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    status_code: int = 200
    body: Any = None


class _Line(BaseModel):
    """A line of a file of answers, or of errors."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    custom_id: str
    response: _Response | None = None
    error: Any = None


class BatchClient:
    """Hands over all questions of a call as one job, and waits for it."""

    def __init__(self, config: EngineConfig, folder: Path, say: Callable[[str], None]) -> None:
        """Read the key from the environment; nothing is sent yet.

        Args:
            config: the server.
            folder: where jobs and answers are kept.
            say: told what becomes of a job.

        Raises:
            ConfigError: the key, or a proxy that the environment names, cannot be used.
        """
        self._config = config
        self._folder = folder
        self._say = say
        key = key_of(config)
        self._failures = Failures(config, config.base_url, key)
        self._endpoint = BatchEndpoint(config, self._failures, key)

    def ask_all(self, questions: Sequence[ServerRequest]) -> Iterator[Answered]:
        """Yield the replies: those of earlier jobs first, then those of new ones.

        A request that failed for a while goes into another job, ``max_retries`` times. What failed
        for good is raised after all that was answered.

        Raises:
            RefusedError: the server does not take such a request.
            EngineError: a job failed as a whole, or the server cannot be reached.
        """
        waiting: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            waiting.setdefault(_id(body_of(question, self._config)), []).append(position)
        failed: Counter[str] = Counter()
        error: EngineError | None = None
        earlier = self._earlier(set(waiting))
        while waiting and error is None:
            kept = next(earlier, None)
            if kept is None:
                kept = self._new({name: questions[at[0]] for name, at in waiting.items()})
            # Only what failed now counts as a try: what was wrong yesterday may be fixed.
            is_old = kept.answers.exists()
            lines = self._lines(kept, questions)
            for name in kept.job.ids:
                if name not in waiting:
                    continue
                outcome = self._read(lines.get(name), questions[waiting[name][0]], failed[name] + 1)
                if isinstance(outcome, Reply):
                    for position in waiting.pop(name):
                        yield Answered(position, outcome)
                elif not is_old:
                    failed[name] += 1
                    if not outcome.again or failed[name] > self._config.max_retries:
                        error = error or outcome.error
        if error is not None:
            raise error

    def _earlier(self, names: set[str]) -> Iterator[_Kept]:
        """Jobs of earlier calls that hold some of these requests, in their order."""
        for file in sorted(self._folder.glob("*.json")):
            fix = "restore it, or what it holds is paid for again"
            kept = _Kept(file, read_json(file, Job, fix))
            asked = kept.job.address == self._config.base_url and names & set(kept.job.ids)
            if asked and not kept.job.has_failed:
                yield kept

    def _new(self, asked: Mapping[str, ServerRequest]) -> _Kept:
        """Send the requests and write down that they are there; nothing is ordered yet."""
        rows = [
            {"custom_id": n, "method": "POST", "url": self._path, "body": body_of(q, self._config)}
            for n, q in asked.items()
        ]
        file_id = self._endpoint.upload("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self._folder.glob("*.json")))
        job = Job(address=self._config.base_url, ids=tuple(asked), file_id=file_id)
        return _Kept(self._folder / f"{number:06}.json", job).with_changes()

    @property
    def _path(self) -> str:
        chat = "chat/" if self._config.server_endpoint == "chat" else ""
        return f"/v1/{chat}completions"

    def _lines(self, kept: _Kept, questions: Sequence[ServerRequest]) -> dict[str, _Line]:
        """What a job answered, line by line; waits for it where it is not here yet."""
        if not kept.answers.exists():
            kept = self._ordered(kept)
            state = self._ended(kept)
            longest = max(map(longest_reply, questions)) + _LINE_OVERHEAD
            names = (state.output_file_id, state.error_file_id)
            limit = longest * len(kept.job.ids)
            texts = [self._endpoint.content(name, limit) for name in names if name]
            write_atomically(kept.answers, "".join(text.rstrip() + "\n" for text in texts))
        found = {}
        for text in kept.answers.read_text("utf-8").split("\n"):
            if text.strip():
                try:
                    line = _Line.model_validate_json(text)
                except ValidationError:
                    raise EngineError(
                        f"{kept.answers}: holds a line that is no answer of a batch "
                        f"({text[:80]!r}); delete the file to fetch it again"
                    ) from None
                found[line.custom_id] = line
        return found

    def _ordered(self, kept: _Kept) -> _Kept:
        """See that the server has the job, once."""
        tried = 0
        while kept.job.batch_id is None:
            # It may have been ordered by a process that was killed, or whose connection broke.
            found = self._endpoint.find(kept.job.file_id) if kept.job.is_ordered else None
            if found is None:
                kept = kept.with_changes(is_ordered=True)
                outcome = self._endpoint.create(kept.job.file_id, self._path)
                if isinstance(outcome, Failure):
                    tried += 1
                    if not outcome.again or tried > self._config.max_retries:
                        raise outcome.error
                    sleep(pause_before(outcome, tried))
                    continue
                found = outcome
            kept = kept.with_changes(batch_id=found)
            self._say(f"batch {found}: {len(kept.job.ids):,} requests are handed over")
        return kept

    def _ended(self, kept: _Kept) -> BatchState:
        """Wait until the job has ended.

        Raises:
            EngineError: the server refused it as a whole.
        """
        assert kept.job.batch_id is not None
        began, told, pause, status, first = time.monotonic(), 0.0, _FIRST_LOOK, "", 0
        while not (state := self._endpoint.state(kept.job.batch_id)).has_ended:
            now, counts = time.monotonic(), state.request_counts
            done = counts.completed + counts.failed if counts else 0
            if not status:
                first = done
            if state.status != status or now - told >= _TELL_SECONDS:
                left = _time_left(counts.total if counts else 0, done, first, now - began)
                self._say(f"batch {state.id}: {state.status}, {done}/{len(kept.job.ids)}{left}")
                told, status = now, state.status
            sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.5)
        if state.status == "failed":
            kept.with_changes(has_failed=True)
            raise EngineError(
                f"{self._config.base_url}: batch {state.id} was refused ({state.fault}); correct "
                "that, or set requests_per_batch of the step lower if it is too large, and run the "
                "same command again"
            )
        self._say(f"batch {state.id}: {state.status}")
        return state

    def _read(self, line: _Line | None, question: ServerRequest, tried: int) -> Reply | Failure:
        if line is None or line.response is None:
            told = "no answer" if line is None else json.dumps(line.error)[:200]
            text = f"{self._config.base_url}: a request of a batch failed (try {tried}: {told})"
            return Failure(EngineError(f"{text}; run the same command again"), again=True)
        body, status = json.dumps(line.response.body), line.response.status_code
        if status >= 400:
            return self._failures.by_status(status, {}, body, question, tried)
        reply = read_reply(body)
        if isinstance(reply, Reply):
            return reply
        return self._failures.no_reply(reply, body, question, tried)


def _id(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


def _time_left(total: int, done: int, first: int, seconds: float) -> str:
    """What is left at the pace since the first look, for a line about a job."""
    if done <= first or total <= done:
        return ""
    minutes = seconds / (done - first) * (total - done) / 60
    return f", {minutes:.0f} min left"
