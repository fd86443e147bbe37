"""The way for models whose attention cannot be shared: one request at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selfinstruct_train.engines.base import Completion
from selfinstruct_train.engines.local.sampling import Chooser
from selfinstruct_train.engines.local.sequence import DecodingSequence
from selfinstruct_train.models.load import LoadedModel, cache_argument, without_cache


@torch.no_grad()
def write_sequentially(loaded: LoadedModel, sequence: DecodingSequence) -> Completion:
    """Write one completion.

    Raises:
        EngineError: the model hands out no keys and values.
    """
    loaded.model.eval()
    chooser = Chooser([sequence.request.sampling], loaded.device)
    tokens, cache = sequence.prompt, None
    name = cache_argument(loaded.model)
    if name is None:
        raise without_cache(loaded.model, loaded.model_id)
    while True:
        output = loaded.model(
            torch.tensor([tokens], device=loaded.device), use_cache=True, **{name: cache}
        )
        cache = getattr(output, name, None)
        if cache is None:
            raise without_cache(loaded.model, loaded.model_id)
        seen = torch.tensor([sequence.prompt + sequence.tokens], device=loaded.device)
        choice = chooser.choose(output.logits[:, -1], seen, [len(sequence.tokens)])
        done = sequence.add(choice.tokens[0], choice.logprobs[0])
        if done is not None:
            return done
        tokens = choice.tokens


@torch.no_grad()
def score_sequentially(loaded: LoadedModel, given: Sequence[int], scored: Sequence[int]) -> float:
    """Log-probability of the tokens ``scored`` after the tokens ``given``."""
    loaded.model.eval()
    ids = torch.tensor([[*given, *scored]], device=loaded.device)
    logits = loaded.model(ids, use_cache=False).logits[0, len(given) - 1 : -1]
    logprobs = torch.log_softmax(logits.float(), -1)
    return float(logprobs.gather(1, ids[0, len(given) :, None]).sum())
