"""Reading task files line by line, with errors that name the file and the line."""

from __future__ import annotations

import gzip
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


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of a text file, ``.gz`` or plain, blank lines left out.

    Byte order marks (U+FEFF), which editors and joined files leave behind, are left out too.

    Raises:
        DataError: the file is missing, unreadable or not UTF-8, or a line holds a NUL.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
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


def read_json_line(path: Path, number: int, line: str) -> Any:
    """Read a line as JSON whose texts can all be written and tokenized.

    Raises:
        DataError: it is not; the message names file, line and place.
    """
    try:
        data = json.loads(_ESCAPED_MARK.sub(r"\1", line))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})"
        ) from None
    except RecursionError:
        raise DataError(
            f"{path}, line {number}: nested too deeply to be a row; restore the line"
        ) from None
    except ValueError:
        raise DataError(
            f"{path}, line {number}: holds a number of thousands of digits; correct it"
        ) from None
    if _SUSPICIOUS.search(line) and (bad := find_bad_character(data)) is not None:
        raise DataError(f"{path}, line {number}: {bad.where}: {bad.what}")
    return data


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
