"""What drawing several answers came to, and what the training on pairs was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.microworld.oracle import judge
from selfinstruct_train.records import DrawnAnswers, PairCounts, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import RowStore, read_json
from selfinstruct_train.statistics import Interval, wilson_interval
from selfinstruct_train.templates import split_reasoning

_CONFIDENCE = 0.95


class Agreement(NamedTuple):
    """What the oracle of the microworld says of drawn answers, in shares from 0 to 1."""

    inputs: int
    """Inputs that it can judge and of which an answer was kept; the next three are of them."""
    drawn: float
    """Drawn answers that are right: what a single draw would have come to."""
    kept: Interval
    """Kept answers that are right."""
    reachable: float
    """Inputs with a right answer among those drawn: what the best chooser would have come to."""
    contested: int
    """Of the inputs, those of which right and wrong answers were drawn."""
    chosen_right: Interval | None
    """Of these, those of which a right one was kept; None where there are none."""
    dropped: int
    """Inputs that it can judge and of which no answer was kept."""
    dropped_right: float | None
    """Of the answers drawn for these, the right ones; None where there are none."""


class DrawFacts(NamedTuple):
    """The drawn answers of one round."""

    chooser: str
    inputs: int
    answers: int
    kept: int
    """Inputs of which an answer was kept."""
    tokens: int
    """Written for the answers."""
    agreement: Agreement | None
    """None where the oracle has no say on any of them."""


class PairFacts(NamedTuple):
    """The pairs that one training learned from."""

    training: str
    counts: PairCounts
    steps: tuple[TrainingStep, ...]
    tokens: int
    """Written to make them, the drawn answers aside."""


def read_draws(directory: RoundDirectory, label: str | None) -> DrawFacts | None:
    """Count the drawn answers of a round; None where none were drawn.

    Args:
        directory: of the round.
        label: stands between reasoning and answer, where rows show both.

    Raises:
        DataError: a row cannot be read.
    """
    inputs = answers = kept = 0
    chooser = ""

    def counted() -> Iterator[DrawnAnswers]:
        nonlocal inputs, answers, kept, chooser
        for row in RowStore(directory.drawn, DrawnAnswers, writable=False).stream():
            inputs += 1
            answers += len(row.answers)
            kept += row.chosen is not None
            chooser = row.chooser
            yield row

    agreement = agreement_of(counted(), label)
    if not inputs:
        return None
    journal = RowStore(directory.completions("instances"), StoredCompletion, writable=False)
    tokens = sum(row.completion_tokens for row in journal.stream() if "-draw-" in row.id)
    return DrawFacts(chooser, inputs, answers, kept, tokens, agreement)


def read_pairs(name: str, directory: RoundDirectory) -> PairFacts | None:
    """What a training on pairs was made of; None where there was none.

    Raises:
        DataError: a file is damaged.
    """
    path = directory.dataset / "pairs.json"
    if not path.exists():
        return None
    journal = RowStore(directory.completions("earlier_model"), StoredCompletion, writable=False)
    steps = RowStore(directory.training_steps, TrainingStep, writable=False).stream()
    return PairFacts(
        name,
        read_json(path, PairCounts, "add --redo train to the command"),
        tuple(step for step in steps if step.reward_accuracy is not None),
        sum(row.completion_tokens for row in journal.stream()),
    )


def agreement_of(rows: Iterable[DrawnAnswers], label: str | None = None) -> Agreement | None:
    """How often the chooser kept what the oracle holds right; None where it has no say."""

    def final(answer: str) -> str:
        return answer if label is None else split_reasoning(answer, label).answer or answer

    kept: list[_Judged] = []
    dropped: list[bool] = []
    without = 0
    for row in rows:
        verdicts = [judge(row.instruction, row.input, final(answer)) for answer in row.answers]
        if "unknown" in verdicts:
            continue
        right = tuple(verdict == "right" for verdict in verdicts)
        if row.chosen is None:
            without += 1
            dropped += right
        else:
            kept.append(_Judged(right, right[row.chosen]))
    if not kept:
        return None
    contested = [row for row in kept if len(set(row.right)) > 1]
    return Agreement(
        inputs=len(kept),
        drawn=_share([one for row in kept for one in row.right]),
        kept=_interval([row.chosen for row in kept]),
        reachable=_share([any(row.right) for row in kept]),
        contested=len(contested),
        chosen_right=_interval([row.chosen for row in contested]) if contested else None,
        dropped=without,
        dropped_right=_share(dropped) if dropped else None,
    )


class _Judged(NamedTuple):
    right: tuple[bool, ...]
    """Of each drawn answer."""
    chosen: bool
    """Whether the kept one is right."""


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)


def _interval(found: Sequence[bool]) -> Interval:
    return wilson_interval(_share(found), len(found), _CONFIDENCE)
