"""A model as the judge: of two answers side by side, asked in both orders; or of one, by level."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

from selfinstruct_train.config import JudgeConfig
from selfinstruct_train.engines.asking import ask_rows
from selfinstruct_train.engines.base import Completion, Engine, Request
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.judging.results import GradeVerdict, Level, PairVerdict, Preference
from selfinstruct_train.packs.pack import judge_prompt_file, load_pack_file
from selfinstruct_train.packs.parts import JudgeMarks
from selfinstruct_train.progress import Report
from selfinstruct_train.records import Prediction, Sampling
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.text.words import count_words

_PAIRWISE_FIELDS = ("instruction", "input", "first", "second")
_GRADE_FIELDS = ("instruction", "input", "answer")
_FIELD = re.compile(r"\{(\w+)\}")
_COLONS = ":："
_ENGLISH = JudgeMarks()
_LEVELS: tuple[Level, ...] = get_args(Level)
MeaningT = TypeVar("MeaningT")
VerdictT = TypeVar("VerdictT", PairVerdict, GradeVerdict)


class JudgePrompts(NamedTuple):
    """The judge's prompts, with fields in braces, and what it is told to say."""

    pairwise: str
    grade: str
    marks: JudgeMarks


class Judge(NamedTuple):
    """Who judges, and how it is asked."""

    name: str
    engine: Engine
    prompts: JudgePrompts
    max_tokens: int
    frame: Callable[[str], str] = str
    """Puts a prompt into the judge's chat template, where it is asked in one."""


class Answers(NamedTuple):
    """A system's answers to a suite, in its order."""

    name: str
    predictions: tuple[Prediction, ...]


class _JudgeQuestion(NamedTuple):
    request: Request
    asked: str


def load_judge_prompts(config: JudgeConfig, pack: str) -> JudgePrompts:
    """Read the prompts that the config names, or those of the pack.

    Raises:
        ConfigError: the pack does not exist, or a file is missing, lacks a field or has an unknown
            one.
    """
    return JudgePrompts(
        _read_prompt(
            config.pairwise_prompt or judge_prompt_file(pack, "pairwise"), _PAIRWISE_FIELDS
        ),
        _read_prompt(config.grade_prompt or judge_prompt_file(pack, "grade"), _GRADE_FIELDS),
        load_pack_file(pack).judge,
    )


def judge_pairs(
    judge: Judge,
    store: RowStore[PairVerdict],
    suite: str,
    a: Answers,
    b: Answers,
    report: Report,
) -> tuple[PairVerdict, ...]:
    """Ask which answer is better, twice for each pair: A first, then B first.

    Equal answers are asked about too: what a judge says to them is its bias alone.

    Args:
        judge: who is asked, greedily.
        store: where verdicts are kept; those in it are not asked for again.
        suite: the name of what both have answered.
        a: one system's answers.
        b: the other's.
        report: is told how far it is.

    Returns:
        Two verdicts for each instance of the suite, in its order.

    Raises:
        RunError: stored verdicts are those of another judge, prompt or answer.
        EngineError: the engine failed.
    """
    questions, sides = [], []
    for number, (one, other) in enumerate(zip(a.predictions, b.predictions, strict=True)):
        both = (one, other, (a.name, b.name)), (other, one, (b.name, a.name))
        for first, second, names in both:
            prompt = _fill(
                judge.prompts.pairwise,
                instruction=one.instruction,
                input=one.input,
                first=first.response,
                second=second.response,
            )
            row_id = f"judge-{suite}-{names[0]}-{names[1]}-{number:06d}"
            questions.append(_question(judge, row_id, prompt))
            sides.append((one.task_id, names, first, second))

    def verdict(place: int, completion: Completion | None) -> PairVerdict:
        task_id, names, first, second = sides[place]
        text = completion.text if completion else ""
        return PairVerdict(
            id=questions[place].request.id,
            task_id=task_id,
            first=names[0],
            second=names[1],
            first_words=count_words(first.response),
            second_words=count_words(second.response),
            choice=read_choice(text, judge.prompts.marks),
            text=text,
            finish_reason=completion.finish_reason if completion else None,
            asked=questions[place].asked,
        )

    return _ask(judge, store, questions, verdict, f"judging {suite}", report)


def grade_answers(
    judge: Judge, store: RowStore[GradeVerdict], suite: str, answers: Answers, report: Report
) -> tuple[GradeVerdict, ...]:
    """Ask for the level of each answer, A to D, the scale of the paper's human evaluation.

    Args:
        judge: who is asked, greedily.
        store: where verdicts are kept; those in it are not asked for again.
        suite: the name of what was answered.
        answers: a system's answers.
        report: is told how far it is.

    Returns:
        A verdict for each instance of the suite, in its order.

    Raises:
        RunError: stored verdicts are those of another judge, prompt or answer.
        EngineError: the engine failed.
    """
    questions = [
        _question(
            judge,
            f"grade-{suite}-{answers.name}-{number:06d}",
            _fill(judge.prompts.grade, instruction=p.instruction, input=p.input, answer=p.response),
        )
        for number, p in enumerate(answers.predictions)
    ]

    def verdict(place: int, completion: Completion | None) -> GradeVerdict:
        text = completion.text if completion else ""
        return GradeVerdict(
            id=questions[place].request.id,
            task_id=answers.predictions[place].task_id,
            system=answers.name,
            level=read_level(text, judge.prompts.marks),
            text=text,
            finish_reason=completion.finish_reason if completion else None,
            asked=questions[place].asked,
        )

    stage = f"grading {suite}, {answers.name}"
    return _ask(judge, store, questions, verdict, stage, report)


def read_choice(text: str, marks: JudgeMarks = _ENGLISH) -> Preference | None:
    """The verdict in a judge's text: the one thing that lines of nothing but a verdict say.

    None where there is no such line, or two contradict each other: a guess would be our verdict.

    Args:
        text: what the judge wrote.
        marks: what it was told to say; the English marks are read too, as a pack without prompts
            of its own has the English ones.
    """
    choices: dict[str, Preference] = {}
    for known in (_ENGLISH, marks):
        choices |= {known.first: "first", known.second: "second", known.tie: "tie"}
    return _sole(text, (_ENGLISH.verdict, marks.verdict), choices)


def read_level(text: str, marks: JudgeMarks = _ENGLISH) -> Level | None:
    """The level in a judge's text, read as strictly as `read_choice` reads."""
    levels: dict[str, Level] = {}
    for known in (_ENGLISH, marks):
        levels |= dict(zip(known.levels, _LEVELS, strict=True))
    return _sole(text, (_ENGLISH.grade, marks.grade), levels)


def _sole(text: str, labels: Sequence[str], meanings: Mapping[str, MeaningT]) -> MeaningT | None:
    """What the lines that are a mark and nothing else mean, a label before it or not."""
    by_mark = {mark.casefold(): meaning for mark, meaning in meanings.items()}
    stems = "|".join(re.escape(label.rstrip(_COLONS)) for label in labels)
    pattern = re.compile(rf"(?:(?:{stems})\s*[{_COLONS}])?\s*(.+)", re.IGNORECASE)
    matches = [pattern.fullmatch(line.strip()) for line in text.splitlines()]
    found = [by_mark.get(match[1].casefold()) for match in matches if match]
    said = {meaning for meaning in found if meaning is not None}
    return said.pop() if len(said) == 1 else None


def _ask(
    judge: Judge,
    store: RowStore[VerdictT],
    questions: Sequence[_JudgeQuestion],
    verdict: Callable[[int, Completion | None], VerdictT],
    stage: str,
    report: Report,
) -> tuple[VerdictT, ...]:
    rows = store.read()
    _require_same(store.path, rows, questions)
    requests = [question.request for question in questions]
    # A verdict that is cut off says nothing: there must be room for all of it.
    return ask_rows(
        judge.engine, store, rows, requests, verdict, report, stage, room=judge.max_tokens
    )


def _require_same(
    path: Path, rows: Sequence[VerdictT], questions: Sequence[_JudgeQuestion]
) -> None:
    for number, row in enumerate(rows, 1):
        question = questions[number - 1] if number <= len(questions) else None
        if question is None or (row.id, row.asked) != (question.request.id, question.asked):
            raise RunError(
                f"{path}, line {number}: a verdict of another judge or prompt, or on another "
                "answer; restore the setting, name another folder, or delete this file to have "
                "everything judged again"
            )


def _question(judge: Judge, row_id: str, prompt: str) -> _JudgeQuestion:
    sampling = Sampling(max_tokens=judge.max_tokens)
    framed = judge.frame(prompt)
    text = "\x1f".join((framed, sampling.model_dump_json(), judge.name))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return _JudgeQuestion(Request(row_id, framed, sampling), digest)


def _fill(prompt: str, **fields: str) -> str:
    # In one pass: braces within an answer are the answer's.
    return _FIELD.sub(lambda match: fields[match[1]], prompt)


def _read_prompt(path: Path, fields: tuple[str, ...]) -> str:
    try:
        text = path.read_text("utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the judge's prompt cannot be read ({error})") from None
    found = set(_FIELD.findall(text))
    wrong = [f"lacks {{{name}}}" for name in fields if name not in found]
    wrong += [f"has an unknown {{{name}}}" for name in sorted(found - set(fields))]
    if wrong:
        known = ", ".join(f"{{{name}}}" for name in fields)
        raise ConfigError(f"{path}: the judge's prompt {', '.join(wrong)}; it must hold {known}")
    return text
