"""What a model that judged the answers says, and how far it can be believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.judging.results import Estimate, GradeSummary, PairwiseSummary
from selfinstruct_train.report.answers import system_label
from selfinstruct_train.report.bars import (
    GRADE_PARTS,
    MATCH_PARTS,
    Bar,
    BarInterval,
    stacked_plot,
)
from selfinstruct_train.report.drawing import Plot
from selfinstruct_train.report.suite_facts import JudgedSuite, SuiteFacts, UnreadReply
from selfinstruct_train.report.wording import number, share, spread

_REPLIES_SHOWN = 8
_LARGEST_ODDS = 1000


class JudgeSection(NamedTuple):
    """What the page says of the judge of one suite."""

    suite: str
    key: str
    """Prefix of its ids on the page."""
    round: int
    """The round that the sentences are about."""
    judges: tuple[str, ...]
    """Names of the models that judged."""
    warning: str
    """Why the judge is not an impartial one; empty where nothing is known against it."""
    sentences: tuple[str, ...]
    plots: tuple[Plot, ...]
    judged: tuple[JudgedSuite, ...]
    """Every judged round, in order."""
    replies: tuple[UnreadReply, ...]
    """Some of what the judge wrote in place of a verdict."""


def judge_section(suite: SuiteFacts, config: Config, key: str) -> JudgeSection | None:
    """Say what the judge made of a suite, by its best round or else the last that was judged.

    Returns:
        None where no judge was asked.
    """
    if not suite.judged:
        return None
    best = suite.best.round
    shown = next((j for j in suite.judged if j.round == best), suite.judged[-1])
    pairwise, grades = shown.judgement.pairwise, shown.judgement.grades
    sentences = [
        *(_pairwise_sentences(pairwise) if pairwise else ()),
        *(_grade_sentence(grade) for grade in grades),
    ]
    plots = (_match_plot(suite.judged, f"{key}-match"), _grade_plot(grades, f"{key}-grades"))
    names = {judge for judged in suite.judged for judge in _judges(judged)}
    return JudgeSection(
        suite=suite.name,
        key=key,
        round=shown.round,
        judges=tuple(sorted(names)),
        warning=_warning(names, config),
        sentences=tuple(sentences),
        plots=tuple(plot for plot in plots if plot),
        judged=suite.judged,
        replies=spread(shown.unread, _REPLIES_SHOWN),
    )


def _judges(judged: JudgedSuite) -> Iterator[str]:
    if judged.judgement.pairwise:
        yield judged.judgement.pairwise.judge
    for grade in judged.judgement.grades:
        yield grade.judge


def _warning(judges: set[str], config: Config) -> str:
    own = judges & {config.model.name_or_path, config.generation.engine.server_model}
    if not own:
        return ""
    return (
        f"{', '.join(sorted(own))} judged itself: it is the model that was tuned and that wrote "
        "the data. It is not an impartial judge; name another in evaluation.judge.model before you "
        "rely on these verdicts."
    )


def _pairwise_sentences(found: PairwiseSummary) -> Iterator[str]:
    if found.win_rate is None:
        yield "None of the judge's verdicts could be read, so it says nothing."
    else:
        yield _outcome_sentence(found, found.win_rate)
    if found.win_rate and found.length_controlled:
        yield _length_controlled_sentence(found.win_rate, found.length_controlled)
    if found.consistency:
        yield _consistency_sentence(found.consistency)
    if found.position_bias:
        yield _position_sentence(found, found.position_bias)
    if found.length_effect:
        yield _length_sentence(found, found.length_effect)
    if found.unparsed:
        yield _unread_sentence(found)


def _outcome_sentence(found: PairwiseSummary, rate: Estimate) -> str:
    said = {
        1: f"The judge prefers {_of(found.b)} to {_of(found.a)}",
        -1: f"The judge prefers {_of(found.a)} to {_of(found.b)}",
        0: f"The judge cannot tell {_of(found.b)} from {_of(found.a)}",
    }[_side(rate)]
    return (
        f"{said}: of {found.pairs - found.unparsed:,} pairs {found.wins:,} won, {found.ties:,} "
        f"tied, {found.losses:,} lost, a win rate of {_percent(rate)} with a tie counted half. A "
        "win counts only if both orders say so."
    )


def _length_controlled_sentence(rate: Estimate, controlled: Estimate) -> str:
    before, after = _side(rate), _side(controlled)
    so = ""
    if before and not after:
        so = ", so the preference may be no more than one for length"
    elif after and after != before:
        so = ", so differences in length hid or turned the preference"
    return f"With answers of equal length the win rate would be {_percent(controlled)}{so}."


def _consistency_sentence(consistency: Estimate) -> str:
    so = ""
    if consistency.high < 50:
        so = "; it contradicts itself more often than not, and its win rate says little"
    return (
        "Asked again with the answers exchanged, the judge said the same of "
        f"{_percent(consistency)} of the pairs{so}."
    )


def _position_sentence(found: PairwiseSummary, bias: Estimate) -> str:
    first = Estimate(value=50 + bias.value, low=50 + bias.low, high=50 + bias.high)
    if found.favoured_place is None:
        return (
            "No position bias can be told: of the verdicts that were for one side, "
            f"{_percent(first)} went to the answer shown first."
        )
    favoured = first
    if found.favoured_place == "second":
        favoured = Estimate(value=100 - first.value, low=100 - first.high, high=100 - first.low)
    return (
        f"Position bias: the judge prefers the answer shown {found.favoured_place}. "
        f"{_percent(favoured)} of its verdicts for one side went there (50 % is fair), so in a "
        "single order the place would sway the outcome. Here each pair was shown in both orders, "
        "which turns such verdicts into ties and draws the win rate towards 50 %."
    )


def _length_sentence(found: PairwiseSummary, effect: Estimate) -> str:
    if found.favoured_length is None:
        return "No length bias can be told: what length does to a win lies within chance."
    sign = 1 if found.favoured_length == "longer" else -1
    ends = sorted(_odds(sign * end) for end in (effect.low, effect.high))
    return (
        f"Length bias: the judge prefers the {found.favoured_length} answer. Being much "
        f"{found.favoured_length} multiplies the odds of winning by "
        f"{_factor(_odds(sign * effect.value))} ({_factor(ends[0])} to {_factor(ends[1])}), so "
        "read the win rate at equal length."
    )


def _odds(logarithm: float) -> float:
    return math.exp(min(logarithm, 50.0))


def _factor(odds: float) -> str:
    return f"over {_LARGEST_ODDS:,}" if odds > _LARGEST_ODDS else number(odds)


def _unread_sentence(found: PairwiseSummary) -> str:
    causes = []
    if found.unparsed_verdicts:
        causes.append(f"{found.unparsed_verdicts:,} replies held no readable verdict")
    if found.unasked_verdicts:
        causes.append(f"{found.unasked_verdicts:,} prompts were longer than the judge's context")
    return (
        f"{found.unparsed:,} of {found.pairs:,} pairs are in no count above: "
        f"{' and '.join(causes)}."
    )


def _grade_sentence(found: GradeSummary) -> str:
    left = found.n - found.graded
    unread = f"; {left:,} of {found.n:,} have no readable grade" if left else ""
    if found.acceptable is None:
        return f"Of {_of(found.system)} no grade could be read."
    return (
        f"The judge puts {_percent(found.acceptable)} of {_of(found.system)} at level A or B"
        f"{unread}."
    )


def _of(system: str) -> str:
    return {
        "tuned": "the tuned model's answers",
        "base-stopped": "the stop-controlled base's",
    }.get(system, f"the answers of {system}")


def _side(rate: Estimate) -> int:
    if rate.low <= 50 <= rate.high:
        return 0
    return 1 if rate.low > 50 else -1


def _percent(rate: Estimate) -> str:
    return f"{number(rate.value)} % ({number(rate.low)} to {number(rate.high)})"


def _match_plot(judged: Sequence[JudgedSuite], key: str) -> Plot | None:
    found = [(j.round, p) for j in judged if (p := j.judgement.pairwise) and p.win_rate]
    if not found:
        return None
    bars = []
    for round_number, pairwise in found:
        counts = (pairwise.wins, pairwise.ties, pairwise.losses)
        bars.append(
            Bar(
                label=f"round {round_number}",
                parts=tuple(100 * count / sum(counts) for count in counts),
                figures=tuple(f"{count:,}" for count in counts),
                interval=BarInterval(*_ends(pairwise.win_rate)) if pairwise.win_rate else None,
            )
        )
    confidence = f"{100 * found[0][1].confidence:g} %"
    caption = (
        "Pairs that the tuned model won, tied and lost against the stop-controlled base; the "
        "figures are pairs. Pairs without a readable verdict are left out. The mark under each "
        f"bar is the win rate, a tie counted half, with its {confidence} interval: clear of 50, "
        "the judge has a preference."
    )
    return stacked_plot(
        key,
        "Won, tied and lost by the judge's word",
        bars,
        MATCH_PARTS,
        "% of judged pairs",
        caption,
    )


def _grade_plot(grades: Sequence[GradeSummary], key: str) -> Plot | None:
    bars = []
    for grade in grades:
        if not grade.graded:
            continue
        counts = (grade.a, grade.b, grade.c, grade.d)
        bars.append(
            Bar(
                label=f"{system_label(grade.system)} ({grade.graded:,})",
                parts=tuple(100 * count / grade.graded for count in counts),
                figures=tuple(share(count, grade.graded) for count in counts),
                interval=BarInterval(*_ends(grade.acceptable)) if grade.acceptable else None,
            )
        )
    if not bars:
        return None
    caption = (
        "Levels that the judge gave, from A (right and satisfying) to D (irrelevant or invalid); "
        "in brackets: graded answers. The mark under each bar is the share of A and B together "
        f"with its {100 * grades[0].confidence:g} % interval."
    )
    return stacked_plot(
        key, "Levels by the judge's word", bars, GRADE_PARTS, "% of graded answers", caption
    )


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
