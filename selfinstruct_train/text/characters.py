"""Characters that are none: they cannot be written as UTF-8, tokenized or seen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

BYTE_ORDER_MARK = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadCharacter(NamedTuple):
    """A character that no text should hold."""

    where: str
    """Dotted place in the data, as ``instances.0.output``."""
    what: str
    """What it is and what to do, as the end of a sentence."""


def without_surrogates(text: str) -> str:
    """Text with U+FFFD for each lone surrogate, as tokenizers write broken bytes, and each NUL.

    What a model wrote goes through here, so that the files that hold it can be read again.
    """
    text = text.replace("\0", "\ufffd")
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """Text whose control characters are spelled out, so that no terminal obeys them."""
    return "".join(
        c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else _spelled(c)
        for c in text
    )


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def find_bad_character(data: Any) -> BadCharacter | None:
    """The first lone surrogate or NUL in the texts of JSON or YAML data, keys included."""
    waiting: list[tuple[str, Any]] = [("", data)]
    seen: set[int] = set()
    while waiting:  # no recursion: data may be nested deeply, or in itself by YAML's aliases
        where, value = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            if id(value) in seen:
                continue
            seen.add(id(value))
        if isinstance(value, str):
            if (what := _fault_of(value)) is not None:
                return BadCharacter(where, what)
        elif isinstance(value, Mapping):
            for key, inner in reversed([*value.items()]):
                place = f"{where}.{key}".lstrip(".")
                waiting += [(place, inner), (f"{where or 'a key'}", key)]
        elif isinstance(value, list | tuple):
            waiting += [
                (f"{where}.{i}".lstrip("."), inner) for i, inner in reversed([*enumerate(value)])
            ]
    return None


def _fault_of(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character; remove it"
    if (found := _SURROGATE.search(text)) is not None:
        return (
            f"holds half a character (the lone surrogate \\u{ord(found[0]):04x}); write the whole "
            "character or remove it"
        )
    return None
