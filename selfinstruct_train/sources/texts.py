"""The user's own texts, cut into passages of a useful length: whole paragraphs where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import regex

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import TextPlace
from selfinstruct_train.sources.reader import read_json_line, read_lines
from selfinstruct_train.text.characters import BYTE_ORDER_MARK, find_bad_character
from selfinstruct_train.text.words import Units, length

_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
_PARAGRAPH = regex.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
_HEADING = regex.compile(r"#{1,6}[ \t]+\S")
_SENTENCE_END = regex.compile(r"(?<=[.!?…][\"'”’»)\]]*)\s+|(?<=[。！？][”’」』）]*)(?![”’」』）])")


class Passage(NamedTuple):
    """A piece of a text, exactly as it stands there."""

    place: TextPlace
    text: str


class _Text(NamedTuple):
    file: str
    line: int | None
    text: str


class _Span(NamedTuple):
    start: int
    end: int


def read_passages(path: Path, units: Units, least: int, most: int) -> tuple[Passage, ...]:
    """Cut texts into passages.

    Paragraphs are put together as long as they fit; a heading of Markdown opens a new passage. A
    paragraph that is too long is cut between sentences. What is too short or, as a single
    sentence, too long is left out.

    Args:
        path: a folder with plain text or Markdown, its subfolders included; one such file; or a
            JSONL file, ``.gz`` or plain, whose rows hold a ``text``.
        units: what lengths are counted in.
        least: length of the shortest passage.
        most: length of the longest one.

    Returns:
        In the order of file names and of the places in them; none twice.

    Raises:
        DataError: there is no text, one cannot be read, or none holds a passage.
    """
    found: dict[str, Passage] = {}
    for file, line, text in _texts(path):
        for start, end in _cut(text, units, least, most):
            place = TextPlace(file=file, line=line, offset=start, length=end - start)
            found.setdefault(text[start:end], Passage(place, text[start:end]))
    if not found:
        raise DataError(
            f"{path}: holds no passage of {least} to {most} {units}; name other texts, or lower "
            "generation.passages.min_words"
        )
    return tuple(found.values())


def _texts(path: Path) -> Iterator[_Text]:
    path = path.expanduser()
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in _SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not files:
            raise DataError(
                f"{path}: holds no text; put {', '.join(_SUFFIXES)} files there, or name a .jsonl "
                "file whose rows hold a 'text'"
            )
        for file in files:
            yield _Text(file.relative_to(path).as_posix(), None, _read(file))
    elif path.name.removesuffix(".gz").endswith(".jsonl"):
        for number, line in read_lines(path):
            row = read_json_line(path, number, line)
            text = row.get("text") if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise DataError(
                    f"{path}, line {number}: no 'text'; each line is a JSON object that holds one"
                )
            yield _Text(path.name, number, text)
    elif path.suffix.lower() in _SUFFIXES:
        yield _Text(path.name, None, _read(path))
    else:
        what = "no such folder or file" if not path.exists() else "of no kind that can be cut"
        raise DataError(
            f"{path}: {what}; generation.texts names a folder of texts ({', '.join(_SUFFIXES)}), "
            "one of them, or a .jsonl file"
        )


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8").replace(BYTE_ORDER_MARK, "")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, for "
            "example with iconv"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if (bad := find_bad_character(text)) is not None:
        raise DataError(f"{path}: {bad.what}")
    return text


def _cut(text: str, units: Units, least: int, most: int) -> Iterator[_Span]:
    """Spans of passages, without the white space around them."""
    start = end = size = 0
    for span in _parts(text, units, most):
        own = length(text[span.start : span.end], units)
        opens = _HEADING.match(text, span.start) is not None and size >= least
        if size and (opens or size + own > most):
            if size >= least:
                yield _Span(start, end)
            size = 0
        if own > most:
            continue
        if not size:
            start = span.start
        end, size = span.end, size + own
    if size >= least:
        yield _Span(start, end)


def _parts(text: str, units: Units, most: int) -> Iterator[_Span]:
    """Paragraphs, and the sentences of those that are too long."""
    for paragraph in _PARAGRAPH.finditer(text):
        whole = _trimmed(text, *paragraph.span())
        if length(text[whole.start : whole.end], units) <= most:
            yield whole
            continue
        ends = [m.start() for m in _SENTENCE_END.finditer(text, whole.start, whole.end)]
        for piece in pairwise([whole.start, *ends, whole.end]):
            if text[slice(*piece)].strip():
                yield _trimmed(text, *piece)


def _trimmed(text: str, start: int, end: int) -> _Span:
    part = text[start:end]
    return _Span(start + len(part) - len(part.lstrip()), start + len(part.rstrip()))
