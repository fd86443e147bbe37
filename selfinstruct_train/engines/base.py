"""The one door through which the stages ask a model for text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from selfinstruct_train.records import Sampling
from selfinstruct_train.templates import ChatPrompt


class Request(NamedTuple):
    """One prompt and how to continue it."""

    id: str
    """Unique among the requests of a run; ties the completion to its request."""
    prompt: str
    """A text to continue; a `ChatPrompt` knows what the chat template wrote and what is data."""
    sampling: Sampling


def followed_by(prompt: str, text: str) -> str:
    """A prompt with a text after it that is data; one in a chat template stays one."""
    if isinstance(prompt, ChatPrompt):
        return prompt.followed_by(text)
    return prompt + text


class Completion(NamedTuple):
    """What the model wrote after a prompt."""

    id: str
    """Id of the request."""
    text: str
    """The completion, less the stop string or end token that ended it."""
    token_ids: tuple[int, ...]
    """Tokens of the completion, those of a stop string included, the end token not."""
    finish_reason: Literal["stop", "eos", "length"]
    """Ended by a stop string, by the model's end token, or cut by max_tokens or the context."""
    prompt_tokens: int
    completion_tokens: int
    mean_logprob: float | None
    """Mean natural log-probability of the tokens under the model (temperature 1); None where not
    offered."""


class Engine(Protocol):
    """Writes completions and scores continuations.

    An adapter is named per call, so that one loaded model serves as base (None) and as tuned.
    """

    @property
    def model_id(self) -> str:
        """Name of the base model, for provenance."""
        ...

    @property
    def independent_requests(self) -> bool:
        """Whether each request is answered, and so may be kept, apart from those beside it."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt, special tokens included."""
        ...

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield one completion per request, each as it is finished, in any order.

        Raises:
            EngineError: a prompt leaves no room in the context, or the engine failed.
        """
        ...

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probability of each continuation after ``prefix + suffix``.

        A suffix that is a `ChatPrompt` is a whole prompt: its prefix is empty.

        Returns:
            One row per suffix with one natural log-probability (summed over tokens) per
            continuation.

        Raises:
            EngineError: a prompt leaves no room in the context, or the engine offers no
            log-probabilities.
        """
        ...

    def close(self) -> None:
        """Give back the memory that the engine took beside the loaded model.

        It is called before training. The next request takes the memory again.
        """
        ...


class PassedOn:
    """What an engine around another one says of itself: all that the inner one says."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.model_id = engine.model_id
        self.independent_requests = engine.independent_requests
        self.context_length = engine.context_length
        self.count_tokens = engine.count_tokens
        self.close = engine.close
