"""What comes after a round? A pure function of what the rounds so far have shown.

Rounds of self-training gain at first and then lose (SPIN, arXiv 2401.01335; the limits of
self-improvement, arXiv 2412.02674), so a round may have to show that it is worth its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from selfinstruct_train.config import GovernorConfig
from selfinstruct_train.records import PairedComparison, Row


class RoundResult(Row):
    """What a finished round has shown; None where it was not measured."""

    number: int
    rows: int = 0
    """Live training rows that it wrote."""
    accepted: float | None = None
    """Share of its candidate rows that the filters kept, 0 to 1."""
    diversity: float | None = None
    """1 minus the mean ROUGE-L of its instructions with the nearest before each, 0 to 1."""
    suite: str = ""
    """What chooses, in words; the next four are of it."""
    score: float | None = None
    """Mean ROUGE-L of the tuned model, x 100."""
    answer_words: float | None = None
    """Mean length of the tuned model's answers."""
    best_before: int | None = None
    """The best round before it that is not rolled back; None where there is none."""
    gain: PairedComparison | None = None
    """The tuned model against that of the best round before, else against the stop-controlled
    base."""
    held_out_rise: float | None = None
    """Loss on held-out text, tuned minus base, in nats per token."""


class Decision(Row):
    """decision.json: what the loop does after a round."""

    action: Literal["go_on", "stop"]
    """``go_on``: the next round, as long as the config asks for one."""
    reason: str
    """For the user, as the end of a sentence."""
    rolled_back: bool = False
    """The rows of this round are live no more: no later round reads or trains on them."""
    shown: RoundResult | None = None
    """What was decided on."""


def decide(history: Sequence[RoundResult], governor: GovernorConfig) -> Decision:
    """Say what follows the last round of a history.

    Args:
        history: the rounds so far, in order, at least one; with the settings, all that bears on
            the decision.
        governor: the rule and its limits.
    """
    last = history[-1]
    if governor.policy == "every_round":
        return Decision(action="go_on", reason="every round goes on", shown=last)
    if last.gain is None:
        return Decision(
            action="stop",
            reason="it is not evaluated on the suite that chooses, so whether its rows stay cannot "
            "be decided; use 'selfinstruct run'",
            shown=last,
        )
    before = next((row for row in history if row.number == last.best_before), None)
    faults = [*_no_gain(last, last.gain), *_limits_passed(last, before, governor)]
    if not faults:
        return Decision(action="go_on", reason=_figures(last, last.gain), shown=last)
    reason = "; ".join(faults)
    return Decision(action=governor.after_rollback, reason=reason, rolled_back=True, shown=last)


def _no_gain(last: RoundResult, gain: PairedComparison) -> Iterator[str]:
    if gain.ci_low <= 0:
        yield f"no sure gain: {_figures(last, gain)}"


def _limits_passed(
    last: RoundResult, before: RoundResult | None, governor: GovernorConfig
) -> Iterator[str]:
    rise, most = last.held_out_rise, governor.max_held_out_rise
    if rise is not None and most is not None and rise > most:
        yield f"the loss on held-out text rose by {rise:.3f} nats per token, limit {most:g}"
    diversity, least = last.diversity, governor.min_diversity
    if diversity is not None and least is not None and diversity < least:
        yield f"the diversity of its instructions is {diversity:.2f}, limit {least:g}"
    if before is None:
        return
    ratio = governor.max_length_ratio
    if last.answer_words and before.answer_words and ratio is not None:
        now = last.answer_words / before.answer_words
        if now > ratio:
            yield (
                f"its answers are {now:.2f} times as long as those of round {before.number}, limit "
                f"{ratio:g}"
            )
    fall, kept, kept_before = governor.max_accepted_fall, last.accepted, before.accepted
    if fall is None or kept is None or kept_before is None:
        return
    if kept_before - kept > fall:
        yield (
            f"{kept:.0%} of its candidates were kept and {kept_before:.0%} in round "
            f"{before.number}, limit {fall:.0%} less"
        )


def _figures(last: RoundResult, gain: PairedComparison) -> str:
    return (
        f"{gain.delta:+.1f} ROUGE-L against {gain.a} on {last.suite} (interval "
        f"{gain.ci_low:+.1f} to {gain.ci_high:+.1f})"
    )
