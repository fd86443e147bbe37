"""What comes after a round? A pure function of what the rounds so far have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from selfinstruct_train.records import Comparison, Row


class RoundResult(Row):
    """What a finished round has shown."""

    number: int
    comparisons: tuple[Comparison, ...]
    """One for each suite it was evaluated on; empty where it was not evaluated."""


class Decision(Row):
    """decision.json: what the loop does after a round."""

    action: Literal["go_on", "stop"]
    """``go_on``: the next round, as long as the config asks for one."""
    reason: str
    """For the user, as the end of a sentence."""
    rolled_back: bool = False
    """The rows of this round are live no more: no later round reads or trains on them."""


def decide(history: Sequence[RoundResult]) -> Decision:
    """Say what follows the last round of a history.

    Args:
        history: the rounds so far, in order; nothing else bears on the decision.
    """
    return Decision(action="go_on", reason="no rule ends a run before its last round")
