"""Step 4: named predicates over what the model wrote. Each says what it saw, or None."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import regex

from selfinstruct_train.config import FilterConfig, PersonalDataKind
from selfinstruct_train.generation.faults import TextFaults, text_faults
from selfinstruct_train.generation.personal_data import find_personal_data
from selfinstruct_train.generation.prompt_labels import find_label
from selfinstruct_train.packs.language import LanguageTest, language_test
from selfinstruct_train.packs.parts import Rules, Wording
from selfinstruct_train.records import Instance
from selfinstruct_train.text.words import (
    count_words,
    ends_with_colon,
    length,
    split_words,
    whole_words,
    without_opening_marks,
    words,
)

_ECHO = 6
"""Words in a row that no task shares with a system message by chance."""
_SHORT_ANSWER = 8
"""Words up to which an answer is a fact rather than free text."""


OF_OUTPUT = frozenset(
    {
        *("empty_output", "output_is_input", "output_is_instruction", "stray_number"),
        *("bare_answer", "refusal", "evasion", "repeats_input", "repeats_instruction"),
        *("repeats_itself", "list_of_one", "markdown_fragment", "cut_off"),
    }
)
"""Reasons that lie in the output alone, so that another answer to the same input may pass."""


class FilterResult(NamedTuple):
    """Why a text is dropped."""

    reason: str
    evidence: str


class InstructionFilter:
    """The predicates that an instruction must pass before the novelty test."""

    def __init__(self, config: FilterConfig, rules: Rules, preamble: str = "") -> None:
        """Compile what a pack looks for.

        Args:
            config: bounds and choices.
            rules: of the pack.
            preamble: what the model's chat template says by itself, which a model at times says on.
        """
        self._config = config
        self._rules = rules
        self._preamble = set(_pieces(preamble))
        self._unsuitable = whole_words(rules.unsuitable_words)
        self._faults = text_faults(rules.faults)
        self._language = language_test(rules.language)
        self._start = regex.compile(
            rf"[\p{{{rules.script}}}\p{{N}}]" if rules.script else r"[\p{L}\p{N}]"
        )

    def fault(self, text: str) -> FilterResult | None:
        """The first predicate that the text fails, or None."""
        return next(self._all_faults(text), None)

    def _all_faults(self, text: str) -> Iterator[FilterResult]:
        units = self._rules.units
        size = length(text, units)
        if size < self._config.min_words:
            yield FilterResult("too_short", f"{size} {units}")
        if size > self._config.max_words:
            yield FilterResult("too_long", f"{size} {units}")
        if self._unsuitable and (match := self._unsuitable.search(text)):
            yield FilterResult("unsuitable_word", match.group())
        begins = text.lower()
        for prefix in () if self._config.allow_programs else self._rules.program_prefix:
            if begins.startswith(prefix.lower()):
                yield FilterResult("program", prefix)
        start = without_opening_marks(text)
        if regex.match(r"\p{P}", start):
            yield FilterResult("leading_punctuation", start[0])
        elif not self._start.match(start):
            yield FilterResult("foreign_start", start[:1])
        if loop := repeated_ngram(text, self._config.max_repeats):
            yield FilterResult("loop", loop)
        if found := _personal_data(self._config.personal_data, text):
            yield found
        if echo := next((piece for piece in _pieces(text) if piece in self._preamble), None):
            yield FilterResult("system_message", " ".join(echo))
        if self._faults and (fault := self._faults.no_task(text)):
            yield FilterResult(*fault)
        if self._language and (seen := self._language.foreign_instruction(text)):
            yield FilterResult("foreign_language", seen)


def _pieces(text: str) -> list[tuple[str, ...]]:
    """All runs of as many words as show that one text was taken from another."""
    found = words(text, "unicode")
    return [tuple(found[i : i + _ECHO]) for i in range(len(found) - _ECHO + 1)]


def repeated_ngram(text: str, most: int, longest: int = 8) -> str | None:
    """An n-gram of words that stands more than ``most`` times in a row; None if there is none.

    Args:
        text: what to search.
        most: repeats that still pass.
        longest: longest n-gram looked for, in words.
    """
    said = split_words(text)
    for size in range(1, longest + 1):
        run = 0
        for i in range(size, len(said)):
            # Each match is one more word that equals the word one period earlier.
            run = run + 1 if said[i] == said[i - size] else 0
            if run >= size * most:
                return " ".join(said[i - size + 1 : i + 1])
    return None


class CheckedInstance(NamedTuple):
    """An instance and why it is dropped, None if it is kept."""

    instance: Instance
    fault: FilterResult | None


def check_instances(
    instruction: str,
    instances: Iterable[Instance],
    is_classification: bool,
    most: int,
    max_repeats: int,
    wording: Wording | None = None,
    language: LanguageTest | None = None,
    faults: TextFaults | None = None,
    personal_data: Sequence[PersonalDataKind] = (),
) -> list[CheckedInstance]:
    """Judge the instances of one instruction, in order.

    One input with two different outputs says that one of them is wrong, and nobody knows which:
    both go. Without an input the first answer stays and a different one goes, unless both are free
    text, of more than 8 words each; of a classification task all go.

    Args:
        instruction: what was asked.
        instances: in the order in which they were written.
        is_classification: whether the answers are labels.
        most: instances kept.
        max_repeats: of an n-gram in a row.
        wording: whose labels must not stand in an answer; None looks for none.
        language: in which inputs and answers must be; None takes any.
        faults: of form, by the words of the pack; None looks for none.
        personal_data: kinds of which none may stand in a row.
    """
    found = list(instances)
    outputs: dict[str, set[str]] = {}
    for instance in found:
        outputs.setdefault(_given(instance), set()).add(_answer(instance.output))
    judged: list[CheckedInstance] = []
    seen: set[tuple[str, str]] = set()
    kept = 0
    first: str | None = None
    for instance in found:
        fault = check_instance(instruction, instance, max_repeats, wording, language, faults)
        fault = fault or _personal_data(personal_data, instance.output, instance.input)
        pair = _given(instance), _answer(instance.output)
        answers = outputs[pair[0]]
        if fault is None and len(answers) > 1 and (instance.input or is_classification):
            fault = FilterResult("conflicting_outputs", f"{len(answers)} outputs for one input")
        if fault is None and pair in seen:
            fault = FilterResult("duplicate", "same input and output")
        if fault is None and first is not None and _contradicts(instance, first):
            fault = FilterResult("second_answer", f"the first answer is {first[:80]!r}")
        if fault is None and kept >= most:
            fault = FilterResult("too_many", f"more than {most} for one instruction")
        if fault is None:
            seen.add(pair)
            kept += 1
            first = instance.output if first is None and not instance.input else first
        judged.append(CheckedInstance(instance, fault))
    return _without_one_label(judged) if is_classification and faults else judged


def _given(instance: Instance) -> str:
    """The input, its characters in one form and its blanks folded; case may matter to the task."""
    visible = regex.sub(r"\p{Cf}", "", unicodedata.normalize("NFC", instance.input))
    return " ".join(visible.split())


def _answer(output: str) -> str:
    """An output as two are compared that say the same in another case or with a full stop."""
    return " ".join(unicodedata.normalize("NFC", output).casefold().split()).rstrip(".。")


def _without_one_label(judged: list[CheckedInstance]) -> list[CheckedInstance]:
    """Of a classification task whose every input got the same label, nothing is kept."""
    labels = [instance.output for instance, fault in judged if fault is None]
    if len(labels) < 2 or len(set(map(_answer, labels))) > 1:
        return judged
    one = FilterResult("one_label", f"all {len(labels)} inputs are {labels[0][:80]!r}")
    return [checked._replace(fault=checked.fault or one) for checked in judged]


def _contradicts(instance: Instance, first: str) -> bool:
    """Whether an answer has no input, as the other one before it, and one of them is short."""
    lengths = (count_words(first), count_words(instance.output))
    return not instance.input and min(lengths) <= _SHORT_ANSWER


def _personal_data(kinds: Sequence[PersonalDataKind], *texts: str) -> FilterResult | None:
    for text in texts if kinds else ():
        if (found := find_personal_data(text, kinds)) is not None:
            return FilterResult(f"personal_{found.kind}", found.shown)
    return None


def check_instance(
    instruction: str,
    instance: Instance,
    max_repeats: int,
    wording: Wording | None = None,
    language: LanguageTest | None = None,
    faults: TextFaults | None = None,
) -> FilterResult | None:
    """The first predicate that an instance fails by itself, or None."""
    given, output = instance.input, instance.output
    if not output:
        return FilterResult("empty_output", "")
    if output == given:
        return FilterResult("output_is_input", output)
    if output == instruction:
        return FilterResult("output_is_instruction", output)
    if wording and (label := find_label(wording, output) or find_label(wording, given)):
        return FilterResult("leftover_label", label)
    if ends_with_colon(output):
        return FilterResult("ends_with_colon", output[-40:])
    if ends_with_colon(given):
        return FilterResult("ends_with_colon", given[-40:])
    if loop := repeated_ngram(output, max_repeats) or repeated_ngram(given, max_repeats):
        return FilterResult("loop", loop)
    if language:
        seen = language.foreign_answer(instruction, output)
        if seen := seen or language.foreign_answer(instruction, given):
            return FilterResult("foreign_language", seen)
    found = next(faults.of_instance(instruction, instance), None) if faults else None
    return FilterResult(*found) if found else None
