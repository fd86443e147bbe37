"""Paired differences and how sure one can be of their mean."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.errors import DataError

# Scores are x 100, so a difference of two scores lies between these.
_LEAST, _MOST = -100.0, 100.0
_TIE = 1e-9
_MOST_DRAWS = 4_000_000
"""Draws held in memory at once."""


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


class Tally(NamedTuple):
    """How often B did better than A, as well, and worse."""

    wins: int
    ties: int
    losses: int


def bootstrap_interval(
    differences: NDArray[np.float64],
    rng: np.random.Generator,
    samples: int,
    confidence: float,
    weights: NDArray[np.float64] | None = None,
) -> Interval:
    """Percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Pairs are resampled, not answers: what makes a task hard or easy for both systems falls out.
    With few pairs (under about 20) the interval is too narrow; with one there is no spread to
    resample, and the interval is everything that a difference can be, -100 to 100.

    Args:
        differences: paired differences of scores x 100, shape (n,).
        rng: source of the resamples.
        samples: number of resamples.
        confidence: coverage of the interval, 0 to 1.
        weights: how much each pair counts, all above 0, shape (n,); by default all the same. The
            weights are resampled with their pairs.

    Raises:
        DataError: there are no differences.
    """
    n = len(differences)
    if n == 0:
        raise DataError("there are no pairs to compare")
    mean = float(np.average(differences, weights=weights))
    if n == 1:
        return Interval(mean, _LEAST, _MOST)
    means = np.empty(samples)
    step = max(1, _MOST_DRAWS // n)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = rng.integers(0, n, size=(rows, n), dtype=np.int32)
        sampled = None if weights is None else weights[drawn]
        means[start : start + rows] = np.average(differences[drawn], axis=1, weights=sampled)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(mean, float(low), float(high))


def tally(differences: NDArray[np.float64]) -> Tally:
    """Count wins, ties and losses of B where the differences are B - A."""
    wins = int((differences > _TIE).sum())
    losses = int((differences < -_TIE).sum())
    return Tally(wins, len(differences) - wins - losses, losses)


def comparison_rng(seed: int, *names: str) -> np.random.Generator:
    """The generator of one comparison.

    It follows from the seed and the names alone, so that an interval does not change when other
    comparisons are made before it.
    """
    digest = hashlib.sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
