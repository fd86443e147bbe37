"""What the comparisons say, in sentences that claim no more than their intervals allow.

First what the model's own data added to tuning on the seed tasks alone, and how the tuned model
does against the base that is shown worked examples: both could be had without writing any data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from selfinstruct_train.config import DEFAULT_TRAINING
from selfinstruct_train.evaluation.compare import OVERALL, contamination_sentence
from selfinstruct_train.records import Comparison, PairedComparison
from selfinstruct_train.report.facts import RunFacts
from selfinstruct_train.report.suite_facts import SuiteFacts
from selfinstruct_train.report.wording import number, signed

BASELINE = "base-stopped"
STOP_CONTROLLED = (
    "the base as it is asked without examples, cut where it begins another one (stop-controlled)"
)
_FEW = 30
"""Items below which an interval is not to be trusted."""
_UNITS = {
    "rouge_l": "ROUGE-L",
    "accuracy": "points of accuracy",
    "oracle_accuracy": "points of oracle accuracy",
}
_LEADING = ("oracle_accuracy", "accuracy", "rouge_l")
"""Figures that the headline may be in, the one that tells most first."""


class Headline(NamedTuple):
    """The answer to: did it help?"""

    outcome: str
    """``helped``, ``hurt`` or ``unclear``; unclear too where one comparison gains and one loses."""
    headline: str
    details: tuple[str, ...]


class _Said(NamedTuple):
    """One comparison in words."""

    outcome: str
    sentence: str


def outcome(low: float, high: float) -> str:
    """``helped`` or ``hurt`` where the interval is clear of zero, else ``unclear``."""
    if low > 0:
        return "helped"
    return "hurt" if high < 0 else "unclear"


def judge_suite(suite: SuiteFacts) -> Headline:
    """Say what the model's own data and tuning did on a suite, by its best round.

    All comparisons of the headline are in one figure: right or wrong, where at least half of the
    items can be told so, else ROUGE-L. Where one half of the suite chose the round, the other half
    is what speaks.
    """
    pairs = _pairs(suite)
    metric = _leading(pairs)
    tuning = pairs[BASELINE, metric]
    said = [
        say(pair, suite.best.comparison.confidence)
        for say, pair in (
            (_own_data, pairs.get(("seeds-only", metric))),
            (_few_shot, pairs.get(("base-few-shot", metric))),
        )
        if pair
    ] or [_tuning(tuning, suite.best.comparison.confidence)]
    sentences = [*(one.sentence for one in said), f"Measured on {_where(suite, tuning)}."]
    if warning := _too_few(tuning):
        sentences.append(warning)
    details = tuple(_details(suite, pairs, metric))
    return Headline(_together({one.outcome for one in said}), " ".join(sentences), details)


def closing_lines(facts: RunFacts) -> Iterator[str]:
    """What a finished run says last: the headline of each suite, and what it is based on."""
    if not facts.suites:
        yield "no round has been evaluated"
    for suite in facts.suites:
        result = suite.best
        training = "" if result.name == DEFAULT_TRAINING else f", training {result.name}"
        found = judge_suite(suite)
        yield f"{suite.name}, round {result.round}{training}:"
        yield f"  {found.headline}"
        yield from (f"  {detail}" for detail in found.details)


def _together(outcomes: set[str]) -> str:
    gains, losses = "helped" in outcomes, "hurt" in outcomes
    if gains == losses:
        return "unclear"
    return "helped" if gains else "hurt"


_Pairs = dict[tuple[str, str], PairedComparison]
"""(system, metric) -> tuned against that system."""


def _pairs(suite: SuiteFacts) -> _Pairs:
    comparison = suite.best.comparison
    base = PairedComparison(
        a=BASELINE, b="tuned", metric="rouge_l", group=OVERALL, n=comparison.n,
        delta=comparison.delta, ci_low=comparison.ci_low, ci_high=comparison.ci_high,
        wins=comparison.wins, ties=comparison.ties, losses=comparison.losses,
    )  # fmt: skip
    rows = [base, *(p for p in comparison.pairs if p.b == "tuned" and p.group == OVERALL)]
    if _halved(suite) and comparison.halves is not None:
        rows = [comparison.halves.reported, *comparison.halves.pairs]
    return {(row.a, row.metric): row for row in rows}


def _leading(pairs: _Pairs) -> str:
    whole = pairs[BASELINE, "rouge_l"].n
    return next(
        metric
        for metric in _LEADING
        if (pair := pairs.get((BASELINE, metric))) and 2 * pair.n >= whole
    )


def _own_data(pair: PairedComparison, confidence: float) -> _Said:
    found = outcome(pair.ci_low, pair.ci_high)
    said = {
        "helped": "The model's own data helped:",
        "hurt": "The model's own data hurt:",
        "unclear": "It cannot be told whether the model's own data helped:",
    }[found]
    against = "over" if pair.delta >= 0 else "against"
    figures = _figures(pair, confidence)
    return _Said(found, f"{said} {figures} {against} tuning on the seed tasks alone.")


def _few_shot(pair: PairedComparison, confidence: float) -> _Said:
    found = outcome(pair.ci_low, pair.ci_high)
    said = {
        "helped": "The tuned model is better than",
        "hurt": "The tuned model is worse than",
        "unclear": "The tuned model cannot be told apart from",
    }[found]
    base = "the untuned base that is shown worked examples (few-shot)"
    return _Said(found, f"{said} {base}: {_figures(pair, confidence)}.")


def _tuning(pair: PairedComparison, confidence: float) -> _Said:
    found = outcome(pair.ci_low, pair.ci_high)
    figures = _figures(pair, confidence)
    return _Said(
        found,
        {
            "helped": f"Tuning helped: {figures} over {STOP_CONTROLLED}.",
            "hurt": f"Tuning hurt: {figures} against {STOP_CONTROLLED}.",
            "unclear": f"The tuned model cannot be told apart from {STOP_CONTROLLED}: {figures}.",
        }[found],
    )


def _where(suite: SuiteFacts, pair: PairedComparison) -> str:
    if _halved(suite) and suite.best.comparison.halves is not None:
        return f"the {pair.n:,} items of {suite.name} that chose nothing"
    return f"{pair.n:,} items of {suite.name}"


def _too_few(pair: PairedComparison) -> str:
    if pair.n >= _FEW:
        return ""
    return (
        f"Warning: {pair.n} items are too few to rely on; with fewer than {_FEW} the intervals are "
        "too narrow."
    )


def _details(suite: SuiteFacts, pairs: _Pairs, metric: str) -> Iterator[str]:
    result = suite.best
    confidence = result.comparison.confidence
    has_own, has_few = ((system, metric) in pairs for system in ("seeds-only", "base-few-shot"))
    if not has_own:
        yield (
            "There is no model tuned on the seed tasks alone to compare with, so what the model's "
            "own data add cannot be told apart from what any tuning adds."
        )
    if has_own or has_few:
        sentence = _tuning(pairs[BASELINE, metric], confidence).sentence
        yield sentence.removesuffix(".") + f"{_absolute(suite, metric)}."
    for other in _LEADING:
        if other != metric and (BASELINE, other) in pairs:
            yield _in_other_figure(pairs, other)
    if steps := _seeds_only_lengths(result.comparison):
        yield steps
    if warning := contamination_sentence(result.comparison):
        yield warning
    if previous := result.pair("previous", metric):
        yield f"Against the round that it builds on: {_figures(previous)}."
    if suite.candidates > 1:
        named = "" if result.name == DEFAULT_TRAINING else f", training {result.name},"
        yield (
            f"Round {result.round}{named} is shown, the best of {suite.candidates} by the lower "
            f"end of its interval on {suite.selection.description}. {_fairness(suite)}"
        )


def _in_other_figure(pairs: _Pairs, metric: str) -> str:
    rivals = {
        "seeds-only": "tuning on the seed tasks alone",
        "base-few-shot": "the few-shot base",
        BASELINE: "the stop-controlled base",
    }
    against = [
        f"{signed(pair.delta)} {_interval(pair)} against {name}"
        for system, name in rivals.items()
        if (pair := pairs.get((system, metric)))
    ]
    return f"The same in {_UNITS[metric]}: {', '.join(against)}."


def _halved(suite: SuiteFacts) -> bool:
    chosen = suite.candidates > 1
    return chosen and suite.selection.half and suite.selection.suite == suite.name


def _fairness(suite: SuiteFacts) -> str:
    if suite.selection.suite != suite.name:
        return f"{suite.name} had no say in it."
    if _halved(suite) and (halves := suite.best.comparison.halves) is not None:
        return (
            f"The half that chose is flattered: {_figures(halves.choosing)} there. All figures "
            "below are of both halves together."
        )
    return "It was chosen on these same items, which flatters it slightly."


def _seeds_only_lengths(comparison: Comparison) -> str:
    others = [s.system for s in comparison.scores if s.system.startswith("seeds-only-steps-")]
    if not others:
        return ""
    steps = ", ".join(name.rpartition("-")[2] for name in others)
    return (
        f"The model on the seed tasks alone was tuned for {comparison.seeds_only_steps} steps, "
        f"which did better than {steps} where the best is chosen."
    )


def _figures(pair: PairedComparison, confidence: float | None = None) -> str:
    name = "" if confidence is None else f"{100 * confidence:g} % interval "
    return f"{signed(pair.delta)} {_UNITS.get(pair.metric, pair.metric)} {_interval(pair, name)}"


def _interval(pair: PairedComparison, name: str = "") -> str:
    return f"({name}{number(pair.ci_low)} to {number(pair.ci_high)})"


def _absolute(suite: SuiteFacts, metric: str) -> str:
    """The share that is right before and after, where all of it is of the same items."""
    if metric == "rouge_l" or _halved(suite):
        return ""
    scores = {
        s.system: s.accuracy if metric == "accuracy" else s.oracle_accuracy
        for s in suite.best.comparison.scores
    }
    before, after = scores.get(BASELINE), scores.get("tuned")
    if before is None or after is None:
        return ""
    return f", from {number(before)} % right to {number(after)} %"
