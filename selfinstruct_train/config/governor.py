"""Settings of the governor, which decides what follows a round."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfinstruct_train.bounds import Float, Fraction
from selfinstruct_train.config.section import Section


class GovernorConfig(Section):
    """What follows a round, decided once it is evaluated; ``rounds`` is the most there are."""

    policy: Literal["every_round", "gain"] = "every_round"
    """``every_round``: the rows of all rounds count, whatever they show. ``gain``: a round counts
    if its tuned model surely beats the best one before it (the lower end of the paired interval on
    the suite that chooses is above 0; before the first round that is the stop-controlled base) and
    keeps the limits below. Else it is rolled back: later rounds neither read nor train on its rows.
    """
    after_rollback: Literal["go_on", "stop"] = "go_on"
    """Write another round in place of the one that is rolled back, or end the run there."""
    max_held_out_rise: Float | None = Field(default=0.1, ge=0.0)
    """Most that tuning may add to the loss on ``evaluation.held_out_text``, in nats per token,
    where that is measured; null sets no limit, here and below."""
    min_diversity: Fraction | None = 0.35
    """Least diversity of the round's instructions: 1 minus the mean ROUGE-L with the nearest
    instruction before."""
    max_length_ratio: Float | None = Field(default=1.5, gt=0.0)
    """Longest mean answer on the suite that chooses, as a multiple of the best round's before."""
    max_accepted_fall: Fraction | None = 0.1
    """Most that the share of candidate rows that the filters keep may fall below that of the best
    round before."""
