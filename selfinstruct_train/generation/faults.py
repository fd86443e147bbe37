"""Faults of machine-written text that show by its form; the words of each are the pack's.

All were found by reading what a real instruct model of 135 million parameters wrote. What a
predicate wrongly drops of texts that people wrote is measured in docs/log.md.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import regex
from rapidfuzz.distance import LCSseq

from selfinstruct_train.packs.fault_words import FaultWords
from selfinstruct_train.records import Instance
from selfinstruct_train.text.words import whole_words, words

_QUESTION = regex.compile(r"[?？؟]")
_BULLET = regex.compile(r"[-*+•]|\#{1,6}")
_LETTER = regex.compile(r"\p{L}")
_DIGIT = regex.compile(r"\p{N}")
_FENCE = regex.compile(r"^[ \t]*(?:`{3,}|~{3,})", regex.MULTILINE)
_EMPTY_ITEM = regex.compile(r"(?:^|\n)[ \t]*(?:[-*+•]|\#{1,6}|\d{1,3}[.)])[ \t]*\Z")
_BREAKS_OFF = regex.compile(r"[,(\[（［、，]\Z|\w\s*[-–—]\Z")
_HOLDS_TEXT = regex.compile(r"[:：\n\"“«「`]")
"""Stands in an instruction before a text that the instruction brings along."""
_LIST_MARK = regex.compile(r"(?:^|\s)\d{1,3}[.)]\s+(?=\S)")
_PARTS = regex.compile(r"(?<=[.!?])\s+|\n+|(?:^|\s)\d{1,3}[.)]\s+")
"""Where a sentence or an item of a list ends and the next one begins."""
_BOLD_MARK = regex.compile(r"(?<!\w)\*\*|\*\*(?!\w)")  # not the power of n**2
_MOST_FIGURES = 4
"""Parts of an output that can be a stray figure; more are a table."""
_SAME = 0.9
"""ROUGE-L F1 from which an output says what its input says."""
_FEWEST_COMPARED = 4
"""Words of an input or an instruction from which an output that repeats it says nothing new."""
_LONG_PIECE = 6
"""Words from which an output that stands in its instruction is a copy."""
_MUCH = 0.3
"""Share of its sentences and items that an output may say again."""
_LONGEST_EVASION = 24
"""Words up to which an output that opens with an evasion holds nothing else."""
_LONGEST_HAND_BACK = 80
"""The same, where it also hands the work back to who asked."""
_BULLETED = regex.compile(r"^[ \t]*[-*•]\s+(\S.*)$", regex.MULTILINE)
_FEWEST_ITEMS = 3
_MANY_ITEMS = 0.2
"""Share of the items of a list that may stand there before."""
_BARE = 2
"""Words up to which an answer is no text."""
_LONGEST_DESCRIPTION = 16
"""Words up to which an input can be the mere name of a text."""


class Fault(NamedTuple):
    """A fault by its name, and what shows it."""

    reason: str
    evidence: str


class TextFaults:
    """The predicates of one language."""

    def __init__(self, known: FaultWords) -> None:
        self._statement = _opening(known.statement_openers)
        self._task = whole_words(known.task_words)
        self._refusal = whole_words(known.refusals)
        self._evasion = _opening(known.evasions)
        self._hand_back = whole_words(known.hand_backs)
        self._edit = whole_words(known.edit_words)
        self._asks_number = whole_words(known.number_words)
        self._asks_text = whole_words(known.text_words)
        self._asks_word = whole_words(known.word_words)
        self._absent = whole_words(known.absent_things)
        self._placeholder = _bracketed(known.placeholder_words)
        self._description = _description(known.described_things, known.describing_words)
        self._unfinished = _closing(known.unfinished_words)

    def no_task(self, instruction: str) -> Fault | None:
        """An instruction that opens like a statement, asks nothing and names nothing to do."""
        if not self._statement or not self._task or _QUESTION.search(instruction):
            return None
        # Typographic apostrophes stand in the same words.
        text = instruction.replace("’", "'")
        opened = self._statement.match(text)
        if opened is None or self._task.search(text):
            return None
        return Fault("no_task", f"a statement ({opened.group().strip()!r} …)")

    def of_instance(self, instruction: str, instance: Instance) -> Iterator[Fault]:
        """All that is wrong with an instance, the plainest first."""
        given, output = instance.input, instance.output
        may_repeat = self._edit is None or self._edit.search(instruction)
        if self._is_stray(instruction, instance):
            yield Fault("stray_number", output[:80])
        elif self._is_bare(instruction, output):
            yield Fault("bare_answer", output[:80])
        if self._placeholder:
            for text in (output, given):
                found = self._placeholder.search(text)
                # A form to fill in has brackets, and so may the answer then.
                if found and (not may_repeat if text is given else found.group() not in given):
                    yield Fault("placeholder", found.group()[:80])
        if self._refusal and (found := self._refusal.search(output.replace("’", "'"))):
            yield Fault("refusal", found.group())
        if seen := self._evades(output):
            yield Fault("evasion", seen)
        yield from _repeated(instruction, given, output, bool(may_repeat))
        if twice := _said_twice(output):
            yield Fault("repeats_itself", twice)
        if _LIST_MARK.match(output) and len(_LIST_MARK.findall(output)) == 1:
            yield Fault("list_of_one", output[:80])
        if self._needs_input(instruction) and not given:
            yield Fault("input_missing", self._needs_input(instruction) or "")
        named = self._description.match(given) if self._description else None
        if named and len(given.split()) <= _LONGEST_DESCRIPTION:
            yield Fault("input_described", named.group()[:80])
        if seen := _fragment(output):
            yield Fault("markdown_fragment", seen)
        if seen := self._broken_end(output):
            yield Fault("cut_off", seen)

    def _is_stray(self, instruction: str, instance: Instance) -> bool:
        """Whether the output is what is left of a list, or a figure that nobody asked for."""
        output = instance.output.strip()
        if _BULLET.fullmatch(output):
            return True
        if self._asks_number is None or _LETTER.search(output) or not _DIGIT.search(output):
            return False
        if len(output.split()) > _MOST_FIGURES:
            return False
        asked = f"{instruction}\n{instance.input}"
        return not _DIGIT.search(asked) and not self._asks_number.search(asked)

    def _evades(self, output: str) -> str | None:
        said, size = _after_number(output), len(output.split())
        found = self._evasion.match(said) if self._evasion else None
        if found is None or size > _LONGEST_HAND_BACK:
            return None
        handed = self._hand_back is not None and self._hand_back.search(said)
        return found.group().strip() if handed or size <= _LONGEST_EVASION else None

    def _is_bare(self, instruction: str, output: str) -> bool:
        """Whether a text is asked for and the output is a word or two."""
        if self._asks_text is None or len(said := words(output, "unicode")) > _BARE:
            return False
        if not self._asks_text.search(instruction):
            return False
        if self._asks_word and self._asks_word.search(instruction):
            return False
        # What the instruction names is one of its choices.
        return not said or not set(said) <= set(words(instruction, "unicode"))

    def _needs_input(self, instruction: str) -> str | None:
        """The phrase that points at what is not there; None where it is, or nothing does."""
        found = self._absent.search(instruction) if self._absent else None
        if found is None or _HOLDS_TEXT.search(instruction):
            return None
        return str(found.group())

    def _broken_end(self, output: str) -> str | None:
        text = output.rstrip()
        if _BREAKS_OFF.search(text):
            return text[-40:]
        if len(text.split()) > 1 and self._unfinished and self._unfinished.search(text):
            return text[-40:]
        return None


@functools.cache
def text_faults(known: FaultWords | None) -> TextFaults | None:
    """The predicates of a pack's words, made once; None of a pack that looks for no faults."""
    return None if known is None else TextFaults(known)


def _repeated(instruction: str, given: str, output: str, may_repeat: bool) -> Iterator[Fault]:
    """Whether the output says its input or its instruction again, or a piece of the latter."""
    if not may_repeat:
        for name, text in (("repeats_input", given), ("repeats_instruction", instruction)):
            if (score := _overlap(text, output)) >= _SAME:
                yield Fault(name, f"ROUGE-L {score:.2f}")
                return
    if not _HOLDS_TEXT.search(instruction) and _stands_in(instruction, output):
        yield Fault("repeats_instruction", "all of it stands there")


def _overlap(text: str, output: str) -> float:
    """ROUGE-L F1 of two texts by words of any script; 0 where the first is too short to tell."""
    a, b = words(text, "unicode"), words(output, "unicode")
    if len(a) < _FEWEST_COMPARED or not b:
        return 0.0
    return 2.0 * LCSseq.similarity(a, b) / (len(a) + len(b))


def _stands_in(text: str, output: str) -> bool:
    """Whether the output is a piece of the text, and no mere name or choice."""
    whole, piece = (" ".join(words(one, "unicode")) for one in (text, output))
    return len(piece.split()) >= _LONG_PIECE and f" {piece} " in f" {whole} "


def _said_twice(output: str) -> str | None:
    """What the output says again, where that makes up much of it, or of its list."""
    listed = _BULLETED.findall(output) or _LIST_MARK.split(output)[1:]  # also on one line
    items = [tuple(words(found, "unicode")) for found in listed]
    if len(items) >= _FEWEST_ITEMS and len(items) - len(set(items)) >= _MANY_ITEMS * len(items):
        twice = next(item for item in items if items.count(item) > 1)
        return f"{' '.join(twice)[:80]!r} stands in its list {items.count(twice)} times"
    parts = [part for part in _PARTS.split(output) if part.strip(" \n-*•")]
    said = Counter(tuple(found) for part in parts if len(found := words(part, "unicode")) >= 4)
    again = sum(said.values()) - len(said)
    if again < _MUCH * len(parts):
        return None
    return next((" ".join(found)[:80] for found, times in said.items() if times > 1), None)


def _after_number(output: str) -> str:
    """The output less the number of a list that opens it, with plain apostrophes."""
    return str(_LIST_MARK.sub("", output.replace("’", "'"), count=1))


def _fragment(output: str) -> str | None:
    """Markdown that opens and does not close, or an item with nothing in it."""
    if len(_FENCE.findall(output)) % 2:
        return "a code fence is left open"
    if not _FENCE.search(output) and len(_BOLD_MARK.findall(output)) % 2:
        return "bold is left open"
    empty = _EMPTY_ITEM.search(output)
    return f"ends in {empty.group().strip()!r}" if empty and empty.start() else None


def _either(phrases: tuple[str, ...]) -> str:
    return "|".join(map(regex.escape, sorted(phrases, key=len, reverse=True)))


def _opening(phrases: tuple[str, ...]) -> regex.Pattern[str] | None:
    return _compiled(rf"[\p{{P}}\s]*(?:{_either(phrases)})(?![\w'])", phrases)


def _closing(phrases: tuple[str, ...]) -> regex.Pattern[str] | None:
    return _compiled(rf"(?<!\w)(?:{_either(phrases)})\Z", phrases)


def _bracketed(phrases: tuple[str, ...]) -> regex.Pattern[str] | None:
    inside = rf"[^\[\]<>{{}}\n]{{0,40}}(?<!\w)(?:{_either(phrases)})(?!\w)[^\[\]<>{{}}\n]{{0,40}}"
    return _compiled(rf"\[{inside}\]|<{inside}>|\{{{inside}\}}", phrases)


def _description(things: tuple[str, ...], links: tuple[str, ...]) -> regex.Pattern[str] | None:
    pattern = (
        rf"(?:[\w'-]+\s+){{0,3}}(?:{_either(things)})\s+(?:{_either(links)})(?!\w)[^.,;!?\n]*[.]?\Z"
    )
    return _compiled(pattern, things and links)


def _compiled(pattern: str, phrases: tuple[str, ...]) -> regex.Pattern[str] | None:
    return regex.compile(pattern, regex.IGNORECASE) if phrases else None
