"""Asking the engine in batches; each is written down, so that a stopped run resumes there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from selfinstruct_train.engines.base import Completion, Engine, Request
from selfinstruct_train.errors import EngineError
from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.text.characters import without_surrogates


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
    as it arrives and only missing ones are asked for.
    """

    def __init__(self, store: RowStore[StoredCompletion], engine: Engine) -> None:
        self._store = store
        self._stored = {row.id: row for row in store.read()}
        self._engine = engine

    def ask(self, requests: Sequence[Request], adapter: Path | None) -> list[StoredCompletion]:
        """The completions of a batch, in the order of its requests.

        Raises:
            EngineError: the engine failed, or a prompt does not fit.
        """
        asked = {r.id: _question_hash(r, adapter) for r in requests}
        stored = [self._stored.get(r.id) for r in requests]
        found = [row for row in stored if row is not None and row.asked == asked[row.id]]
        if self._engine.independent_requests:
            return self._ask_missing(requests, {row.id: row for row in found}, asked, adapter)
        if len(found) == len(requests):
            answers = found
        else:
            fresh = self._engine.generate(requests, adapter)
            answers = _in_order(requests, {c.id: _stored(c, asked[c.id]) for c in fresh})
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
        for completion in self._engine.generate(missing, adapter) if missing else ():
            rows[completion.id] = _stored(completion, asked[completion.id])
            self._store.append([rows[completion.id]], sync=False)
        self._store.sync()
        return _in_order(requests, rows)


def _in_order(
    requests: Sequence[Request], rows: dict[str, StoredCompletion]
) -> list[StoredCompletion]:
    if missing := [r.id for r in requests if r.id not in rows]:
        raise EngineError(
            f"the engine gave no completion for {len(missing)} requests, first {missing[0]}"
        )
    return [rows[r.id] for r in requests]


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
