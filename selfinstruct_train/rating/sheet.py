"""What a rater is asked: the questions of a run and the answers of its models, blinded."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import NamedTuple

from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.compare import best_training
from selfinstruct_train.evaluation.suites import suite_name
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import Prediction
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.templates import cut_at_new_example

_STORED = ("base", "base-few-shot", "seeds-only", "tuned")


class RatingItem(NamedTuple):
    """A text that at least one model answered with."""

    id: str
    """Follows from the question and the text alone, so that it betrays no model."""
    systems: tuple[str, ...]
    """All models that answered exactly this: it is graded once, and the grade counts for each."""
    text: str


class RatedQuestion(NamedTuple):
    """One instance of a suite, and what the models answered."""

    id: str
    suite: str
    round: int
    """The round whose answers these are."""
    task_id: str
    instruction: str
    input: str
    candidates: tuple[RatingItem, ...]

    def shuffled(self, rater: str) -> tuple[RatingItem, ...]:
        """The candidates in an order that is this rater's own and the same at every visit."""
        found = list(self.candidates)
        random.Random(f"{rater}\x1f{self.id}").shuffle(found)
        return tuple(found)


def read_questions(run: RunDirectory) -> tuple[RatedQuestion, ...]:
    """The questions of every evaluated suite, with the answers of its best round.

    The base is shown as stop-controlled, cut where it begins another example: what follows there
    would give it away. Questions stand in a mixed order that is the same for all raters, so that
    those who stop early have graded the same fair sample.

    Raises:
        RunError: the folder is not a run, or nothing of it was evaluated.
        DataError: a stored row cannot be read.
    """
    questions: list[RatedQuestion] = []
    config = run.config()
    evaluation, form = config.evaluation, load_answers(config.generation.prompts)
    for name in map(suite_name, evaluation.suites):
        best = best_training(run.rounds(), evaluation, name)
        if best is not None:
            questions += _suite_questions(name, best.round, best.directory, form)
    if not questions:
        raise RunError(
            f"{run.path}: no answers to rate; run 'selfinstruct evaluate' with this run first"
        )
    return tuple(sorted(questions, key=lambda question: question.id))


def _suite_questions(
    suite: str, number: int, directory: RoundDirectory, form: AnswerFormat
) -> list[RatedQuestion]:
    folder = directory.evaluation(suite)
    shown: dict[tuple[str, str], Prediction] = {}
    answers: dict[tuple[str, str], dict[str, str]] = {}
    for system in _STORED:
        for row in directory.store(folder / f"{system}.jsonl", Prediction).read():
            key = row.task_id, row.input
            shown.setdefault(key, row)
            if system == "base":
                answers.setdefault(key, {})["base-stopped"] = cut_at_new_example(row.response, form)
            else:
                answers.setdefault(key, {})[system] = row.response
    return [_question(suite, number, shown[key], by_system) for key, by_system in answers.items()]


def _question(
    suite: str, number: int, row: Prediction, answers: Mapping[str, str]
) -> RatedQuestion:
    question = _digest(suite, str(number), row.task_id, row.input)
    systems: dict[str, list[str]] = {}
    for system, text in answers.items():
        systems.setdefault(text, []).append(system)
    candidates = tuple(
        RatingItem(_digest(question, text), tuple(names), text) for text, names in systems.items()
    )
    return RatedQuestion(
        question, suite, number, row.task_id, row.instruction, row.input, candidates
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
