"""How sure one can be of a mean or a share."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.errors import DataError

# Scores are x 100, so a difference of two scores lies between these.
_LEAST, _MOST = -100.0, 100.0
_TIE = 1e-9
_MOST_DRAWS = 4_000_000
"""Draws held in memory at once."""
_MOST_CONFIDENCE = 1 - 1e-12
"""The quantile of full confidence is infinite."""


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


class WinCount(NamedTuple):
    """How often B did better than A, as well, and worse."""

    wins: int
    ties: int
    losses: int


def bootstrap_interval(
    values: NDArray[np.float64],
    rng: np.random.Generator,
    samples: int,
    confidence: float,
    *,
    weights: NDArray[np.float64] | None = None,
    clusters: NDArray[np.int_] | None = None,
) -> Interval:
    """Percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    For paired differences, pairs are resampled, not answers: what makes a task hard or easy for
    both systems falls out. Where several values belong to one task, whole tasks are resampled
    (the cluster bootstrap: Davison and Hinkley 1997, section 3.8): instances of a task are right
    or wrong together, so a hundred of them say less than a hundred tasks would. The mean stays
    the mean over all values, a ratio of sums over the drawn tasks.

    With few clusters (under about 20) the interval is too narrow; with one there is no spread to
    resample, and the interval is everything that a difference can be, -100 to 100.

    Args:
        values: paired differences, or scores, x 100, shape (n,).
        rng: source of the resamples.
        samples: number of resamples.
        confidence: coverage of the interval, 0 to 1.
        weights: how much each value counts, all above 0, shape (n,); by default all the same. The
            weights are resampled with their values.
        clusters: a number for each value, the same for values that depend on each other, shape
            (n,); by default each stands alone.

    Raises:
        DataError: there are no values.
    """
    if len(values) == 0:
        raise DataError("there are no pairs to compare")
    counts: NDArray[np.float64] = np.ones(len(values)) if weights is None else weights
    sums = values * counts
    mean = float(sums.sum() / counts.sum())
    if clusters is not None:
        _, cluster = np.unique(clusters, return_inverse=True)
        sums = np.bincount(cluster, sums).astype(np.float64)
        counts = np.bincount(cluster, counts).astype(np.float64)
    n = len(sums)
    if n == 1:
        return Interval(mean, _LEAST, _MOST)
    means = np.empty(samples)
    step = max(1, _MOST_DRAWS // n)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = rng.integers(0, n, size=(rows, n), dtype=np.int32)
        means[start : start + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    return Interval(mean, float(low), float(high))


def effective_size(values: NDArray[np.float64], clusters: NDArray[np.int_]) -> float:
    """How many independent values say as much about the mean as these, which come in clusters.

    The number of values over the design effect: the variance of the mean over clusters (the ratio
    estimator's, between clusters) over that of as many independent values, at least 1 (Kish 1965;
    in Wilson's interval: Korn and Graubard 1998). Where all values agree there is no variance to
    see, and each cluster counts once.

    Args:
        values: shape (n,), at least one.
        clusters: a number for each value, the same for values that depend on each other, shape
            (n,).
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    n, groups = len(values), int(cluster.max()) + 1
    if groups in (1, n):
        return float(groups)
    rest = values - values.mean()
    alone = float((rest**2).sum()) * n / (n - 1)
    if alone <= _TIE:
        return float(groups)
    together = float((np.bincount(cluster, rest) ** 2).sum()) * groups / (groups - 1)
    return n / max(1.0, together / alone)


def wilson_interval(share: float, n: float, confidence: float) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); it is no point where all agree.

    Args:
        share: the share seen, 0 to 1; a tie may count half.
        n: how many independent things it was seen in, at least 1; `effective_size` where they
            depend on each other.
        confidence: coverage, 0 to 1.
    """
    z = normal_quantile(confidence)
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Where all agree the end of the interval is the share itself, up to rounding.
    low, high = min(middle - reach, share), max(middle + reach, share)
    return Interval(share, max(low, 0.0), min(high, 1.0))


def normal_quantile(confidence: float) -> float:
    """How many standard errors an interval of this coverage reaches to either side."""
    return NormalDist().inv_cdf(min((1 + confidence) / 2, _MOST_CONFIDENCE))


def count_wins(differences: NDArray[np.float64]) -> WinCount:
    """Count wins, ties and losses of B where the differences are B - A."""
    wins = int((differences > _TIE).sum())
    losses = int((differences < -_TIE).sum())
    return WinCount(wins, len(differences) - wins - losses, losses)


def comparison_rng(seed: int, *names: str) -> np.random.Generator:
    """The generator of one comparison.

    It follows from the seed and the names alone, so that an interval does not change when other
    comparisons are made before it.
    """
    digest = hashlib.sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
