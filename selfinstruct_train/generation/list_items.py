"""Reading the instructions of a list, however a model marks its items."""

from __future__ import annotations

import functools
from typing import NamedTuple

import regex

from selfinstruct_train.generation.prompt_labels import BLANK, BOLD, BULLETS, stem, unix_lines
from selfinstruct_train.generation.prompting import one_line

_MOST_SKIPPED = 2
"""How many numbers of a list a model may leave out; more is a number inside an instruction."""


class ListNumber(NamedTuple):
    """The number of an item, and where the item begins."""

    number: int
    end: int


def read_instructions(
    completion: str, first_number: int, truncated: bool, task: str = "Task:"
) -> list[str]:
    """The list items of a step 1 completion.

    An item begins on a new line with the next number, however it is marked (``8.``, ``**8.**``,
    ``8:``, ``8 -``, ``Task 8:``, ``Question 8:``). A number that is said twice or skips one or two
    begins an item too, unless it is indented or continues a list that the instruction itself holds.

    Args:
        completion: text that continues ``"{first_number}."``.
        first_number: number of the item that the completion begins with.
        truncated: the completion was cut by the length limit: its last item is incomplete and is
            left out.
        task: the label that may stand before the number.
    """
    text, task = unix_lines(completion), stem(task)
    current, start, found = first_number, 0, []
    inner: int | None = None
    marks = list(_list_mark(task).finditer(text))
    numbers = [int(mark["number"]) for mark in marks]
    for place, (mark, number) in enumerate(zip(marks, numbers, strict=True)):
        later, word = numbers[place + 1 :], mark["word"] is not None
        inside = inner is not None and number == inner + 1
        if number == current + 1:
            # The next item's number as well as the inner list's: the item's comes later then.
            begins = not ((inside or word) and number in later or (inside and word))
        else:
            nearby = current <= number <= current + 1 + _MOST_SKIPPED
            begins = nearby and not inside and not word and len(mark["indent"]) < 2
            # Two lists that go on from 1: this one is the first item's own.
            begins = begins and not (number == 1 and later.count(2) > 1)
        if begins:
            found.append(text[start : mark.start()])
            current, inner, start = number, None, mark.end()
        elif number <= 1 or inside:
            inner = number
    found.append(text[start:])
    if truncated:
        found.pop()
    items = (_list_item(item, task) for item in found)
    return [item for item in items if item]


def find_first_number(text: str, task: str) -> ListNumber | None:
    """Where the list in a text begins; None if there is none."""
    marks = list(_list_mark(stem(task)).finditer("\n" + text))
    plain = (mark for mark in marks if mark["word"] is None)
    first = next(plain, marks[0] if marks else None)
    return ListNumber(int(first["number"]), first.end() - 1) if first else None


@functools.cache
def _list_mark(task: str) -> regex.Pattern[str]:
    label = regex.escape(task)
    named = rf"(?:{label}{BLANK}*+[:：]?{BLANK}*+|(?P<word>\p{{L}}{{1,12}})\.?{BLANK}*+)?"
    mark = (
        rf"(?:{BLANK}*+\\?[.)\]:：、．）】。]{{1,2}}[-–—]?(?![\d.])|{BLANK}*+[-–—](?={BLANK})"
        rf"|(?<=\n[^\n]*{label}[^\n]*)$)"
    )
    return regex.compile(
        rf"\n(?P<indent>{BLANK}*+){BULLETS}{BOLD}[(\[（【]?{named}\#?"
        rf"(?P<number>\d{{1,6}}){BOLD}{mark}{BOLD}",
        regex.IGNORECASE | regex.MULTILINE,
    )


def _list_item(text: str, task: str) -> str:
    text = text.strip().split("\n\n")[0]
    label = rf"\A(?:{BOLD}{regex.escape(task)}{BLANK}*+{BOLD}[:：]{BOLD}\s*)+"
    text = regex.sub(label, "", text, flags=regex.IGNORECASE)
    # A bold number opens what may close anywhere.
    if text.count("**") % 2:
        text = text.replace("**", "", 1)
    return one_line(text)
