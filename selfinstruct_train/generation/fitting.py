"""Fitting a prompt into the context of the model by giving up demonstrations."""

from __future__ import annotations

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.generation.prompting import Prompt


def fit_prompt(engine: Engine, prompt: Prompt, max_tokens: int) -> tuple[Prompt, tuple[int, ...]]:
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
    lengths = engine.count_tokens(list(prompt.demonstrations))
    while True:
        fitted = prompt._replace(demonstrations=tuple(prompt.demonstrations[i] for i in kept))
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
