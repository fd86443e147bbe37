"""Does a passage say what an answer says? The writer is asked, and says Yes or No.

For answers in other words than those of the passage. The log-probabilities of Yes and No are held
against each other, and the line between them is calibrated on the pack's own demonstrations, each
asked about while only the others are shown.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.calibration import CONTENT_FREE, Calibration, calibrate
from selfinstruct_train.generation.fitting import score_few_shot
from selfinstruct_train.generation.passage_prompts import span
from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.judging.arbiter import fitted_prefix
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import SeedTask

_ANSWERS = 2
"""Of a demonstration: one that the passage says, and one that it does not."""


class Claim(NamedTuple):
    """An answer to a question about a passage."""

    passage: str
    question: str
    answer: str


class Entailment:
    """Asks the writer few-shot, whatever style it writes in; never an adapter."""

    def __init__(self, engine: Engine, pack: Pack) -> None:
        self._engine, self._wording, self._tasks = engine, pack.wording, pack.entailment

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Margin above which a passage counts as saying it.

        Raises:
            EngineError: the engine failed or gives no log-probabilities.
        """
        asked, labels = [], []
        for left_out, task in enumerate(self._tasks):
            prefix = self._prefix([*self._tasks[:left_out], *self._tasks[left_out + 1 :]])
            for claim, label in zip(_claims(task), (True, False), strict=True):
                asked.append((prefix, _question(self._wording, claim)))
                labels.append(label)
        free = [
            (self._all, _question(self._wording, Claim(text, text, text))) for text in CONTENT_FREE
        ]
        margins = self._score([*asked, *free])
        return calibrate(margins[: len(asked)], labels, margins[len(asked) :])

    @property
    def figures(self) -> dict[str, float | int | str | None]:
        """What the completion mark of step 1 keeps of it."""
        found = self.calibration
        return {
            "entailment_threshold": found.threshold,
            "entailment_recall_on_pack": found.recall,
            "entailment_precision_on_pack": found.precision,
            "entailment_auc_on_pack": found.auc,
        }

    def margins(self, claims: Sequence[Claim]) -> list[float | None]:
        """Log P(Yes) - log P(No) for each claim; None where the context has no room for it.

        Raises:
            EngineError: the engine failed or gives no log-probabilities.
        """
        if not claims:
            return []
        wording = self._wording
        questions = [_question(wording, claim) for claim in claims]
        whole = [f"{self._all}{question}{wording.gap}{wording.yes}" for question in questions]
        room = self._engine.context_length
        fits = [tokens <= room for tokens in self._engine.count_tokens(whole)]
        asked = [(self._all, one) for one, fit in zip(questions, fits, strict=True) if fit]
        found = iter(self._score(asked))
        return [next(found) if fit else None for fit in fits]

    @functools.cached_property
    def _all(self) -> str:
        return self._prefix(self._tasks)

    def _prefix(self, tasks: Sequence[SeedTask]) -> str:
        wording, shown = self._wording, []
        for place, task in enumerate(tasks):
            pair = [
                f"{_question(wording, claim)}{wording.gap}{said}\n"
                for claim, said in zip(_claims(task), (wording.yes, wording.no), strict=True)
            ]
            # Right and wrong take turns in coming first, lest their order be what is learned.
            shown += pair if place % 2 == 0 else pair[::-1]
        return fitted_prefix(self._engine, wording.entailment_header, shown)

    def _score(self, asked: Sequence[tuple[str, str]]) -> list[float]:
        wording = self._wording
        said = [f"{wording.gap}{wording.yes}", f"{wording.gap}{wording.no}"]
        return [yes - no for yes, no in score_few_shot(self._engine, asked, said)]


def require_entailment(pack: Pack, name: str) -> None:
    """See that a pack can ask whether a passage says what an answer says.

    Raises:
        ConfigError: it has no demonstrations of it, or one that shows something else.
    """
    if not pack.entailment:
        raise ConfigError(
            f"generation.passages.answers: the pack '{name}' has no entailment.jsonl; write one, "
            "as that of the pack en, or set answers=exact_span"
        )
    if faults := entailment_faults(pack):
        raise ConfigError(f"{name}/{faults[0]}")


def entailment_faults(pack: Pack) -> list[str]:
    """What is wrong with a pack's demonstrations, a sentence each."""
    return [
        f"entailment.jsonl: '{task.id}' must have two instances of one input, the first with an "
        "output that it says in other words, the second with one that it does not say, and neither "
        "word for word"
        for task in pack.entailment
        if len(task.instances) != _ANSWERS
        or len({one.input for one in task.instances}) > 1
        or any(span(one.output, one.input) for one in task.instances)
    ]


def _claims(task: SeedTask) -> list[Claim]:
    return [Claim(one.input, task.instruction, one.output) for one in task.instances]


def _question(wording: Wording, claim: Claim) -> str:
    lines = (
        (wording.passage, claim.passage),
        (wording.question, one_line(claim.question)),
        (wording.answer, one_line(claim.answer)),
    )
    said = "".join(f"{label}{wording.gap}{text}\n" for label, text in lines)
    return f"\n{said}{wording.entailment}"
