"""Reading what a chat model replies: the same rows, with the manners of chat around them.

Chat models open with a sentence to the user, put labels in bold, and set lists and answers in
Markdown. What is left of a reply without these is read as what a base model writes.
"""

from __future__ import annotations

import regex

from selfinstruct_train.generation.list_items import find_first_number, read_instructions
from selfinstruct_train.generation.prompt_labels import Kind, find_first_label, unix_lines
from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance
from selfinstruct_train.text.words import count_words, ends_with_colon

_FENCE = r"[ \t]*(?:`{3,}|~{3,})"
_FENCED = regex.compile(rf"\A{_FENCE}[^\n`]*\n(?P<inside>.*?)\n{_FENCE}[ \t]*\Z", regex.DOTALL)
_BLOCK = regex.compile(rf"^{_FENCE}[^\n`]*\n(.*?)\n{_FENCE}[ \t]*$", regex.DOTALL | regex.MULTILINE)
_FENCE_LINE = regex.compile(rf"^{_FENCE}[^\n`]*(?:\n|\Z)", regex.MULTILINE)
_BULLET = regex.compile(
    r"^[ \t]{0,3}(?:[-–—*+•·‣\p{So}]|(?:[a-z]|[ivx]{1,4})[.)])[ \t]+(?=\S)",
    regex.MULTILINE | regex.IGNORECASE,
)
_TITLED = regex.compile(
    r"^(?:\*\*|__)[^*_]{1,80}?(?:\*\*[:：]|[:：]\*\*|__[:：]|[:：]__)[ \t]*(.+)$"
)
_BOLD = regex.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_FEWEST_WORDS = 4
"""Of what follows a title in bold, to count as the task without it."""


def read_reply_list(reply: str, truncated: bool, task: str) -> list[str]:
    """The tasks of a list that a chat model wrote, numbered or with bullets.

    Args:
        reply: all that the assistant said.
        truncated: it was cut by the length limit: its last item is incomplete and is left out.
        task: the label that may stand before a number.
    """
    text = _FENCE_LINE.sub("", unix_lines(reply))
    if first := find_first_number(text, task):
        items = read_instructions(text[first.end :], first.number, truncated, task)
    elif _BULLET.search(text):
        items = [one_line(item.split("\n\n")[0]) for item in _BULLET.split(text)[1:]]
        items = items[:-1] if truncated else items
    else:
        lines = [one_line(line) for line in text.split("\n")]
        lines = lines[:-1] if truncated else lines
        items = [line for line in lines if line and not ends_with_colon(line)]
    return [found for item in items if (found := without_bold(item))]


def without_bold(item: str) -> str:
    """A list item less the title that stands before the task in bold, and less all bold marks."""
    titled = _TITLED.match(item)
    if titled and count_words(titled.group(1)) >= _FEWEST_WORDS:
        item = titled.group(1)
    plain: str = _BOLD.sub(r"\2", item)
    return plain.strip()


def read_reply_examples(
    wording: Wording, reply: str, truncated: bool, is_classification: bool
) -> list[Instance]:
    """The instances of a reply, input-first or output-first, with whatever stands around them."""
    text = unfenced(unix_lines(reply).strip())
    kind: Kind | None = "label" if is_classification else None
    mark = find_first_label(wording, text, kind)
    if mark is None:  # or all of the examples stand in code blocks
        text = "\n".join(_BLOCK.findall(text))
        mark = find_first_label(wording, text, kind)
    if mark is None:
        return []
    if is_classification:
        found = read_output_first(wording, text[mark.end :], truncated)
    else:
        found = read_input_first(wording, "\n" + text[mark.start :], truncated)
    return [
        Instance(input=unfenced(instance.input), output=unfenced(instance.output))
        for instance in found
    ]


def unfenced(text: str) -> str:
    """The inside of a text that is one fenced block from end to end; else the text as it is."""
    fenced = _FENCED.match(text.strip())
    if fenced is None or _FENCE_LINE.search(fenced.group("inside")):
        return text
    inside: str = fenced.group("inside")
    return inside
