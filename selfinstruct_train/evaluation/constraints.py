"""Constraints that an answer meets or not, told without a judge.

After IFEval (Zhou et al., arXiv 2311.07911), with its strict reading: the answer is taken as it is,
and a blank answer meets nothing. Wordings and tasks are a suite's own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

import regex
from pydantic import Field, field_validator, model_validator

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import EvalTask, Row
from selfinstruct_train.text.words import count_words

_SECONDS = 5.0
"""Most time that one pattern may take on one answer."""
_REPEATABLE = frozenset({"matches", "contains", "excludes"})
_SENTENCE_END = regex.compile(r"""(?<![.!?…])[.!?…]+["'”’)\]]*(?=\s|$)|[。！？]+|\n+""")
_LIST_ITEM = regex.compile(r"^[ \t]*(?:[-*•+]|\d+[.)])[ \t]+\S", regex.MULTILINE)
_WORD_CHARACTER = regex.compile(r"\w")


class StartsWith(Row):
    """The answer starts or ends with a text, case and all; white space around it does not count."""

    kind: Literal["starts_with", "ends_with"]
    text: str

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is blank, so every answer would meet it; give the text")
        return text.strip()


class IsJson(Row):
    """The whole answer is one JSON value, without a fence around it; NaN is none."""

    kind: Literal["json"]


class Matches(Row):
    """The whole answer, white space around it left out, matches a regular expression."""

    kind: Literal["matches"]
    pattern: str = Field(min_length=1, max_length=1000)
    """In the syntax of the ``regex`` package."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"is not a regular expression ({error}); fix it") from None
        return pattern


class HasCount(Row):
    """The answer has so many words (between white space), sentences, lines or list items.

    A sentence ends with its mark or with the line. A line that is blank does not count. A list item
    is a line that begins with ``-``, ``*``, ``+``, ``•``, ``1.`` or ``1)``.
    """

    kind: Literal["words", "sentences", "lines", "list_items"]
    at_least: int | None = Field(default=None, ge=1)
    at_most: int | None = Field(default=None, ge=0)
    exactly: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _coherent(self) -> HasCount:
        bounds = self.at_least, self.at_most
        if self.exactly is not None and bounds != (None, None):
            raise ValueError("has exactly and another bound; keep exactly, or the bounds")
        if self.exactly is None and bounds == (None, None):
            raise ValueError("has no bound; give at_least, at_most or exactly")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"at_least {self.at_least} is above at_most {self.at_most}, so no answer could "
                "meet it; exchange them"
            )
        return self


class HasWord(Row):
    """A word or phrase, in upper or lower case, stands in the answer as a whole, or does not."""

    kind: Literal["contains", "excludes"]
    word: str

    @field_validator("word")
    @classmethod
    def _not_blank(cls, word: str) -> str:
        if not word.strip():
            raise ValueError("is blank; give the word")
        return " ".join(word.split())


class HasCase(Row):
    """All letters of the answer that have a case are in this one, and there are some."""

    kind: Literal["case"]
    case: Literal["lower", "upper"]


Constraint = Annotated[
    StartsWith | IsJson | Matches | HasCount | HasWord | HasCase, Field(discriminator="kind")
]


class ConstrainedTask(EvalTask):
    """A task of a suite that may also say which answers are right and what form they must have."""

    constraints: tuple[Constraint, ...] = ()
    """Hold for each of the task's instances."""
    answers: tuple[str, ...] = ()
    """All that is right, each instance's output first; none where the output is only one of many
    right answers."""

    @model_validator(mode="after")
    def _coherent(self) -> ConstrainedTask:
        if any(not answer.strip() for answer in self.answers):
            raise ValueError("answers: one is blank; leave it out")
        for instance in self.instances:
            if self.answers and instance.output != self.answers[0]:
                raise ValueError(
                    f"answers: the first, '{self.answers[0]}', is not the output, "
                    f"'{instance.output}'; put the output first"
                )
        count = Counter(c.kind for c in self.constraints if c.kind not in _REPEATABLE)
        if twice := [kind for kind, times in count.items() if times > 1]:
            raise ValueError(f"constraints: '{twice[0]}' stands twice; keep one, with both bounds")
        words = [c for c in self.constraints if isinstance(c, HasWord)]
        banned = [c.word.casefold() for c in words if c.kind == "excludes"]
        for word in (c.word for c in words if c.kind == "contains"):
            # What holds a banned word whole is banned with it.
            if any(_holds(word, other) for other in banned):
                raise ValueError(f"constraints: '{word}' is both demanded and banned; keep one")
        case = next((c.case for c in self.constraints if isinstance(c, HasCase)), None)
        for c in self.constraints:
            if isinstance(c, StartsWith) and case and c.text != _in_case(c.text, case):
                raise ValueError(
                    f"constraints: '{c.kind}' demands '{c.text}', which is not in {case} case; "
                    "write it so, or drop one"
                )
        return self


def meets(answer: str, constraint: Constraint) -> bool:
    """Whether an answer meets a constraint; a blank one meets none.

    Raises:
        DataError: a pattern takes too long on the answer, which is therefore neither right nor
            wrong.
    """
    answer = answer.strip()
    if not answer:
        return False
    match constraint:
        case StartsWith(kind="starts_with", text=text):
            return answer.startswith(text)
        case StartsWith(text=text):
            return answer.endswith(text)
        case IsJson():
            return _is_json(answer)
        case Matches(pattern=pattern):
            return _matches(answer, pattern)
        case HasCount(kind=kind, at_least=least, at_most=most, exactly=exactly):
            found = _count(answer, kind)
            if exactly is not None:
                return found == exactly
            return (least is None or found >= least) and (most is None or found <= most)
        case HasWord(kind=kind, word=word):
            return _holds(answer, word) == (kind == "contains")
        case HasCase(case=wanted):
            return answer.islower() if wanted == "lower" else answer.isupper()


def _count(answer: str, kind: str) -> int:
    if kind == "words":
        return count_words(answer)
    if kind == "list_items":
        return len(_LIST_ITEM.findall(answer))
    parts: Iterable[str] = answer.splitlines()
    if kind == "lines":
        return sum(bool(line.strip()) for line in parts)
    return sum(bool(_WORD_CHARACTER.search(part)) for part in _SENTENCE_END.split(answer))


def _holds(text: str, word: str) -> bool:
    # Unicode's word boundaries also stand between Chinese characters and beside signs.
    phrase = r"\s+".join(regex.escape(part) for part in word.split())
    flags = regex.IGNORECASE | regex.FULLCASE | regex.WORD
    return regex.search(rf"\b{phrase}\b", text, flags) is not None


def _is_json(answer: str) -> bool:
    try:
        json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _matches(answer: str, pattern: str) -> bool:
    try:
        return regex.fullmatch(pattern, answer, timeout=_SECONDS) is not None
    except TimeoutError:
        raise DataError(
            f"constraint 'matches': the pattern {pattern!r} takes over {_SECONDS:g} s on an answer "
            f"of {len(answer)} characters; repeats within repeats do that: write it without, and "
            "evaluate again"
        ) from None


def _in_case(text: str, case: str) -> str:
    return text.lower() if case == "lower" else text.upper()
