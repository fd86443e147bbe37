"""What people who graded the answers say, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from selfinstruct_train.rating.agreement import (
    ModelGrades,
    PairAgreement,
    RatingSummary,
    Share,
    in_words,
    summarise_ratings,
)
from selfinstruct_train.rating.store import GRADES, Rating
from selfinstruct_train.report.answers import system_label
from selfinstruct_train.report.bars import GRADE_PARTS, Bar, BarInterval, stacked_plot
from selfinstruct_train.report.drawing import Plot
from selfinstruct_train.report.facts import RunFacts
from selfinstruct_train.report.headline import BASELINE
from selfinstruct_train.report.suite_facts import SYSTEMS
from selfinstruct_train.report.wording import number, spread

_COMMENTS_SHOWN = 40
_ORDER = (BASELINE, *SYSTEMS)
_PAPER = (
    "For orientation: in the paper (Wang et al., 2022, on its 252 tasks) people put 31 % of the "
    "answers at level A where the model was tuned on the seed tasks only, and 44 % after "
    "Self-Instruct."
)


class Grades(NamedTuple):
    """The grades of all models on one suite."""

    suite: str
    round: int
    models: tuple[ModelGrades, ...]
    """As they are drawn, the base first."""
    plot: Plot


class Kappa(NamedTuple):
    """How far two people agree beyond chance."""

    value: float | None
    raters: str


class PeopleSection(NamedTuple):
    """What the page says of the grades that people gave."""

    summary: RatingSummary
    sentences: tuple[str, ...]
    grades: tuple[Grades, ...]
    comments: tuple[Rating, ...]
    """Ratings with a comment, evenly spaced where there are many."""
    commented: int
    """Comments, shown or not."""


def people_section(facts: RunFacts) -> PeopleSection | None:
    """Say what people made of the answers.

    Returns:
        None where nobody has graded or commented anything.
    """
    if not facts.ratings:
        return None
    summary = summarise_ratings(facts.ratings)
    comments = [row for row in facts.ratings if row.comment.strip()]
    return PeopleSection(
        summary=summary,
        sentences=tuple(_sentences(summary)),
        grades=tuple(_grades(summary)),
        comments=spread(comments, _COMMENTS_SHOWN),
        commented=len(comments),
    )


def grade_share(model: ModelGrades, grade: str) -> Share:
    """The share of a grade, or of ``A+B``, among a model's answers."""
    return next(share for share in model.shares if share.grade == grade)


def _grades(summary: RatingSummary) -> Iterator[Grades]:
    for i, models in enumerate(_by_suite_and_round(summary)):
        plot = _plot(models, summary.confidence, f"people-{i}")
        yield Grades(models[0].suite, models[0].round, models, plot)


def _by_suite_and_round(summary: RatingSummary) -> Iterator[tuple[ModelGrades, ...]]:
    ordered = sorted(summary.models, key=lambda m: (m.suite, m.round, _place(m.system)))
    for _, group in groupby(ordered, key=lambda m: (m.suite, m.round)):
        yield tuple(group)


def _place(system: str) -> int:
    return _ORDER.index(system) if system in _ORDER else len(_ORDER)


def _plot(models: Sequence[ModelGrades], confidence: float, key: str) -> Plot:
    bars = []
    for model in models:
        shares = [100 * grade_share(model, grade).share for grade in GRADES]
        good = grade_share(model, "A+B")
        bars.append(
            Bar(
                label=f"{system_label(model.system)} ({model.answers:,})",
                parts=tuple(shares),
                figures=tuple(f"{share:.0f} %" for share in shares),
                interval=BarInterval(100 * good.share, 100 * good.low, 100 * good.high),
            )
        )
    caption = (
        "From A (right and satisfying) to D (irrelevant or invalid); in brackets: graded "
        "answers. The mark under each bar is the share of A and B together with its "
        f"{100 * confidence:g} % interval. Raters of one answer share one voice."
    )
    title = f"Grades by people on {models[0].suite}, round {models[0].round}"
    return stacked_plot(key, title, bars, GRADE_PARTS, "% of graded answers", caption)


def _sentences(summary: RatingSummary) -> Iterator[str]:
    if not summary.raters:
        yield "Nobody has graded an answer yet; there are comments alone."
        return
    yield f"{_count(len(summary.raters), 'person', 'people')} graded: {', '.join(summary.raters)}."
    for models in _by_suite_and_round(summary):
        by_system = {model.system: model for model in models}
        if (tuned := by_system.get("tuned")) and (base := by_system.get(BASELINE)):
            yield _against(f"On {tuned.suite}, round {tuned.round}", tuned, base)
        if (tuned := by_system.get("tuned")) and (seeds := by_system.get("seeds-only")):
            yield (
                f"At level A alone: {_percent(grade_share(seeds, 'A'))} of the answers of the "
                f"model tuned on seeds only, {_percent(grade_share(tuned, 'A'))} of the tuned "
                "model's."
            )
    yield _PAPER
    yield from _agreement(summary)


def _against(where: str, tuned: ModelGrades, base: ModelGrades) -> str:
    one, other = grade_share(tuned, "A+B"), grade_share(base, "A+B")
    so = "the two intervals overlap, so this alone does not tell them apart"
    if one.low > other.high:
        so = "the tuned model is clearly the better"
    elif one.high < other.low:
        so = "the tuned model is clearly the worse"
    return (
        f"{where}: {_percent(one)} of the tuned model's answers are at level A or B, of the "
        f"stop-controlled base's {_percent(other)}: {so}."
    )


def _agreement(summary: RatingSummary) -> Iterator[str]:
    if not summary.pairs:
        yield "How far people agree is not known: that needs two who graded the same answers."
    if len(summary.pairs) == 1:
        yield _pair_sentence(summary.pairs[0])
    elif summary.pairs:
        four = [Kappa(pair.kappa, f"{pair.a} and {pair.b}") for pair in summary.pairs]
        two = [Kappa(pair.kappa_good, f"{pair.a} and {pair.b}") for pair in summary.pairs]
        yield (
            f"Cohen's kappa of two raters is {_range(four)} on the four levels, {_range(two)} on A "
            "or B against C or D (1 is full agreement, 0 what chance gives)."
        )
    if len(summary.raters) > 2:
        yield (
            f"Krippendorff's alpha over all raters: {_kappa(summary.alpha_nominal)} where levels "
            f"differ or not, {_kappa(summary.alpha_ordinal)} where neighbouring levels are nearly "
            "the same."
        )


def _range(kappas: Sequence[Kappa]) -> str:
    known = [(kappa.value, kappa.raters) for kappa in kappas if kappa.value is not None]
    if not known:
        return "not defined"
    (low, lowest), (high, highest) = min(known), max(known)
    return f"{_kappa(low)} for {lowest} to {_kappa(high)} for {highest}"


def _pair_sentence(pair: PairAgreement) -> str:
    return (
        f"{pair.a} and {pair.b} graded {_count(pair.answers, 'answer', 'answers')} in common and "
        f"gave {number(100 * pair.same)} % of them the same grade; Cohen's kappa is "
        f"{_kappa(pair.kappa)} on the four levels and {_kappa(pair.kappa_good)} on A or B against "
        "C or D (1 is full agreement, 0 what chance gives)."
    )


def _kappa(value: float | None) -> str:
    return "not defined" if value is None else f"{number(value, 2)} ({in_words(value)})"


def _percent(share: Share) -> str:
    low, high = number(100 * share.low), number(100 * share.high)
    return f"{number(100 * share.share)} % ({low} to {high})"


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
