"""The answers of all systems to the same question, side by side."""

from __future__ import annotations

import math
from typing import NamedTuple

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.metrics import AnswerScores, rouge_l, score_answers
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import Prediction
from selfinstruct_train.report.suite_facts import SuiteFacts
from selfinstruct_train.report.wording import clip, spread
from selfinstruct_train.templates import cut_at_new_example

MOST_QUESTIONS = 400
"""Questions that one page can hold and still open at once."""
LONGEST = 1500
"""Characters of a text that are shown."""

_LABELS = {
    "base": "Base",
    "base-stopped": "Base, stop-controlled",
    "base-few-shot": "Base, few-shot",
    "seeds-only": "Tuned on seeds only",
    "tuned": "Tuned",
}


class Answer(NamedTuple):
    """What one system answered."""

    label: str
    text: str
    rest: str
    """What the base wrote after it began another example; empty where it did not."""
    rouge_l: float
    verdict: str | None
    """``right`` or ``wrong`` by the oracle; None where it has no say."""


class AnsweredQuestion(NamedTuple):
    """One item of a suite and all answers to it."""

    task_id: str
    group: str
    """The application; empty where unknown."""
    instruction: str
    input: str
    reference: str
    answers: tuple[Answer, ...]
    gain: float | None
    """Tuned model's ROUGE-L less the stop-controlled base's; None where one of them is missing."""

    @property
    def fate(self) -> str:
        """``gained``, ``lost`` or ``same``; empty where there is nothing to compare."""
        if self.gain is None:
            return ""
        return "gained" if self.gain > 0 else "lost" if self.gain < 0 else "same"


class SideBySide(NamedTuple):
    """The questions of a suite that the page shows."""

    questions: tuple[AnsweredQuestion, ...]
    total: int
    """Questions of the suite, shown or not."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The applications, in alphabetical order."""
        return tuple(sorted({question.group for question in self.questions} - {""}))


def system_label(system: str) -> str:
    """A system's name as a heading."""
    kind, mark, steps = system.rpartition("-steps-")
    return f"{_LABELS[kind]}, {steps} steps" if mark else _LABELS.get(system, system)


def side_by_side(facts: SuiteFacts, form: AnswerFormat) -> SideBySide:
    """Put the answers of the best round of a suite side by side."""
    suite = _suite(facts)
    groups = {(i.task_id, i.input): i.group for i in suite.items} if suite else {}
    rows = {s: {(p.task_id, p.input): p for p in found} for s, found in facts.answers.items()}
    keys = list(dict.fromkeys(key for found in rows.values() for key in found))
    questions = []
    for key in spread(keys, MOST_QUESTIONS):
        found = {s: by_key[key] for s, by_key in rows.items() if key in by_key}
        answers = {s: _answer(s, prediction, suite, form) for s, prediction in found.items()}
        one = next(iter(found.values()))
        gain = None
        if "base" in answers and "tuned" in answers:
            difference = answers["tuned"].rouge_l - answers["base"].rouge_l
            gain = None if math.isnan(difference) else difference
        questions.append(
            AnsweredQuestion(
                one.task_id,
                groups.get(key, ""),
                one.instruction,
                one.input,
                one.target,
                tuple(answers.values()),
                gain,
            )
        )
    return SideBySide(tuple(questions), len(keys))


def _suite(facts: SuiteFacts) -> Suite | None:
    """The suite itself; None where it has been moved since the run."""
    try:
        return load_suite(facts.source)
    except DataError:
        return None


def _answer(system: str, prediction: Prediction, suite: Suite | None, form: AnswerFormat) -> Answer:
    text = prediction.response
    if system == "base":
        text, system = cut_at_new_example(text, form), "base-stopped"
    judged = prediction.model_copy(update={"response": text})
    scores = score_answers([judged], suite) if suite is not None else None
    return Answer(
        label=system_label(system),
        text=clip(text, LONGEST),
        rest=clip(prediction.response[len(text) :].strip(), LONGEST),
        rouge_l=float(scores.rouge_l[0]) if scores else rouge_l(text, prediction.target),
        verdict=_verdict(scores),
    )


def _verdict(scores: AnswerScores | None) -> str | None:
    if scores is None or scores.oracle_accuracy is None or math.isnan(scores.oracle_accuracy[0]):
        return None
    return "right" if scores.oracle_accuracy[0] else "wrong"
