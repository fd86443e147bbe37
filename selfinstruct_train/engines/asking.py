"""Asking the engine in batches; each is written down, so that a stopped run resumes there.

`Journal` keeps completions, for stages whose next batch depends on what the last one said.
`ask_rows` keeps a row for each request, for lists of questions that are known beforehand.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from selfinstruct_train.engines.base import Completion, Engine, Request
from selfinstruct_train.errors import EngineError
from selfinstruct_train.progress import ProgressUpdate, Report
from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.text.characters import without_surrogates

RowT = TypeVar("RowT", bound=Row)

_BATCH = 128
"""Requests of `ask_rows` that are asked together: the unit of progress and, for dependent ones, of
resuming. Even: a pair of judged answers is two."""


class StoredCompletion(Row):
    """A completion as the journal keeps it; nothing downstream needs its token ids."""

    id: str
    asked: str
    """16 hex digits of prompt, sampling and adapter: a changed question is asked again."""
    text: str
    finish_reason: Literal["stop", "eos", "length"]
    prompt_tokens: int
    completion_tokens: int
    mean_logprob: float | None


class Journal:
    """Answers batches from the file where it can and from the engine where it must.

    An in-process engine may write other text for a request when other requests stand beside it in
    the batch (float ties), so a batch is either all stored or asked as a whole: that makes a
    resumed run equal an undisturbed one. Where requests are independent, each completion is stored
    as it arrives and only missing ones are asked for. The text of what is stored stays on the disk.
    """

    def __init__(self, store: RowStore[StoredCompletion], engine: Engine) -> None:
        self._store = store
        self._places = {row.id: place for place, row in store.places()}
        self._engine = engine

    def ask(self, requests: Sequence[Request], adapter: Path | None) -> list[StoredCompletion]:
        """The completions of a batch, in the order of its requests.

        Raises:
            EngineError: the engine failed, or a prompt does not fit.
        """
        asked = {r.id: _question_hash(r, adapter) for r in requests}
        places = (self._places.get(r.id) for r in requests)
        stored = (self._store.at(place) for place in places if place is not None)
        found = [row for row in stored if row.asked == asked[row.id]]
        if self._engine.independent_requests:
            return self._ask_missing(requests, {row.id: row for row in found}, asked, adapter)
        if len(found) == len(requests):
            answers = found
        else:
            fresh = _complete(self._engine, requests, adapter)
            rows = {c.id: _stored(c, asked[c.id]) for c in fresh}
            answers = [rows[r.id] for r in requests]
        # Emitted even where it is all stored: the next batch is written behind this one, over what
        # a kill in mid-write may have left of it.
        self._store.emit(answers)
        return answers

    def _ask_missing(
        self,
        requests: Sequence[Request],
        rows: dict[str, StoredCompletion],
        asked: dict[str, str],
        adapter: Path | None,
    ) -> list[StoredCompletion]:
        missing = [r for r in requests if r.id not in rows]
        for completion in _complete(self._engine, missing, adapter):
            rows[completion.id] = _stored(completion, asked[completion.id])
            self._store.append([rows[completion.id]], sync=False)
        self._store.sync()
        return [rows[r.id] for r in requests]


def ask_rows(
    engine: Engine,
    store: RowStore[RowT],
    known: Sequence[RowT],
    requests: Sequence[Request],
    row: Callable[[int, Completion | None], RowT],
    report: Report,
    stage: str,
    *,
    adapter: Path | None = None,
    room: int = 1,
) -> tuple[RowT, ...]:
    """A row for each request: those in the file, then the rest from the engine.

    Where requests depend on those beside them, a batch is stored whole or not at all. Where they
    are independent, a row is stored as soon as it and all before it are answered.

    Args:
        engine: whom to ask; every process must make this call.
        store: where the rows are kept.
        known: what it holds, as the caller has read and checked it.
        requests: all that are to be answered.
        row: (place, completion) -> row; the completion is None where the prompt is too long.
        report: is told how far it is.
        stage: what this is called there.
        adapter: who answers.
        room: fewest tokens that a prompt must leave free in the context to be asked.

    Raises:
        EngineError: the engine failed, or left a request without an answer.
    """
    rows = list(known)
    if len(rows) == len(requests):
        return tuple(rows)
    resumed = store.resume(1 if engine.independent_requests else _BATCH)
    del rows[resumed:]
    tokens = too_long = 0
    began = time.monotonic()
    for start in range(resumed, len(requests), _BATCH):
        batch = requests[start : start + _BATCH]
        place = {request.id: i for i, request in enumerate(batch, start)}
        lengths = engine.count_tokens([request.prompt for request in batch])
        fitting = [
            request
            for request, length in zip(batch, lengths, strict=True)
            if length + room <= engine.context_length
        ]
        too_long += len(batch) - len(fitting)
        missing = {place[request.id] for request in fitting}
        found = {i: row(i, None) for i in place.values() if i not in missing}
        for completion in _complete(engine, fitting, adapter):
            tokens += completion.completion_tokens
            number = place[completion.id]
            missing.discard(number)
            found[number] = row(number, completion)
            if engine.independent_requests or not missing:
                _emit_next(store, rows, found)
        _emit_next(store, rows, found)
        report(
            ProgressUpdate(
                stage,
                len(rows),
                len(requests),
                0,
                Counter(),
                tokens,
                time.monotonic() - began,
                resumed,
                f"{too_long} questions longer than the model's context" if too_long else "",
            )
        )
    return tuple(rows)


def _emit_next(store: RowStore[RowT], rows: list[RowT], found: dict[int, RowT]) -> None:
    """Store the rows that follow those stored so far, as far as they are there."""
    ready: list[RowT] = []
    while (row := found.pop(len(rows) + len(ready), None)) is not None:
        ready.append(row)
    if ready:
        store.emit(ready)
        rows += ready


def _complete(
    engine: Engine, requests: Sequence[Request], adapter: Path | None
) -> Iterator[Completion]:
    """Completions as they come, one for each request."""
    missing = {request.id for request in requests}
    for completion in engine.generate(requests, adapter) if requests else ():
        missing.discard(completion.id)
        yield completion
    if missing:
        raise EngineError(
            f"the engine gave no completion for {len(missing)} requests, first {min(missing)}"
        )


def _question_hash(request: Request, adapter: Path | None) -> str:
    name = "" if adapter is None else "/".join(adapter.parts[-2:])
    text = "\x1f".join((request.prompt, request.sampling.model_dump_json(), name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stored(completion: Completion, asked: str) -> StoredCompletion:
    return StoredCompletion(
        id=completion.id,
        asked=asked,
        text=without_surrogates(completion.text),
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        mean_logprob=completion.mean_logprob,
    )
