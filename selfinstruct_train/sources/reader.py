"""Reading task files line by line, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import Row, SeedTask
from selfinstruct_train.text.characters import BYTE_ORDER_MARK, find_bad_character

RowT = TypeVar("RowT", bound=Row)

_ESCAPED_MARK = re.compile(r"(?<!\\)((?:\\\\)*)\\u[fF][eE][fF][fF]")
_SUSPICIOUS = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
"""Escapes of surrogates and of NUL: nowhere else can a line of UTF-8 hold them."""

_FIX = "correct it; in JSON lines each object is on a line of its own, as jq -c writes it"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of a text file, gzip or plain, blank lines left out.

    Byte order marks (U+FEFF), which editors and joined files leave behind, are left out too. That a
    file is compressed shows by its first bytes, whatever it is called.

    Raises:
        DataError: the file is missing, unreadable or not UTF-8, or a line holds a NUL.
    """
    try:
        with path.open("rb") as raw, _text(raw) as lines:
            for number, line in enumerate(lines, 1):
                line = line.replace(BYTE_ORDER_MARK, "")
                if "\0" in line:
                    raise DataError(
                        f"{path}, line {number}: holds a NUL character, so this is not text, or "
                        "one that was damaged; restore the file or remove the character"
                    )
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, for "
            "example with iconv"
        ) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _text(raw: io.BufferedReader) -> io.TextIOWrapper:
    zipped = raw.peek(2)[:2] == b"\x1f\x8b"
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if zipped else raw, encoding="utf-8")


def read_json_line(path: Path, number: int, line: str) -> Any:
    """Read a line as JSON whose texts can all be written and tokenized.

    Raises:
        DataError: it is not; the message names file, line and place.
    """
    data = read_json(line, f"{path}, line {number}")
    if _SUSPICIOUS.search(line) and (bad := find_bad_character(data)) is not None:
        raise DataError(f"{path}, line {number}: {bad.where}: {bad.what}")
    return data


def read_json(text: str, where: str) -> Any:
    """Read JSON that says one thing.

    Raises:
        DataError: it is not JSON, a key is given twice, a number or the nesting is beyond all use.
    """
    try:
        return json.loads(_ESCAPED_MARK.sub(r"\1", text), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(
            f"{where}: not JSON ({error.msg} at {line}column {error.colno}); {_FIX}"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be a row; restore the line") from None
    except _TwiceError as error:
        raise DataError(f"{where}: {error}; keep one of them") from None
    except ValueError:
        raise DataError(f"{where}: holds a number of thousands of digits; correct it") from None


class _TwiceError(ValueError):
    """A key that is given twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"the key '{twice}' is given twice")
    return found


def read_rows(path: Path, row_type: type[RowT]) -> tuple[RowT, ...]:
    """Read a JSONL file of one row type.

    Raises:
        DataError: a line is not such a row (the message names file, line and field), two rows share
        an id, or
            the file holds no row.
    """
    rows: list[RowT] = []
    ids: dict[str, int] = {}
    for number, line in read_lines(path):
        try:
            row = row_type.model_validate(read_json_line(path, number, line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "row"
            what = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                what = "unknown key; leave it out or correct its name"
            raise DataError(f"{path}, line {number}: {where}: {what}") from None
        if (row_id := getattr(row, "id", None)) is not None:
            if row_id in ids:
                raise DataError(
                    f"{path}, line {number}: id '{row_id}' is already on line {ids[row_id]}"
                )
            ids[row_id] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no rows; it needs one JSON object a line")
    return tuple(rows)


def read_seed_tasks(path: Path) -> tuple[SeedTask, ...]:
    """Read seed tasks in the official schema.

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, SeedTask)
