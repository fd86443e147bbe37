"""Choosing the next token of each row, so that a row's choice depends on its own request alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from selfinstruct_train.records import Sampling

_FIRST_LOOK = 32
"""Likeliest tokens looked at first; where they do not hold the mass, 8 times as many, and so on.

Sorting a vocabulary of 150K takes 65 times as long.
"""
_MASK = (1 << 64) - 1


class SampledTokens(NamedTuple):
    """The chosen tokens of a step."""

    tokens: list[int]
    logprobs: list[float]
    """Natural log-probability under the model itself: temperature 1, no filter, no penalty."""


class Chooser:
    """How the rows of a batch choose: the settings of their requests side by side.

    The order of the operations is that of ``transformers``: repetition penalty, temperature, top-k,
    top-p.
    """

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        def column(values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        self._seeds = [s.seed for s in samplings]
        drawn = [i for i, s in enumerate(samplings) if s.temperature > 0]
        self._greedy = len(drawn) < len(samplings)
        narrow = [i for i in drawn if samplings[i].top_p < 1 or samplings[i].top_k > 0]
        wide = sorted(set(drawn) - set(narrow))
        self._narrow = torch.tensor(narrow, dtype=torch.long, device=device) if narrow else None
        self._wide = torch.tensor(wide, dtype=torch.long, device=device) if wide else None
        self._temperature = column([s.temperature or 1.0 for s in samplings])
        self._top_p = column([s.top_p for s in samplings], torch.float64)
        self._top_k = column([s.top_k or _MASK >> 1 for s in samplings], torch.long)
        penalty = [s.repetition_penalty for s in samplings]
        self._penalty = column(penalty) if any(p != 1 for p in penalty) else None

    def choose(
        self, logits: torch.Tensor, seen: torch.Tensor, steps: Sequence[int]
    ) -> SampledTokens:
        """Choose one token for each row.

        Args:
            logits: [rows, vocabulary], of the model.
            seen: [rows, any], the tokens of prompt and completion so far, padded with any of them.
            steps: how many tokens each row has written.
        """
        logits = logits.float()
        scores = logits
        if self._penalty is not None:
            met = scores.gather(1, seen)
            met = torch.where(met > 0, met / self._penalty, met * self._penalty)
            scores = scores.scatter(1, seen, met)
        if self._greedy:
            tokens = scores.argmax(-1)
        else:
            tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        if self._narrow is not None or self._wide is not None:
            draws = [uniform(*pair) for pair in zip(self._seeds, steps, strict=True)]
            u = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None]
            scores = scores / self._temperature
            if (rows := self._narrow) is not None:
                tokens[rows] = _draw_filtered(
                    scores[rows], u[rows], self._top_p[rows], self._top_k[rows], _FIRST_LOOK
                )
            if (rows := self._wide) is not None:
                probabilities = torch.softmax(scores[rows].double(), -1)
                tokens[rows] = _invert(probabilities, u[rows])
        chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        return SampledTokens(tokens.tolist(), chosen.tolist())


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1) that depends on seed and step alone (the SplitMix64 mixer, twice)."""
    return (_mix(_mix(seed & _MASK) + step & _MASK) >> 12) * 2.0**-52


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _draw_filtered(
    scores: torch.Tensor, u: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor, look: int
) -> torch.Tensor:
    """Draw within top-k and top-p, from the ``look`` likeliest tokens where those hold the mass."""
    vocabulary = scores.shape[1]
    look = min(look, vocabulary)
    best, ids = scores.topk(look, dim=-1)
    best = best.double()
    rank = torch.arange(look, device=scores.device)[None, :]
    inside = rank < top_k
    limited = top_k <= look
    total = torch.where(
        limited,
        best.masked_fill(~inside, -torch.inf).logsumexp(-1, keepdim=True),
        # The logarithm of the whole sum, which log_softmax finds in half the time of logsumexp.
        best[:, :1] - scores.log_softmax(-1).gather(1, ids[:, :1]),
    )
    probabilities = torch.where(inside, torch.exp(best - total), 0.0)
    reached = probabilities.cumsum(-1)
    kept = probabilities.masked_fill(reached - probabilities >= top_p, 0.0)
    ids, order = ids.sort(-1)
    tokens = ids.gather(1, _invert(kept.gather(1, order), u)[:, None])[:, 0]
    unlimited = (top_k >= vocabulary) & (top_p < 1)
    enough = (limited | (unlimited & (reached[:, -1:] >= top_p)))[:, 0]
    if look < vocabulary and not bool(enough.all()):
        rest = (~enough).nonzero()[:, 0]
        tokens[rest] = _draw_filtered(scores[rest], u[rest], top_p[rest], top_k[rest], look * 8)
    return tokens


def _invert(probabilities: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Inverse of the cumulative distribution, in token order: float noise cannot reorder it."""
    reached = probabilities.cumsum(-1)
    found = torch.searchsorted(reached, u * reached[:, -1:], right=True)[:, 0]
    return found.clamp_(max=probabilities.shape[1] - 1)
