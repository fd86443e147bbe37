"""Finding the labels of the prompts in what a model wrote, however it set them.

Models number labels, set them in bold, as headings or list items, put another mark after them or
leave them alone on their line, with blanks of any kind; where marks are full-width and numerals
Han, with those. Inside a code block, and as the name of a variable, the same words are no labels.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import regex

from selfinstruct_train.packs.parts import Wording

Kind = Literal["input", "output", "label", "example", "task"]

BLANK = r"[\t\p{Zs}\p{Cf}]"
"""No-break, full-width and zero-width ones and direction marks are blanks too."""
BOLD = r"(?:[*_~]{1,3}|`(?!`)|</?(?:b|strong)>)?"
BULLETS = rf"(?:(?:[-–—*+•·‣>\p{{So}}]\uFE0F?|\[[ x]?\]){BLANK}*+){{0,2}}(?:\#{{1,6}}{BLANK}*+)?"
_ITEM = rf"(?:[(（]?(?:\d{{1,3}}|[a-z]|[ivx]{{1,4}})[.)、．）]{BLANK}*+)?"
_OPENS = rf"^{BLANK}*+{BULLETS}{BOLD}{_ITEM}{BOLD}{BLANK}*+[【［\[(（]?"
# Chinese writes numbers in Han numerals and titles in full-width brackets.
_DIGITS = r"(?:\d{1,3}|[一二三四五六七八九十]{1,3})"
_NUMBER = rf"(?:{BLANK}*+(?:\#|_|No\.?{BLANK}*+)?{_DIGITS}(?:\.\d{{1,2}})?)"
_COUNTED = rf"(?:{_NUMBER}|{BLANK}++(?:[a-z]|[ivx]{{1,4}})(?!\w))?"
_NOTE = rf"(?:{BLANK}*+(?:\([^()\n]{{1,30}}\)|（[^（）\n]{{1,30}}）|\[[^\[\]\n]{{1,30}}\]))?"
_NOTE_APART = rf"(?:{BLANK}++\([^()\n]{{1,30}}\)|（[^（）\n]{{1,30}}）)?"
# A line of code that begins in lower case, as "output = x" or "[input]", is no label.
_NOT_CODE = r"(?<!^[\W\d]*(?-i:\p{Ll})[^\n]*)"
_ARROW = rf"(?:[-=–—]{{1,2}}>|[→⇒➜➔]|(?<={BLANK})[-–—=](?={BLANK}|$))"
_SEPARATOR = (
    rf"(?:{BLANK}*+{BOLD}{BLANK}*+(?:[)）]?[:：﹕︰∶꞉]+|{_NOT_CODE}{_ARROW})"
    rf"(?:{BOLD}|{BLANK}*+\*\*(?={BLANK}))"
    rf"|(?:[】］]|{_NOT_CODE}\](?!\()){BOLD}{BLANK}*+[:：]?)"
)
_ALONE = rf"{BLANK}*+{BOLD}{BLANK}*+\#*{BLANK}*+$(?:\n[-=]{{3,}}$)?"
_FENCE = regex.compile(
    r"(?P<own_line>^[ \t]*)?(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)$", regex.MULTILINE
)


class Mark(NamedTuple):
    """A label, and where it stands."""

    kind: Kind
    start: int
    end: int


def find_labels(wording: Wording, text: str, kinds: tuple[Kind, ...]) -> list[Mark]:
    """The labels of these kinds that begin a line of a text with Unix line ends."""
    return [
        Mark(kind, match.start(), match.end())
        for match in _outside_code(_at_lines(wording, text), text)
        for kind in kinds
        if match.group(kind) is not None
    ]


def find_first_label(wording: Wording, text: str, kind: Kind | None = None) -> Mark | None:
    """The first label in a text, of one kind where it is given; None if there is none."""
    kinds: tuple[Kind, ...] = (kind,) if kind else ("input", "output", "example")
    return next(iter(find_labels(wording, text, kinds)), None)


def find_label(wording: Wording, text: str) -> str | None:
    """A label of the prompts that is left inside a text; None if there is none."""
    found = [*_at_lines(wording, text), *_within_lines(wording).finditer(text)]
    left = _outside_code(found, text)
    return left[0].group().strip() if left else None


def unix_lines(text: str) -> str:
    """The text with every line ended as on Unix, whatever ends it."""
    return str(regex.sub(r"\r\n|[\r\v\f\x85\u2028\u2029]", "\n", text))


def stem(label: str) -> str:
    """A label less its colon."""
    return label.strip().rstrip(":：").rstrip()


def _at_lines(wording: Wording, text: str) -> list[regex.Match[str]]:
    # Only lines that hold a name are tried: the pattern is long.
    found, labels, tried, end = [], _labels(wording), -1, 0
    for name in _names(wording).finditer(text):
        start = text.rfind("\n", 0, name.start()) + 1
        if start > tried and start >= end and (match := labels.match(text, start)):
            found.append(match)
            end = match.end()
        tried = start
    return found


def _outside_code(labels: list[regex.Match[str]], text: str) -> list[regex.Match[str]]:
    """The labels that stand in no code block: what is in one is the answer's own.

    A block is closed before the next example begins, or it is none.
    """
    kept: list[regex.Match[str]] = []
    held: list[regex.Match[str]] = []
    fence: str | None = None
    for match in sorted([*labels, *_FENCE.finditer(text)], key=lambda one: one.start()):
        if match.re is not _FENCE:
            held.append(match)
            begins = match.groupdict().keys() & {"example", "task", "label"}
            if fence is None or any(match[kind] for kind in begins):
                kept, held, fence = kept + held, [], None
        elif fence is None:
            fence = match["fence"]
        elif _closes(match, fence):
            held, fence = [], None
    return kept + held


def _closes(match: regex.Match[str], fence: str) -> bool:
    alone = match["own_line"] is not None and not match["info"].strip()
    return alone and match["fence"].startswith(fence)


def _groups(wording: Wording) -> dict[Kind, str]:
    return {
        "input": _either(wording.input, *wording.input_variants),
        "output": _either(wording.output, *wording.output_variants),
        "label": _either(wording.label, *wording.label_variants),
    }


@functools.cache
def _names(wording: Wording) -> regex.Pattern[str]:
    names = (*_groups(wording).values(), _either(wording.example, wording.task))
    return regex.compile("|".join(names), regex.IGNORECASE)


@functools.cache
def _labels(wording: Wording) -> regex.Pattern[str]:
    example, task = _either(wording.example), _either(wording.task)
    # "Example 2: Input: …", all on one line.
    after_example = rf"(?:(?:{example}){_NUMBER}{BLANK}*+[-–—:：.,)]*{BLANK}*+)?"
    found = {
        kind: rf"{after_example}(?:{names})"
        rf"(?:{_COUNTED}{_NOTE}{_SEPARATOR}|{_NUMBER}[.)](?={BLANK}|$)"
        rf"|{_COUNTED}{_NOTE_APART}{_ALONE})"
        for kind, names in _groups(wording).items()
    }
    labels = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in found.items())
    # Right before a label, a word or nothing may stand for the number.
    header = (
        rf"(?:{BLANK}++\w{{1,6}})?{_NOTE}{BLANK}*+[-–—:：.]?{BOLD}{BLANK}*+"
        rf"\n\s*(?:[-*_=]{{3,}}{BLANK}*+\n\s*)?(?={_OPENS}(?:{'|'.join(found.values())}))"
    )
    number = rf"{BLANK}*+\#?{_DIGITS}[)\].）】]?[:：]?{_ALONE}"
    return regex.compile(
        rf"{_OPENS}(?:{labels}|(?P<example>[(\[（]?(?:{example})(?:{number}|{header}))"
        rf"|(?P<task>(?:{task})(?:{_COUNTED}{_SEPARATOR}|{_NUMBER}{_ALONE})))",
        regex.MULTILINE | regex.IGNORECASE,
    )


@functools.cache
def _within_lines(wording: Wording) -> regex.Pattern[str]:
    named = _either(wording.input, wording.output, wording.label)
    # A script without blanks has none before a label: there it follows the end of a sentence.
    sentence = rf"(?<=[\s。！？；])(?:{named}){_COUNTED}[:：]"
    # Lines of a pair, whatever parts them from their names: "Input; cat", then "Output; Katze".
    given, output = (
        rf"\W{{0,4}}(?:{regex.escape(name)}|{regex.escape(name.upper())})['\"]?{BLANK}?[-=;:]"
        for name in (stem(wording.input), stem(wording.output))
    )
    pair = rf"^{given}(?=(?:[^\n]*\n)+?{output})"
    return regex.compile(f"{sentence}|{pair}", regex.MULTILINE)


def _either(*names: str) -> str:
    stems = sorted({stem(name) for name in names}, key=lambda name: (-len(name), name))
    return "|".join(regex.escape(name) for name in stems)
