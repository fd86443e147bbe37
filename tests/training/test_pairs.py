"""Pairs of answers: how they are made, and that neither side is longer on average."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_train.records import DrawnAnswers, PreferencePair, TrainingRow
from selfinstruct_train.text.words import count_words
from selfinstruct_train.training.pairs import (
    balance_lengths,
    pairs_from_answers,
    pairs_from_draws,
)


def drawn(
    answers: Sequence[str], scores: Sequence[float | None], chosen: int | None, row: str = "a"
) -> DrawnAnswers:
    return DrawnAnswers(
        id=row,
        instruction="Name a city.",
        input="",
        answers=tuple(answers),
        scores=tuple(scores),
        chosen=chosen,
        chooser="majority",
    )


def made(row: DrawnAnswers, output: str | None = "Paris") -> list[tuple[str, str]]:
    outputs = {} if output is None else {"a": output}
    return [(pair.chosen, pair.rejected) for pair in pairs_from_draws([row], outputs)]


def test_the_kept_answer_is_preferred_to_the_worst_that_says_something_else() -> None:
    row = drawn(("Paris", "Rome", "paris!", "Oslo", "…"), (0.6, 0.2, 0.1, 0.2, None), 0)
    assert made(row) == [("Paris", "Rome")]


@pytest.mark.parametrize(
    ("row", "output"),
    [
        (drawn(("Paris", "Rome"), (0.5, 0.5), 0), "Paris"),  # the chooser sees no difference
        (drawn(("Paris", "PARIS."), (0.9, 0.1), 0), "Paris"),  # nor would a reader
        (drawn(("Paris", "Rome"), (0.9, None), 0), "Paris"),  # cut: nobody said it
        (drawn(("Paris", "Rome"), (0.9, 0.1), None), "Paris"),  # nothing was kept
        (drawn(("Paris", "Rome"), (0.9, 0.1), 0), "Lyon"),  # the row has another answer now
        (drawn(("Paris", "Rome"), (0.9, 0.1), 0), None),  # the row is live no more
    ],
)
def test_no_pair_is_made_of_answers_that_do_not_differ_or_are_not_trained_on(
    row: DrawnAnswers, output: str | None
) -> None:
    assert made(row, output) == []


def test_an_earlier_model_loses_where_it_says_something_else() -> None:
    rows = [
        TrainingRow(
            id=str(i),
            source="generated",
            instruction="Name a city.",
            input="",
            output="Paris",
            is_classification=False,
        )
        for i in range(3)
    ]
    pairs = list(pairs_from_answers(rows, ["paris.", "", "Rome"]))
    assert [(pair.id, pair.chosen, pair.rejected) for pair in pairs] == [("2", "Paris", "Rome")]


def pair_of(words: tuple[int, int], number: int) -> PreferencePair:
    return PreferencePair(
        id=str(number),
        source="drawn",
        instruction="i",
        input="",
        chosen=" ".join(["x"] * words[0]),
        rejected=" ".join(["y"] * words[1]),
    )


def gap(pairs: Sequence[PreferencePair]) -> int:
    return sum(count_words(pair.chosen) - count_words(pair.rejected) for pair in pairs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=40))
def test_what_is_left_is_as_balanced_as_leaving_out_can_make_it(
    lengths: list[tuple[int, int]],
) -> None:
    pairs = [pair_of(words, i) for i, words in enumerate(lengths)]
    balanced = balance_lengths(pairs)
    assert list(balanced.kept) == [pair for pair in pairs if pair in set(balanced.kept)]
    assert len(balanced.kept) + balanced.left_out == len(pairs)
    assert abs(gap(balanced.kept)) <= abs(gap(pairs))
    # One more of the same kind would turn it round.
    for pair in balanced.kept:
        step = gap([pair])
        if step * gap(balanced.kept) > 0:
            assert abs(step) > abs(gap(balanced.kept))
    # Equal lengths lose nothing.
    assert balance_lengths([p for p in pairs if gap([p]) == 0]).left_out == 0


def test_a_set_of_ever_longer_answers_is_cut_to_equal_lengths() -> None:
    lengths = [(10, 2)] * 30 + [(2, 10)] * 10 + [(5, 5)] * 5
    balanced = balance_lengths([pair_of(words, i) for i, words in enumerate(lengths)])
    assert gap(balanced.kept) == 0 and balanced.left_out == 20
