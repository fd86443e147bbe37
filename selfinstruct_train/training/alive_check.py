"""Has the training left a model that still says something?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from selfinstruct_train.errors import TrainingError
from selfinstruct_train.records import TrainingStep

_FLAT = 1e-4
"""Logits that differ by less say the same of every token, as a share of the largest logit."""
_NEAR_UNIFORM = 0.98
"""Share of the loss of a uniform guess from which on a loss is no better than one."""
_WORSE = 1.2
"""Times the first loss: what a step's own rows alone never make of it."""
_LEARNED = 0.01
"""Nats per token; below, a gradient of zero means that there is nothing left to learn."""


def check_alive(
    steps: Sequence[TrainingStep], logits: Sequence[torch.Tensor], learning_rate: float
) -> None:
    """Refuse a model that training has destroyed, by what is wrong with it.

    A learning rate that is far too high can drive a model to where every logit is zero: its loss is
    that of a uniform guess, its gradient zero, and an end token is as likely as any other, so that
    greedy answers may even end "by themselves".

    Args:
        steps: the logged steps of the training, from the first.
        logits: of the tuned model on a few of its rows, each (tokens, vocabulary).
        learning_rate: what the training used.

    Raises:
        TrainingError: the model gives no figures, the same ones for all tokens or whatever it
            reads, learns no more, or is no better than a uniform guess and worse than it was.
    """
    damage = _damage(steps, logits)
    if damage:
        raise TrainingError(
            f"training has destroyed the model: {damage}; lower training.learning_rate (now "
            f"{learning_rate:g}) and add --redo train to the command"
        )


def _damage(steps: Sequence[TrainingStep], logits: Sequence[torch.Tensor]) -> str:
    first, last = steps[0], steps[-1]
    uniform = math.log(logits[0].shape[-1])
    rows = torch.cat(list(logits))
    if not torch.isfinite(rows).all():
        return "its logits are not finite"
    scale = _FLAT * max(rows.abs().max().item(), 1.0)
    if (rows.max(-1).values - rows.min(-1).values).max().item() < scale:
        return (
            f"it finds every token equally likely (loss {last.loss:.2f}, a uniform guess has "
            f"{uniform:.2f})"
        )
    if (rows.max(0).values - rows.min(0).values).max().item() < scale:
        return f"its logits are the same whatever it reads (loss {last.loss:.2f})"
    if last.gradient_norm == 0 and last.loss > _LEARNED:
        return f"its gradient is zero at a loss of {last.loss:.2f}"
    if last.loss > max(_NEAR_UNIFORM * uniform, _WORSE * first.loss):
        return (
            f"its loss went from {first.loss:.2f} to {last.loss:.2f}, and a uniform guess has "
            f"{uniform:.2f}"
        )
    return ""
