"""What the grades say: their distribution for each model, and how far raters agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

from selfinstruct_train.rating.store import GRADES, AnswerKey, Grade, Rating
from selfinstruct_train.records import Row
from selfinstruct_train.statistics import wilson_interval

CONFIDENCE = 0.95
_GOOD = ("A", "B")


class Share(Row):
    """How much of a model's answers got a grade, with a Wilson interval; all 0 to 1."""

    grade: Literal["A", "B", "C", "D", "A+B"]
    share: float
    low: float
    high: float


class ModelGrades(Row):
    """The grades of one model on one suite."""

    suite: str
    round: int
    system: str
    answers: int
    """Answers that anybody graded: the n of the intervals."""
    grades: int
    """Grades given, by all raters together."""
    shares: tuple[Share, ...]
    """For A, B, C, D and A+B. Raters of one answer count as one voice, split among them."""


class PairAgreement(Row):
    """Two raters on the answers that both graded."""

    a: str
    b: str
    answers: int
    same: float
    """Share of answers with the same grade."""
    kappa: float | None
    """Cohen's kappa on the four levels; None where both gave one and the same grade throughout."""
    kappa_good: float | None
    """Cohen's kappa on A or B against C or D."""


class RatingSummary(Row):
    """All that ``selfinstruct ratings`` says."""

    raters: tuple[str, ...]
    models: tuple[ModelGrades, ...]
    pairs: tuple[PairAgreement, ...]
    """Every two raters who graded an answer in common."""
    alpha_nominal: float | None
    """Krippendorff's alpha over all raters; None where it is not defined."""
    alpha_ordinal: float | None
    confidence: float


def summarise_ratings(ratings: Sequence[Rating]) -> RatingSummary:
    """Distribution and agreement of the grades that stand.

    An answer that several models gave in the same words is one answer for the agreement, and one
    for each of these models in the distributions.

    Args:
        ratings: one graded row for each rater and answer, as ``read_ratings`` returns them.
    """
    graded = [(row, row.grade) for row in ratings if row.grade is not None]
    units: dict[tuple[str, str], dict[str, Grade]] = {}
    for row, grade in graded:
        key = AnswerKey(row.rater, row.question, row.answer)
        units.setdefault((key.question, key.answer), {})[row.rater] = grade
    raters = tuple(sorted({row.rater for row, _ in graded}))
    levels = [[GRADES.index(g) for g in unit.values()] for unit in units.values()]
    pairs = (_pair(a, b, list(units.values())) for a, b in combinations(raters, 2))
    return RatingSummary(
        raters=raters,
        models=_models(graded),
        pairs=tuple(pair for pair in pairs if pair),
        alpha_nominal=krippendorff_alpha(levels, "nominal"),
        alpha_ordinal=krippendorff_alpha(levels, "ordinal"),
        confidence=CONFIDENCE,
    )


def cohen_kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960), unweighted.

    Args:
        a: labels by one rater.
        b: labels of the same things by the other.

    Returns:
        1 for full agreement, 0 for no more than chance; None where nothing was labelled or both
        gave one and the same label throughout, so that chance alone agrees fully.
    """
    n = len(a)
    if n == 0:
        return None
    counts_a, counts_b = Counter(a), Counter(b)
    same = sum(x == y for x, y in zip(a, b, strict=True))
    chance = sum(counts_a[label] * counts_b[label] for label in counts_a)
    if chance == n * n:
        return None
    return (same * n - chance) / (n * n - chance)


def krippendorff_alpha(
    units: Sequence[Sequence[int]], scale: Literal["nominal", "ordinal"]
) -> float | None:
    """Agreement of any number of raters, each of whom may have left things out.

    Krippendorff 2011, "Computing Krippendorff's alpha-reliability": one less the disagreement
    seen over the disagreement by chance.

    Args:
        units: for each thing the levels given to it, 0 for the first; those with one are left out.
        scale: whether levels differ or not, or lie apart by the things ranked between them.

    Returns:
        1 for full agreement, 0 for no more than chance; None where no two levels were given to
        anything that two raters saw.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals = Counter(level for unit in paired for level in unit)
    if len(totals) < 2:
        return None
    distance = _nominal if scale == "nominal" else _ordinal(totals)
    seen = sum(
        2 * distance(x, y) / (len(unit) - 1) for unit in paired for x, y in combinations(unit, 2)
    )
    n = totals.total()
    by_chance = sum(totals[x] * totals[y] * distance(x, y) for x in totals for y in totals) / (
        n - 1
    )
    return 1 - seen / by_chance


def in_words(agreement: float) -> str:
    """How strong an agreement beyond chance is, by Landis and Koch (1977); a custom, no law."""
    if agreement < 0:
        return "poor"
    bounds = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
    return next((word for bound, word in bounds if agreement <= bound), "almost perfect")


def describe(summary: RatingSummary) -> str:
    """The summary as lines for a terminal."""
    if not summary.raters:
        return "nobody has graded anything yet; start with 'selfinstruct rate'"
    lines = []
    for model in summary.models:
        lines.append(
            f"{model.suite}, round {model.round}, {model.system}: {model.answers} answers, "
            f"{model.grades} grades"
        )
        lines += [
            f"  {share.grade:<4}{share.share:7.1%}  ({share.low:.1%} to {share.high:.1%})"
            for share in model.shares
        ]
    for pair in summary.pairs:
        lines.append(
            f"{pair.a} and {pair.b}: {pair.answers} answers in common, {pair.same:.1%} the same; "
            f"kappa {_figure(pair.kappa)} on A/B/C/D, {_figure(pair.kappa_good)} on A+B against C+D"
        )
    if len(summary.raters) > 2:
        lines.append(
            f"all {len(summary.raters)} raters: Krippendorff's alpha "
            f"{_figure(summary.alpha_nominal)} nominal, {_figure(summary.alpha_ordinal)} ordinal"
        )
    elif not summary.pairs:
        lines.append("agreement needs two raters who graded the same answers")
    return "\n".join(lines)


def _models(graded: Sequence[tuple[Rating, Grade]]) -> tuple[ModelGrades, ...]:
    found: dict[tuple[str, int, str], dict[tuple[str, str], list[Grade]]] = {}
    for row, grade in graded:
        for system in row.systems:
            by_answer = found.setdefault((row.suite, row.round, system), {})
            by_answer.setdefault((row.question, row.answer), []).append(grade)
    return tuple(
        ModelGrades(
            suite=suite,
            round=number,
            system=system,
            answers=len(by_answer),
            grades=sum(map(len, by_answer.values())),
            shares=_shares(list(by_answer.values())),
        )
        for (suite, number, system), by_answer in sorted(found.items())
    )


def _shares(answers: Sequence[Sequence[Grade]]) -> tuple[Share, ...]:
    # Two raters of one answer are not two independent looks: n is the number of answers.
    n = len(answers)
    sums = {g: math.fsum(given.count(g) / len(given) for given in answers) for g in GRADES}
    parts: list[tuple[Literal["A", "B", "C", "D", "A+B"], float]] = [
        (grade, sums[grade] / n) for grade in GRADES
    ]
    parts.append(("A+B", min(1.0, sum(sums[g] for g in GRADES if g in _GOOD) / n)))
    return tuple(
        Share(grade=name, share=part, low=interval.low, high=interval.high)
        for name, part in parts
        for interval in (wilson_interval(part, n, CONFIDENCE),)
    )


def _pair(a: str, b: str, units: Sequence[dict[str, Grade]]) -> PairAgreement | None:
    both = [(unit[a], unit[b]) for unit in units if a in unit and b in unit]
    if not both:
        return None
    first, second = [x for x, _ in both], [y for _, y in both]
    return PairAgreement(
        a=a,
        b=b,
        answers=len(both),
        same=sum(x == y for x, y in both) / len(both),
        kappa=cohen_kappa(first, second),
        kappa_good=cohen_kappa([_side(x) for x in first], [_side(y) for y in second]),
    )


def _side(grade: Grade) -> str:
    return "good" if grade in _GOOD else "bad"


def _nominal(x: int, y: int) -> float:
    return float(x != y)


def _ordinal(totals: Counter[int]) -> Callable[[int, int], float]:
    def distance(x: int, y: int) -> float:
        between = sum(totals[level] for level in range(min(x, y), max(x, y) + 1))
        return (between - (totals[x] + totals[y]) / 2) ** 2

    return distance


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f} ({in_words(value)})"
