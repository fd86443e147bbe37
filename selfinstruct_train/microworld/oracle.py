"""Judging answers to instructions of the microworld, whatever their dress."""

from __future__ import annotations

from typing import Literal

from selfinstruct_train.microworld.instructions import parse

Verdict = Literal["right", "wrong", "unknown"]


def expected(instruction: str, input_text: str) -> tuple[str, ...]:
    """Every right answer, the best first; empty if the question is not of the microworld."""
    composed = parse(instruction)
    return composed.answers(input_text) if composed else ()


def judge(instruction: str, input_text: str, answer: str) -> Verdict:
    """Whether the answer is right, outer white space aside; unknown where the oracle has no say."""
    right = expected(instruction, input_text)
    if not right:
        return "unknown"
    return "right" if answer.strip() in right else "wrong"


def is_classification(instruction: str) -> bool | None:
    """Whether the answers form a closed set; None if the instruction is not of the microworld."""
    composed = parse(instruction)
    return composed.family.is_classification if composed else None
