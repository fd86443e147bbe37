"""What the comparisons say, in sentences that claim no more than their intervals allow."""

from __future__ import annotations

from typing import Literal, NamedTuple

from selfinstruct_train.config import DEFAULT_TRAINING
from selfinstruct_train.evaluation.compare import contamination_sentence
from selfinstruct_train.records import Comparison, PairedComparison
from selfinstruct_train.report.facts import Result, SuiteFacts
from selfinstruct_train.report.wording import number, signed

BASELINE = "base-stopped"
_UNITS = {
    "rouge_l": "ROUGE-L",
    "accuracy": "points of accuracy",
    "oracle_accuracy": "points of oracle accuracy",
}
_RIGHT_BY: dict[Literal["accuracy", "oracle_accuracy"], str] = {
    "accuracy": "By accepted answers and constraints",
    "oracle_accuracy": "By the oracle, which judges answers right or wrong",
}


class Headline(NamedTuple):
    """The answer to: did it help?"""

    outcome: str
    """``helped``, ``hurt`` or ``unclear``."""
    headline: str
    details: tuple[str, ...]


def outcome(low: float, high: float) -> str:
    """``helped`` or ``hurt`` where the interval is clear of zero, else ``unclear``."""
    if low > 0:
        return "helped"
    return "hurt" if high < 0 else "unclear"


def judge_suite(suite: SuiteFacts) -> Headline:
    """Say what tuning did on a suite, by its best round.

    Where one half of the suite chose that round, the other half is what speaks.
    """
    result = suite.best
    comparison: Comparison | PairedComparison = result.comparison
    where = f"on {comparison.n:,} items of {suite.name}"
    if _halved(suite) and result.comparison.halves is not None:
        comparison = result.comparison.halves.reported
        where = f"on the {comparison.n:,} items of {suite.name} that chose nothing"
    found = outcome(comparison.ci_low, comparison.ci_high)
    confidence = f"{100 * result.comparison.confidence:g} % interval "
    figures = f"{signed(comparison.delta)} ROUGE-L {_interval(comparison, confidence)}"
    headline = {
        "helped": f"Tuning helped: {figures} over the stop-controlled base {where}.",
        "hurt": f"Tuning hurt: {figures} against the stop-controlled base {where}.",
        "unclear": "The tuned model cannot be told apart from the stop-controlled base: "
        f"{figures} {where}.",
    }[found]
    return Headline(found, headline, tuple(_details(suite, result)))


def _details(suite: SuiteFacts, result: Result) -> list[str]:
    details = []
    if pair := result.pair("seeds-only", "rouge_l"):
        details.append(_own_data(pair) + _seeds_only_lengths(result.comparison))
    else:
        details.append(
            "There is no model tuned on the seed tasks alone to compare with, so what the model's "
            "own data add cannot be told apart from what any tuning adds."
        )
    for metric, by in _RIGHT_BY.items():
        if pair := result.pair(BASELINE, metric):
            unsure = outcome(pair.ci_low, pair.ci_high) == "unclear"
            caution = ", which cannot be told apart from no change" if unsure else ""
            details.append(
                f"{by}: {_figures(pair)} over the stop-controlled base{_absolute(result, metric)}"
                f"{caution}."
            )
            if own := result.pair("seeds-only", metric):
                details.append(_own_data(own))
    if warning := contamination_sentence(result.comparison):
        details.append(warning)
    if previous := result.pair("previous", "rouge_l"):
        details.append(f"Against the round before it: {_figures(previous)}.")
    scores = {score.system: score.rouge_l for score in result.comparison.scores}
    if (few := scores.get("base-few-shot")) is not None and (tuned := scores.get("tuned")):
        details.append(
            f"The untuned base that is shown worked examples in its prompt scores {number(few)} "
            f"ROUGE-L; the tuned model, which is shown none, scores {number(tuned)}."
        )
    if suite.candidates > 1:
        named = "" if result.name == DEFAULT_TRAINING else f", training {result.name},"
        details.append(
            f"Round {result.round}{named} is shown, the best of {suite.candidates} by the lower "
            "end of "
            f"its interval on {suite.selection.description}. {_fairness(suite)}"
        )
    return details


def _halved(suite: SuiteFacts) -> bool:
    chosen = suite.candidates > 1
    return chosen and suite.selection.half and suite.selection.suite == suite.name


def _fairness(suite: SuiteFacts) -> str:
    if suite.selection.suite != suite.name:
        return f"{suite.name} had no say in it."
    if _halved(suite) and (halves := suite.best.comparison.halves) is not None:
        return (
            f"The half that chose is flattered: {_figures(halves.choosing)} there. All other "
            "figures below are of both halves together."
        )
    return "It was chosen on these same items, which flatters it slightly."


def _seeds_only_lengths(comparison: Comparison) -> str:
    others = [s.system for s in comparison.scores if s.system.startswith("seeds-only-steps-")]
    if not others:
        return ""
    steps = ", ".join(name.rpartition("-")[2] for name in others)
    return (
        f" It was tuned for {comparison.seeds_only_steps} steps, which did better than {steps} "
        "where the best is chosen."
    )


def _own_data(pair: PairedComparison) -> str:
    said = {
        "helped": "the model's own data add",
        "hurt": "the model's own data cost:",
        "unclear": "it cannot be told whether the model's own data add anything:",
    }[outcome(pair.ci_low, pair.ci_high)]
    return f"Against the model tuned on the seed tasks alone, {said} {_figures(pair)}."


def _figures(pair: PairedComparison) -> str:
    return f"{signed(pair.delta)} {_UNITS.get(pair.metric, pair.metric)} {_interval(pair)}"


def _interval(pair: PairedComparison | Comparison, name: str = "") -> str:
    return f"({name}{number(pair.ci_low)} to {number(pair.ci_high)})"


def _absolute(result: Result, metric: Literal["accuracy", "oracle_accuracy"]) -> str:
    scores = {
        s.system: s.accuracy if metric == "accuracy" else s.oracle_accuracy
        for s in result.comparison.scores
    }
    before, after = scores.get(BASELINE), scores.get("tuned")
    if before is None or after is None:
        return ""
    return f", from {number(before)} % right to {number(after)} %"
