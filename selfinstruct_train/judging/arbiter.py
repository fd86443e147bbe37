"""The arbiter: a model says how right an answer is, by the log-probabilities of Yes and No."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import SeedTask


class Counting(Protocol):
    """What is known of a context without asking a model: an engine, as a rule."""

    @property
    def context_length(self) -> int:
        """In tokens."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...


class Answered(NamedTuple):
    """An answer, and what it answers."""

    instruction: str
    input: str
    output: str


class Arbiter:
    """Asks a model few-shot whether an answer is right and complete.

    The demonstrations are the pack's own tasks: each once with its own answer, which is right, and
    once with that of another, which is not.
    """

    def __init__(self, engine: Engine, pack: Pack) -> None:
        self._engine = engine
        self._wording = pack.wording
        self._prefix = arbiter_prefix(engine, pack.wording, pack.input_first)

    def fits(self, answers: Sequence[Answered]) -> list[bool]:
        """Whether the context has room for the question about each answer."""
        wording = self._wording
        asked = [
            f"{self._prefix}{question_about(wording, a)}{wording.gap}{wording.yes}" for a in answers
        ]
        room = self._engine.context_length
        return [tokens <= room for tokens in self._engine.count_tokens(asked)]

    def margins(self, answers: Sequence[Answered]) -> list[float]:
        """Log P(Yes) - log P(No) for each answer; the higher, the better it is held to be.

        Raises:
            EngineError: the engine failed or gives no log-probabilities.
        """
        if not answers:
            return []
        wording = self._wording
        rows = self._engine.score(
            self._prefix,
            [question_about(wording, answer) for answer in answers],
            [f"{wording.gap}{wording.yes}", f"{wording.gap}{wording.no}"],
        )
        return [yes - no for yes, no in rows]


def arbiter_prefix(counting: Counting, wording: Wording, tasks: Sequence[SeedTask]) -> str:
    """Header and as many demonstrations as half of the context has room for."""
    shown: list[str] = []
    for i, task in enumerate(tasks):
        own, other = task.instances[0], tasks[(i + 1) % len(tasks)].instances[0]
        right = Answered(task.instruction, own.input, own.output)
        wrong = right._replace(output=other.output)
        # Right and wrong take turns in coming first, lest their order be what is learned.
        pair = [
            f"{question_about(wording, right)}{wording.gap}{wording.yes}\n",
            f"{question_about(wording, wrong)}{wording.gap}{wording.no}\n",
        ]
        shown += pair if i % 2 == 0 else reversed(pair)
    return fitted_prefix(counting, wording.arbiter_header, shown)


def fitted_prefix(counting: Counting, header: str, shown: Sequence[str]) -> str:
    """Header and as many pairs of demonstrations, the last ones, as half of the context holds.

    Args:
        counting: whose context.
        header: opens the prompt.
        shown: two texts for each demonstration, one that is answered Yes and one No.
    """
    for first in range(0, len(shown), 2):
        prefix = "".join((header, "\n", *shown[first:]))
        if counting.count_tokens([prefix])[0] * 2 <= counting.context_length:
            return prefix
    return header + "\n"


def question_about(wording: Wording, answer: Answered) -> str:
    """What is asked about an answer, after the demonstrations."""
    instruction = " ".join(answer.instruction.split())
    given = f"{wording.input}{wording.gap}{answer.input}\n" if answer.input else ""
    return (
        f"\n{wording.task}{wording.gap}{instruction}\n{given}{wording.output}{wording.gap}{answer.output}\n"
        f"{wording.arbiter}"
    )
