"""Reading the worked examples that a model wrote, in either order.

However it sets the labels, each is read as what it stands for, so that none ends inside an answer.
What is read and written again in the prompts' form reads as the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from selfinstruct_train.generation.prompt_labels import BLANK, Kind, find_labels, unix_lines
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance

_RULE = regex.compile(rf"^{BLANK}*+([-*_=])\1\1+{BLANK}*+$", regex.MULTILINE)
_LAST_RULE = regex.compile(rf"\n(?:{BLANK}*+\n{BLANK}*+([-*_=])\1\1+|{BLANK}*+---){BLANK}*+\Z")
"""Parts two examples, where an answer holds no other such line."""


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


def _instance(wording: Wording, given: str, output: str) -> Instance:
    return Instance(
        input="" if wording.means_no_input(given) else given.strip(), output=output.strip()
    )


def _parts(
    wording: Wording, text: str, kinds: tuple[Kind, ...], first: int = 0
) -> Iterator[tuple[Kind | None, str]]:
    """Each label's kind with the text after it; first, with no kind, the text before them all."""
    marks = [m for m in find_labels(wording, text, kinds) if m.start >= first]
    ends = [mark.start for mark in marks] + [len(text)]
    yield None, _without_rule(text[: ends[0]])
    for mark, end in zip(marks, ends[1:], strict=True):
        said = text[mark.end : end]
        # A bold label may close after what it names.
        if text.count("**", mark.start, mark.end) % 2 and said.count("**") % 2:
            said = said.replace("**", "", 1)
        yield mark.kind, _without_rule(said)


def _without_rule(said: str) -> str:
    one = len(_RULE.findall(said)) == 1
    return str(_LAST_RULE.sub("", said.rstrip())) if one else said


def _without_rest(text: str) -> str:
    """The text less what closes the line of ``Example 1``: a colon, a bracket, bold marks."""
    return str(regex.sub(rf"\A{BLANK}*+[-–—:：.)\]）】*_]+", "", text))
