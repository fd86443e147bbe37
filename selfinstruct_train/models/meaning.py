"""What texts mean to a model: the mean of its hidden states over their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from selfinstruct_train.models.load import LoadedModel
from selfinstruct_train.models.tokenizer import tokenize

_HEIGHT = 0.8
"""Where between embedding and head texts that mean the same are nearest (docs/log.md); at the head
what may come next counts for more."""


def mean_hidden_states(loaded: LoadedModel, texts: Sequence[str]) -> NDArray[np.float32]:
    """Mean hidden states of the base, four fifths up.

    The first token is left out of the mean: models park their attention on it, and its state is a
    hundred times as long as the others (arXiv 2309.17453). Each text is read alone, so that what is
    beside it does not bear on its numbers.

    Args:
        loaded: the base, without an adapter in force.
        texts: none of them empty; what is beyond the context is not read.

    Returns:
        (texts, hidden size).
    """
    loaded.adapters.activate(None)
    found = []
    for tokens in tokenize(loaded.tokenizer, texts):
        read = torch.tensor([tokens[: loaded.context_length]], device=loaded.device)
        with torch.inference_mode():
            states = loaded.model(
                input_ids=read, output_hidden_states=True, use_cache=False
            ).hidden_states
        state = states[round(_HEIGHT * (len(states) - 1))][0].float()
        found.append((state[1:] if len(state) > 1 else state).mean(0).cpu().numpy())
    return np.array(found, dtype=np.float32).reshape(len(texts), -1)
