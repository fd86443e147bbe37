"""What judges said, and what follows from it: win rate, consistency, bias, levels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.records import Row
from selfinstruct_train.statistics import effective_size, normal_quantile, wilson_interval

Preference = Literal["first", "second", "tie"]
Level = Literal["A", "B", "C", "D"]

_RIDGE = 0.1
"""Keeps the fit finite where one system wins always, or the longer answer does."""
_STEPS = 50


class PairVerdict(Row):
    """A judge's answer to: which of these two is better?"""

    id: str
    """Id of the request; the two orders of a pair follow each other."""
    task_id: str
    first: str
    """Name of the system whose answer stood first."""
    second: str
    first_words: int
    second_words: int
    choice: Preference | None
    """None where the text says none, or more than one."""
    text: str
    """What the judge wrote."""
    finish_reason: Literal["stop", "eos", "length"] | None
    """None where the prompt did not fit the judge's context, so that it was not asked."""
    asked: str
    """16 hex digits of the prompt, the sampling and the judge."""


class GradeVerdict(Row):
    """A judge's answer to: at which level is this answer?"""

    id: str
    task_id: str
    system: str
    level: Level | None
    """None where the text says none, or more than one."""
    text: str
    finish_reason: Literal["stop", "eos", "length"] | None
    """None where the prompt did not fit the judge's context, so that it was not asked."""
    asked: str


class Estimate(Row):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


class PairwiseSummary(Row):
    """B against A by one judge. A figure that nothing was left to compute from is None."""

    suite: str
    judge: str
    a: str
    b: str
    confidence: float
    pairs: int
    wins: int
    """Pairs in which both orders say that B is better."""
    ties: int
    """Both orders say tie, or they contradict each other."""
    losses: int
    unparsed: int
    """Pairs with a verdict that could not be read or was not asked for: in no other count."""
    unparsed_verdicts: int
    unasked_verdicts: int
    """Prompts longer than the judge's context."""
    consistency: Estimate | None
    """Percent of the judged pairs with the same verdict in both orders."""
    win_rate: Estimate | None
    """Percent of the judged pairs that B won, a tie counted half."""
    length_controlled: Estimate | None
    """The win rate had both answers been of one length, by `length_control`."""
    length_effect: Estimate | None
    """Log-odds that a much longer answer gains by its length."""
    position_bias: Estimate | None
    """Percent of the verdicts for one side that went to the first place, minus 50: 0 is fair."""

    @property
    def favoured_place(self) -> Literal["first", "second"] | None:
        """The place that the judge favours beyond doubt."""
        sign = _sign(self.position_bias)
        return None if sign == 0 else "first" if sign > 0 else "second"

    @property
    def favoured_length(self) -> Literal["longer", "shorter"] | None:
        """The answers that the judge favours beyond doubt, the system held equal."""
        sign = _sign(self.length_effect)
        return None if sign == 0 else "longer" if sign > 0 else "shorter"

    @property
    def sentence(self) -> str:
        """What a user is told, the judge's bias included."""
        parts = [
            f"{self.judge} on {self.suite}, {self.b} against {self.a}: {self.wins} wins, "
            f"{self.ties} ties, {self.losses} losses, {self.unparsed} of {self.pairs} pairs unread"
        ]
        if self.win_rate:
            parts.append(f"win rate {_show(self.win_rate)} %")
        if self.length_controlled:
            parts.append(f"at equal length {_show(self.length_controlled)} %")
        if self.consistency:
            parts.append(f"the same verdict both ways in {self.consistency.value:.0f} %")
        if self.position_bias and self.favoured_place:
            parts.append(
                f"biased: favours the {self.favoured_place} place "
                f"({_show(self.position_bias, '+')} points)"
            )
        if self.favoured_length:
            parts.append(f"biased: favours the {self.favoured_length} answer")
        return "; ".join(parts)


class GradeSummary(Row):
    """How many answers of a system a judge put at each level."""

    suite: str
    judge: str
    system: str
    confidence: float
    n: int
    a: int
    b: int
    c: int
    d: int
    unparsed: int
    """Grades that could not be read: at no level."""
    unasked: int
    """Prompts longer than the judge's context: at no level."""
    acceptable: Estimate | None
    """Percent of the graded answers at level A or B."""

    @property
    def graded(self) -> int:
        """Answers that have a level."""
        return self.a + self.b + self.c + self.d

    @property
    def sentence(self) -> str:
        """What a user is told."""
        parts = [
            f"{self.judge} on {self.suite}, {self.system}: A {self.a}, B {self.b}, C {self.c}, "
            f"D {self.d}, {self.n - self.graded} of {self.n} grades unread"
        ]
        if self.acceptable:
            parts.append(f"A or B {_show(self.acceptable)} %")
        return "; ".join(parts)


class LengthControl(NamedTuple):
    """A win rate freed from lengths."""

    win_rate: Estimate
    effect: Estimate


def summarise_pairs(
    verdicts: Sequence[PairVerdict], a: str, b: str, suite: str, judge: str, confidence: float
) -> PairwiseSummary:
    """Count pairs and name the judge's bias.

    A verdict counts only if the judge gives it in both orders. The intervals of shares are Wilson's
    (1927), which do not shrink to a point where all agree. Two verdicts of a pair are not
    independent, nor are the pairs of one task: n is the pairs where each task has one, and fewer
    where a task's pairs go together (`effective_size`).

    Args:
        verdicts: two for each pair, one after the other, A first and then B first.
        a: name of the system that is compared with.
        b: name of the system whose wins are counted.
        suite: name of the suite.
        judge: name of the judge.
        confidence: coverage of the intervals.
    """
    pairs = list(zip(verdicts[::2], verdicts[1::2], strict=True))
    assert all(p.first == q.second == a and p.second == q.first == b for p, q in pairs)
    outcomes: list[float] = []
    growth: list[int] = []
    tasks: list[str] = []
    agreed: list[float] = []
    to_first: list[float] = []
    sided_tasks: list[str] = []
    places = firsts = 0
    for pair in pairs:
        winners = [_winner(verdict) for verdict in pair]
        if None in winners:
            continue
        same = winners[0] == winners[1]
        agreed.append(float(same))
        tasks.append(pair[0].task_id)
        outcomes.append({a: 0.0, b: 1.0}.get(winners[0] or "", 0.5) if same else 0.5)
        growth.append(pair[0].second_words - pair[0].first_words)
        decided = [verdict.choice for verdict in pair if verdict.choice != "tie"]
        places += len(decided)
        firsts += decided.count("first")
        if decided:
            to_first.append(decided.count("first") / len(decided))
            sided_tasks.append(pair[0].task_id)
    n = len(outcomes)
    control = length_control(outcomes, growth, confidence, tasks)
    bias = None
    if places:
        size = effective_size(np.array(to_first), _numbers(sided_tasks))
        first = share(firsts / places, size, confidence)
        bias = Estimate(value=first.value - 50, low=first.low - 50, high=first.high - 50)
    unread = [verdict for verdict in verdicts if verdict.choice is None]
    unasked = sum(verdict.finish_reason is None for verdict in unread)
    return PairwiseSummary(
        suite=suite,
        judge=judge,
        a=a,
        b=b,
        confidence=confidence,
        pairs=len(pairs),
        wins=outcomes.count(1.0),
        ties=outcomes.count(0.5),
        losses=outcomes.count(0.0),
        unparsed=len(pairs) - n,
        unparsed_verdicts=len(unread) - unasked,
        unasked_verdicts=unasked,
        consistency=_clustered_share(agreed, tasks, confidence),
        win_rate=_clustered_share(outcomes, tasks, confidence),
        length_controlled=control.win_rate if control else None,
        length_effect=control.effect if control else None,
        position_bias=bias,
    )


def summarise_grades(
    verdicts: Sequence[GradeVerdict], system: str, suite: str, judge: str, confidence: float
) -> GradeSummary:
    """Count the levels of a system's answers."""
    count = Counter(verdict.level for verdict in verdicts)
    graded = [verdict for verdict in verdicts if verdict.level is not None]
    unasked = sum(verdict.finish_reason is None for verdict in verdicts)
    good = [float(verdict.level in ("A", "B")) for verdict in graded]
    return GradeSummary(
        suite=suite,
        judge=judge,
        system=system,
        confidence=confidence,
        n=len(verdicts),
        a=count["A"],
        b=count["B"],
        c=count["C"],
        d=count["D"],
        unparsed=count[None] - unasked,
        unasked=unasked,
        acceptable=_clustered_share(good, [v.task_id for v in graded], confidence),
    )


def length_control(
    outcomes: Sequence[float],
    growth: Sequence[int],
    confidence: float,
    tasks: Sequence[str] | None = None,
) -> LengthControl | None:
    """The win rate that remains where answers are of one length.

    A logistic regression of the outcome on a constant and tanh(words more of B / their standard
    deviation); the win rate is what it predicts at a difference of 0. So does length-controlled
    AlpacaEval (Dubois et al., arXiv 2404.04475), of which this is the part that two systems need:
    no term for how hard an instruction is, words in place of characters, a tie as half a win, a
    light ridge on both coefficients in place of cross-validated regularisation. The intervals
    follow from the curvature at the optimum (Wald); as a tie is counted as if it were drawn, they
    are wide rather than narrow. Where a task has several pairs they grow by as much as the
    cluster-robust covariance (Liang and Zeger 1986) exceeds that of pairs which stand alone.

    Args:
        outcomes: 1 where B won, 0 where A won, 0.5 for a tie, one a pair.
        growth: words of B's answer minus words of A's.
        confidence: coverage of the intervals.
        tasks: the task of each pair; by default each pair has its own.

    Returns:
        None where the difference in length is the same for all pairs: there is nothing to fit.
    """
    difference = np.array(growth, np.float64)
    spread = float(difference.std()) if len(growth) else 0.0
    if not spread:
        return None
    x = np.stack((np.ones_like(difference), np.tanh(difference / spread)), axis=1)
    y = np.array(outcomes, np.float64)
    coefficients = np.zeros(2)
    for _ in range(_STEPS):
        p = _logistic(x @ coefficients)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (y - p) - _RIDGE * coefficients)
        # Far from the optimum a full Newton step may overshoot.
        coefficients = coefficients + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-10:
            break
    spread_of = np.linalg.inv(curvature)
    reach = normal_quantile(confidence) * np.sqrt(np.diag(spread_of))
    if tasks is not None:
        reach *= _clustering(spread_of, x * (y - p)[:, None], _numbers(tasks))
    ends = np.stack((coefficients, coefficients - reach, coefficients + reach))
    rate = 100.0 * _logistic(ends[:, 0])
    return LengthControl(_estimate(rate), _estimate(ends[:, 1]))


def _clustering(
    covariance: NDArray[np.float64], scores: NDArray[np.float64], clusters: NDArray[np.int_]
) -> NDArray[np.float64]:
    """How much wider clusters make the interval of each coefficient, at least 1."""
    groups, cluster = np.unique(clusters, return_inverse=True)
    if len(groups) in (1, len(scores)):
        return np.full(len(covariance), math.sqrt(len(scores) / len(groups)))
    together = np.zeros((len(groups), scores.shape[1]))
    np.add.at(together, cluster, scores)
    alone, whole = (
        np.diag(covariance @ (rows.T @ rows) @ covariance) * len(rows) / (len(rows) - 1)
        for rows in (scores, together)
    )
    return np.sqrt(np.maximum(1.0, whole / np.maximum(alone, np.finfo(np.float64).tiny)))


def _clustered_share(
    values: Sequence[float], tasks: Sequence[str], confidence: float
) -> Estimate | None:
    if not values:
        return None
    found = np.array(values)
    return share(float(found.mean()), effective_size(found, _numbers(tasks)), confidence)


def _numbers(tasks: Sequence[str]) -> NDArray[np.int_]:
    return np.unique(np.array(tasks), return_inverse=True)[1]


def share(value: float, n: float, confidence: float) -> Estimate:
    """A share, 0 to 1, of n trials in percent, with Wilson's interval; a tie may count as half."""
    _, low, high = wilson_interval(value, n, confidence)
    return Estimate(value=100 * value, low=100 * low, high=100 * high)


def _winner(verdict: PairVerdict) -> str | None:
    match verdict.choice:
        case "first":
            return verdict.first
        case "second":
            return verdict.second
        case "tie":
            return ""
        case None:
            return None


def _logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1.0 + np.tanh(0.5 * value))


def _estimate(ends: NDArray[np.float64]) -> Estimate:
    value, low, high = ends.tolist()
    return Estimate(value=value, low=low, high=high)


def _sign(estimate: Estimate | None) -> int:
    if estimate is None or estimate.low <= 0 <= estimate.high:
        return 0
    return 1 if estimate.low > 0 else -1


def _show(estimate: Estimate, sign: Literal["", "+"] = "") -> str:
    value, low, high = (f"{x:{sign}.1f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"
