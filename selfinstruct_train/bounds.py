"""What figures may be, for the settings of a run and for the rows that repeat them alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

_LONGEST_LINE = 500
"""Characters of a text in a prompt: a description of a person is two or three sentences."""


def _number_from_text(value: object) -> object:
    # YAML 1.1 reads 2e-5 (no dot) as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _require_countable(count: int) -> int:
    if count >= 2**31:
        raise ValueError("should be less than 2147483648")
    return count


def _require_count_or_share(amount: int | float) -> int | float:
    if 1 <= amount < 2**31 if isinstance(amount, int) else 0.0 < amount <= 1.0:
        return amount
    raise ValueError("should be a whole number from 1, or a share above 0.0 and up to 1.0")


def _equal_weights(given: object) -> object:
    if not isinstance(given, list | tuple):
        return given
    if not all(isinstance(value, str | int | float) for value in given):
        raise ValueError("should be a list of texts, or texts with a weight each")
    return {str(value): 1.0 for value in given}


def _require_line(text: str) -> str:
    if not text.strip() or len(text) > _LONGEST_LINE or len(text.splitlines()) > 1:
        raise ValueError(f"should be one line of 1 to {_LONGEST_LINE} characters")
    return text.strip()


def _require_drawable(temperature: float) -> float:
    # Likelihoods divided by less than this overflow.
    if 0.0 < temperature < 0.01:
        raise ValueError("should be 0 (greedy) or at least 0.01")
    return temperature


Float = Annotated[float, BeforeValidator(_number_from_text), Field(allow_inf_nan=False)]
Fraction = Annotated[Float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1), AfterValidator(_require_countable)]
CountOrShare = Annotated[int | float, AfterValidator(_require_count_or_share)]
"""So many of something, or that share of it: 1 is one, 1.0 is all."""

Line = Annotated[str, AfterValidator(_require_line)]
"""Text that stands on a line of a prompt."""
Weights = Annotated[
    dict[Line, Annotated[Float, Field(gt=0.0)]],
    BeforeValidator(_equal_weights, json_schema_input_type=list[str] | dict[str, float]),
    Field(min_length=1),
]
"""What is drawn from, and how often each: two weights of 2 and 1 are two thirds and one third. A
list weighs all alike."""

Temperature = Annotated[Float, Field(ge=0.0, le=100.0), AfterValidator(_require_drawable)]
TopP = Annotated[Float, Field(gt=0.0, le=1.0)]
TopK = Annotated[int, Field(ge=0), AfterValidator(_require_countable)]
RepetitionPenalty = Annotated[Float, Field(ge=0.01, le=100.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""numpy takes no more."""
Seconds = Annotated[Float, Field(ge=0.01, le=86_400.0)]
"""Up to a day: clocks overflow on far longer waits."""
