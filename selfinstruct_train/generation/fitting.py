"""Few-shot prompts: fitted into the model's context, and scored with those that begin alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import EngineError

PromptT = TypeVar("PromptT", bound="DemonstrationPrompt")


class DemonstrationPrompt(Protocol):
    """A prompt that can give up demonstrations: the named tuples of both kinds of prompting."""

    @property
    def demonstrations(self) -> tuple[Sequence[str], ...]:
        """Each a text, or the two texts of a turn."""
        ...

    @property
    def question(self) -> str:
        """What is asked in the end."""
        ...

    @property
    def text(self) -> str:
        """The whole prompt."""
        ...

    def keep(self, places: Sequence[int]) -> Self:
        """The prompt with only the demonstrations at these places."""
        ...


def fit_prompt(engine: Engine, prompt: PromptT, max_tokens: int) -> tuple[PromptT, tuple[int, ...]]:
    """Give up demonstrations, the longest first and so the fewest, until the prompt fits.

    Half of the context at most is kept free for the completion.

    Returns:
        The prompt, and the positions of the demonstrations that stayed.

    Raises:
        EngineError: not even one demonstration fits.
    """
    room = engine.context_length - min(max_tokens, engine.context_length // 2)
    kept = tuple(range(len(prompt.demonstrations)))
    if engine.count_tokens([prompt.text])[0] <= room:
        return prompt, kept
    lengths = engine.count_tokens(["".join(shown) for shown in prompt.demonstrations])
    while True:
        fitted = prompt.keep(kept)
        needed = engine.count_tokens([fitted.text])[0]
        if needed <= room and kept:
            return fitted, kept
        if len(kept) <= 1:
            raise EngineError(
                f"the prompt does not fit the model's context of {engine.context_length} tokens "
                f"even with one demonstration ({needed} tokens beside "
                f"{engine.context_length - room} for the completion): use a model with a longer "
                f"context, or shorter demonstrations ({prompt.question.strip()[:60]!r})"
            )
        longest = max(kept, key=lambda i: lengths[i])
        kept = tuple(i for i in kept if i != longest)


def score_few_shot(
    engine: Engine, asked: Sequence[tuple[str, str]], continuations: Sequence[str]
) -> list[list[float]]:
    """Log-probability of each continuation after each prompt, by the base.

    Never by an adapter: a tuned model has forgotten how to answer few-shot.

    Args:
        engine: whom to ask, once for all prompts of the same prefix.
        asked: prefix and rest of each prompt; the prefix of a `ChatPrompt` is empty.
        continuations: what may follow.

    Returns:
        A row for each prompt, a log-probability (natural) for each continuation.

    Raises:
        EngineError: the engine failed or gives no log-probabilities.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for i, (prefix, _) in enumerate(asked):
        places[prefix].append(i)
    scores: list[list[float]] = [[] for _ in asked]
    for prefix, its in places.items():
        rows = engine.score(prefix, [asked[i][1] for i in its], continuations)
        for i, row in zip(its, rows, strict=True):
            scores[i] = row
    return scores
