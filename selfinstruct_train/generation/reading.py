"""Reading what a model wrote: lists of instructions, and worked examples in either order.

Models vary the labels that the prompts show: numbered, bold, as headings, with another mark after
them or alone on their line; where marks are full-width and numerals Han, with those. All of these
are read as the label they stand for, so that no label ends inside an answer. What is read and
written again in the prompts' form reads as the same rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import regex

from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance

_Kind = Literal["input", "output", "label", "example", "task"]

_MOST_SKIPPED = 2
"""How many numbers of a list a model may leave out; more is a number inside an instruction."""
_OPENS = (
    r"^[ \t]*(?:\#{1,6}[ \t]*|[-*+•>][ \t]+)?"
    r"(?:\d{1,3}(?:[.)][ \t]*|[、．）]))?(?:[*_`]{0,3}|[【［])"
)
# Chinese writes numbers in Han numerals and titles in full-width brackets.
_DIGITS = r"(?:\d{1,3}|[一二三四五六七八九十]{1,3})"
_NUMBER = rf"(?:[ \t]*\#?{_DIGITS})?"
_NOTE = r"(?:[ \t]*(?:\([^()\n]{1,30}\)|（[^（）\n]{1,30}）))?"
_SEPARATOR = (
    r"(?:[*_`]{0,3}[ \t]*(?:[:：﹕]|->|=>|→|[ \t][-–—=](?=[ \t]))[*_`]{0,3}|[】］][ \t]*[:：]?)"
)
_ALONE = r"[*_`]{0,3}[ \t]*$"


class Mark(NamedTuple):
    """A label, and where it stands."""

    kind: _Kind
    start: int
    end: int


def read_instructions(
    completion: str, first_number: int, truncated: bool, task: str = "Task:"
) -> list[str]:
    """The list items of a step 1 completion.

    An item begins on a new line with the next number, however it is marked (``8.``, ``**8.**``,
    ``8:``, ``8 -``, ``Task 8:``). A number that is said twice or skips one or two begins an item
    too, unless it is indented or continues a list that the instruction itself holds.

    Args:
        completion: text that continues ``"{first_number}."``.
        first_number: number of the item that the completion begins with.
        truncated: the completion was cut by the length limit: its last item is incomplete and is
            left out.
        task: the label that may stand before the number.
    """
    text = unix_lines(completion)
    current, inner, start, found = first_number, 0, 0, []
    marks = list(_list_mark(_stem(task)).finditer(text))
    numbers = [int(mark["number"]) for mark in marks]
    for place, (mark, number) in enumerate(zip(marks, numbers, strict=True)):
        inside = inner > 0 and number == inner + 1
        if number == current + 1:
            # The next item's number as well as the inner list's: the item's comes later then.
            begins = not (inside and number in numbers[place + 1 :])
        else:
            nearby = current <= number <= current + 1 + _MOST_SKIPPED
            begins = nearby and not inside and len(mark["indent"]) < 2
        if begins:
            found.append(text[start : mark.start()])
            current, inner, start = number, 0, mark.end()
        elif number == 1 or inside:
            inner = number
    found.append(text[start:])
    if truncated:
        found.pop()
    items = (_list_item(item) for item in found)
    return [item for item in items if item]


def read_input_first(wording: Wording, completion: str, truncated: bool) -> list[Instance]:
    """The instances of an input-first completion, which continues ``"Example 1"``.

    A new input after an output begins a new instance, with or without ``Example 2``. A part with
    two inputs for one output, or with text before its first label, is no instance.
    """
    text = _without_rest(unix_lines(completion))
    found: list[Instance | None] = []
    given: str | None = None
    output: str | None = None
    usable = True

    def close() -> None:
        complete = usable and output is not None
        found.append(_instance(wording, given or "", output or "") if complete else None)

    for kind, said in _parts(wording, text, ("input", "output", "example", "task")):
        if kind == "task":
            close()
            return [instance for instance in found if instance]
        if kind == "example":
            close()
            given, output, usable = None, None, not said.strip()
        elif kind == "input":
            if output is not None:
                close()
                given, output, usable = None, None, True
            usable = usable and given is None
            given = said
        elif kind == "output":
            if output is not None:
                close()
            output = said
        else:
            usable = not said.strip()
    close()
    if truncated:
        found.pop()
    return [instance for instance in found if instance]


def read_output_first(wording: Wording, completion: str, truncated: bool) -> list[Instance]:
    """The instances of an output-first completion, which continues ``"Label:"``.

    A second input under a label is another instance of that label.
    """
    found: list[Instance] = []
    label: str | None = None
    given: str | None = None

    def close() -> None:
        if label is not None:
            found.append(_instance(wording, given or "", label))

    text = unix_lines(completion)
    for kind, said in _parts(wording, text, ("input", "label", "output", "example", "task"), 1):
        if kind == "task":
            close()
            return found
        if kind == "input":
            if given is not None:
                close()
            given = said
        else:
            close()
            given = None
            label = None if kind == "example" else said
    if truncated:
        return found
    close()
    return found


def find_first_label(wording: Wording, text: str, kind: _Kind | None = None) -> Mark | None:
    """The first label in a text, of one kind where it is given; None if there is none."""
    kinds: tuple[_Kind, ...] = (kind,) if kind else ("input", "output", "example")
    return next(iter(_marks(wording, text, kinds)), None)


def find_label(wording: Wording, text: str) -> str | None:
    """A label of the prompts that is left inside a text; None if there is none."""
    found = _leftover(wording).search(text)
    return found.group().strip() if found else None


def _instance(wording: Wording, given: str, output: str) -> Instance:
    return Instance(
        input="" if wording.means_no_input(given) else given.strip(), output=output.strip()
    )


def _parts(
    wording: Wording, text: str, kinds: tuple[_Kind, ...], first: int = 0
) -> Iterator[tuple[_Kind | None, str]]:
    """Each label's kind with the text after it; first, with no kind, the text before them all."""
    marks = [m for m in _marks(wording, text, kinds) if m.start >= first]
    ends = [mark.start for mark in marks] + [len(text)]
    yield None, text[: ends[0]]
    for mark, end in zip(marks, ends[1:], strict=True):
        yield mark.kind, text[mark.end : end]


def _marks(wording: Wording, text: str, kinds: tuple[_Kind, ...]) -> list[Mark]:
    return [
        Mark(kind, match.start(), match.end())
        for match in _labels(wording).finditer(text)
        for kind in kinds
        if match.group(kind) is not None
    ]


@functools.cache
def _labels(wording: Wording) -> regex.Pattern[str]:
    groups = {
        "input": (wording.input, *wording.input_variants),
        "output": (wording.output, *wording.output_variants),
        "label": (wording.label, *wording.label_variants),
    }
    parts = [
        rf"(?P<{kind}>(?:{_either(names)}){_NUMBER}{_NOTE}(?:{_SEPARATOR}|{_ALONE}))"
        for kind, names in groups.items()
    ]
    example, task = _either((wording.example,)), _either((wording.task,))
    parts.append(
        rf"(?P<example>[(\[（]?(?:{example})[ \t]*\#?{_DIGITS}[)\].）】］]?[:：]?{_ALONE})"
    )
    parts.append(rf"(?P<task>(?:{task}){_NUMBER}{_SEPARATOR})")
    return regex.compile(rf"{_OPENS}(?:{'|'.join(parts)})", regex.MULTILINE | regex.IGNORECASE)


@functools.cache
def _leftover(wording: Wording) -> regex.Pattern[str]:
    named = (wording.input, wording.output, wording.label)
    # A script without blanks has none before a label: there it follows the end of a sentence.
    within = rf"(?-i:(?<=[\s。！？；])(?:{_either(named)}){_NUMBER}[:：])"
    return regex.compile(
        rf"{_labels(wording).pattern}|{within}", regex.MULTILINE | regex.IGNORECASE
    )


@functools.cache
def _list_mark(task: str) -> regex.Pattern[str]:
    return regex.compile(
        r"\n(?P<indent>[^\S\n]*)(?:\#{1,6}[ \t]*|[-*+•][ \t]+)?[*_]{0,3}[(\[（]?"
        rf"(?:{regex.escape(task)}[ \t]*)?\#?"
        r"(?P<number>\d{1,6})[*_]{0,3}"
        r"(?:[ \t]*[.)\]:：、．）](?!\d)|[ \t]+[-–—](?=[ \t]))[*_]{0,3}",
        regex.IGNORECASE,
    )


def _list_item(text: str) -> str:
    text = text.strip().split("\n\n")[0]
    # A bold number opens what may close anywhere.
    if text.count("**") % 2:
        text = text.replace("**", "", 1)
    return one_line(text)


def _either(names: tuple[str, ...]) -> str:
    stems = sorted({_stem(name) for name in names}, key=lambda stem: (-len(stem), stem))
    return "|".join(regex.escape(stem) for stem in stems)


def _stem(label: str) -> str:
    return label.strip().rstrip(":：").rstrip()


def unix_lines(text: str) -> str:
    """The text with every line ended as on Unix."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_rest(text: str) -> str:
    """The text less what closes the line of ``Example 1``: a colon, a bracket, bold marks."""
    rest: str = regex.sub(r"\A[ \t]*[:：.)\]）】*_]+[ \t]*(?=\n|\Z)", "", text)
    return rest
