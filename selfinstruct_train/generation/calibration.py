"""Where step 2 draws its line: the seeds' own labels are known, so they say which margin means Yes.

A model's log P(Yes) - log P(No) ranks tasks well long before its sign is right: small models prefer
one word whatever is asked. So the margin is compared with a threshold. It is chosen on the seed
tasks, whose labels people wrote, and pulled towards the margin that inputs without content get
(contextual calibration, Zhao et al., arXiv 2102.09690) where the seeds of one kind are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfinstruct_train.records import Row

CALIBRATION_FILE = "calibration.json"
CONTENT_FREE = ("N/A", "...", "-", "?")
"""Inputs without content, in any language."""
_FOLDS = 5
_PRIOR = 2
"""Seeds of the rarer kind that weigh as much as the inputs without content."""
FEWEST_OF_A_KIND = 4 * _PRIOR
"""Seeds of the rarer kind from which they alone choose the threshold."""
_MARGIN = 1e-3
"""How far beyond seeds of one kind the threshold lies; more than rounding moves it."""
_SHARES = (0.5, 2.0)
"""How far the predicted share of classification tasks may be from the seeds' true one."""


class Calibration(Row):
    """calibration.json: the threshold of step 2, and how it does on seeds it was not chosen on."""

    threshold: float
    """Lowest log P(Yes) - log P(No) above which a task counts as classification."""
    chosen_by: str
    """``seeds``; or ``content_free`` where the seeds are all of one kind, which enough of them may
    move so far that all lie on their side."""
    seeds: int
    true_share: float
    """Share of classification tasks among the seeds, 0 to 1."""
    share: float | None = None
    """Share that is predicted, by thresholds chosen on the other folds; this and what follows are
    None where the seeds are all of one kind."""
    recall: float | None = None
    precision: float | None = None
    """None also where nothing is predicted."""
    auc: float | None = None
    """Area under the ROC curve of the margins: what any threshold could make of them."""

    @property
    def sentence(self) -> str:
        """What a user is told."""
        if self.recall is None:
            return (
                "step 2: the seeds are all of one kind, so the threshold "
                f"{self.threshold:+.2f} comes from inputs without content, or lies beyond them all"
            )
        precision = "none" if self.precision is None else f"{self.precision:.0%}"
        return (
            f"step 2 on the {self.seeds} seeds: recall {self.recall:.0%}, precision {precision}, "
            f"area under the curve {self.auc:.2f}; predicted share {self.share:.0%} of true "
            f"{self.true_share:.0%}; threshold {self.threshold:+.2f}"
        )

    @property
    def figures(self) -> dict[str, float | int | str | None]:
        """What the completion mark keeps of it."""
        return {
            "threshold": self.threshold,
            "threshold_chosen_by": self.chosen_by,
            "seed_recall": self.recall,
            "seed_precision": self.precision,
            "seed_auc": self.auc,
        }


class _Figures(NamedTuple):
    recall: float
    precision: float | None
    share: float


def calibrate(
    margins: Sequence[float], labels: Sequence[bool], content_free: Sequence[float]
) -> Calibration:
    """Choose the threshold, and measure it by leaving folds out.

    Args:
        margins: log P(Yes) - log P(No) of each seed.
        labels: whether each seed is a classification task.
        content_free: the margins of `CONTENT_FREE`.
    """
    x, y = np.asarray(margins, dtype=np.float64), np.asarray(labels, dtype=bool)
    prior = float(np.mean(content_free))
    if y.all() or not y.any():
        return Calibration(
            threshold=round(_beyond(x, prior, is_yes=bool(y.any())), 4),
            chosen_by="content_free",
            seeds=len(y),
            true_share=float(y.mean()),
        )
    # Both kinds are dealt out in turn, so that every fold has its share of the rarer one.
    order = np.concatenate([np.flatnonzero(y), np.flatnonzero(~y)])
    fold = np.empty(len(y), dtype=int)
    fold[order] = np.arange(len(y)) % min(_FOLDS, len(y))
    predicted = np.zeros(len(y), dtype=bool)
    for left_out in np.unique(fold):
        rest = fold != left_out
        if y[rest].any() and not y[rest].all():
            predicted[~rest] = x[~rest] > _threshold(x[rest], y[rest], prior)
    figures = _figures(predicted, y)
    return Calibration(
        threshold=round(_threshold(x, y, prior), 4),
        chosen_by="seeds",
        seeds=len(y),
        true_share=float(y.mean()),
        share=figures.share,
        recall=figures.recall,
        precision=figures.precision,
        auc=_auc(x, y),
    )


def _beyond(x: np.ndarray, prior: float, is_yes: bool) -> float:
    """The prior, moved so far that enough seeds of one kind all lie on the side of their kind."""
    if len(x) < FEWEST_OF_A_KIND:
        return prior
    return min(prior, float(x.min()) - _MARGIN) if is_yes else max(prior, float(x.max()) + _MARGIN)


def _threshold(x: np.ndarray, y: np.ndarray, prior: float) -> float:
    """The middle of the widest gap of best F1, among those that predict a fair share of Yes."""
    values = np.unique(x)
    edges = np.concatenate([[values[0] - 1.0], values, [values[-1] + 1.0]])
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    fair = [s * y.mean() for s in _SHARES]
    best, rank = 0.0, (False, -1.0, -1.0)
    for middle, width in zip(middles, widths, strict=True):
        found = x > middle
        score = 2.0 * (found & y).sum() / (found.sum() + y.sum())
        candidate = (bool(fair[0] <= found.mean() <= fair[1]), round(float(score), 9), float(width))
        if candidate > rank:
            best, rank = float(middle), candidate
    few = min(int(y.sum()), int((~y).sum()))
    return (few * best + _PRIOR * prior) / (few + _PRIOR) if few < FEWEST_OF_A_KIND else best


def _figures(predicted: np.ndarray, y: np.ndarray) -> _Figures:
    right = float((predicted & y).sum())
    return _Figures(
        recall=right / float(y.sum()),
        precision=right / float(predicted.sum()) if predicted.any() else None,
        share=float(predicted.mean()),
    )


def _auc(x: np.ndarray, y: np.ndarray) -> float:
    """Share of (Yes, No) pairs that the margin ranks rightly; equal margins count half."""
    yes, no = x[y][:, None], x[~y][None, :]
    return float(((yes > no) + 0.5 * (yes == no)).mean())
