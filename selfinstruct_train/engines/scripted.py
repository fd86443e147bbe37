"""An engine that answers from a function: for tests and for rehearsing a run without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.engines.base import Completion, Request


class ScriptedAnswer(NamedTuple):
    """What the script says to a prompt."""

    text: str
    finish_reason: Literal["stop", "eos", "length"] = "eos"


class ScriptedEngine:
    """Counts words as tokens and answers what it is told to."""

    model_id = "scripted"

    def __init__(
        self,
        answer: Callable[[Request, Path | None], ScriptedAnswer],
        score: Callable[[str, str], float] = lambda prompt, continuation: 0.0,
        context_length: int = 100_000,
        independent_requests: bool = False,
    ) -> None:
        self._answer = answer
        self._score = score
        self.context_length = context_length
        self.independent_requests = independent_requests
        self.asked: list[str] = []
        """Ids of all requests so far."""
        self.closed = 0
        """How often the engine was closed."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield the scripted answers, the last request first: order must not matter to anyone."""
        for request in reversed(requests):
            self.asked.append(request.id)
            answer = self._answer(request, adapter)
            words = len(answer.text.split())
            yield Completion(
                id=request.id,
                text=answer.text,
                token_ids=tuple(range(words)),
                finish_reason=answer.finish_reason,
                prompt_tokens=len(request.prompt.split()),
                completion_tokens=words,
                mean_logprob=None,
            )

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """The scripted scores."""
        return [[self._score(prefix + s, c) for c in continuations] for s in suffixes]

    def close(self) -> None:
        """Count; there is nothing to give back."""
        self.closed += 1
