"""Rows to train on in the forms that they come in, read as one: Alpaca, messages, ShareGPT, pairs.

A file is JSON, JSON lines (``.gz`` too), CSV or Parquet; anything else is a data set of the Hub.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import Row, is_visible
from selfinstruct_train.sources.reader import read_json, read_json_line, read_lines
from selfinstruct_train.text.characters import find_bad_character

_SHOWN = 5
_HUB = "hf://datasets/"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ROLES = {
    "human": "user",
    "developer": "system",
    **dict.fromkeys(("gpt", "chatgpt", "bot"), "assistant"),
}
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_END = re.compile(r"(?:<\|endoftext\|>\s*)+\Z")
"""What the official file of fine-tuning data ends completions with."""
_FORMS = (
    "'instruction' and 'output' (Alpaca), 'instruction' and 'instances' (seed tasks), 'messages', "
    "'conversations' (ShareGPT), or 'prompt' and 'completion'"
)


class OwnRow(Row):
    """One worked example of the user's own."""

    id: str
    instruction: str = Field(min_length=1)
    input: str = ""
    output: str = Field(min_length=1)
    is_classification: bool = False
    is_prompt: bool = False
    """Whether the instruction is a whole prompt, which may be worded as a template is."""
    category: str | None = None
    task_type: str | None = None


class _Found(NamedTuple):
    """A row as it stands in its file."""

    where: str
    """``line 3`` or ``row 3``."""
    data: Any


class _Asked(NamedTuple):
    """An instruction, its input and the answer."""

    instruction: str
    input: str
    output: str
    is_prompt: bool = False


class _BadRowError(Exception):
    """What is wrong with a row, as the end of a sentence."""


def read_own(name: str, id_from: str | None = None) -> tuple[OwnRow, ...]:
    """Read rows of any of the forms; each worked example of a row becomes one.

    Args:
        name: a file, ``user/name`` or ``hf://datasets/user/name`` on the Hub.
        id_from: the field that holds a row's id; by default ``id``, else its number.

    Raises:
        DataError: the file or data set cannot be read, has no rows, or rows are not of a form that
            is known; the first few are named with their lines, and how many there are.
    """
    rows: list[OwnRow] = []
    faults: list[str] = []
    ids: dict[str, str] = {}
    for number, found in enumerate(_rows(name), 1):
        try:
            row_id = _id_of(found.data, id_from, number)
            if row_id in ids:
                raise _BadRowError(
                    f"id '{row_id}' is already on {ids[row_id]}; take ids from another field"
                )
            ids[row_id] = found.where
            rows += _own_rows(found.data, row_id)
        except _BadRowError as fault:
            faults.append(f"{found.where}: {fault}")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more rows" if len(faults) > _SHOWN else ""
        raise DataError(f"{name}, " + "; ".join(faults[:_SHOWN]) + more)
    if not rows:
        raise DataError(f"{name}: holds no rows; each needs {_FORMS}")
    return tuple(rows)


def is_file_name(name: str) -> bool:
    """Whether a name can only mean a file here, not a data set of the Hub."""
    return not name.startswith(_HUB) and (
        name.startswith(".")
        or Path(name).expanduser().exists()
        or _HUB_NAME.fullmatch(name) is None
    )


def _rows(name: str) -> Iterator[_Found]:
    path = Path(name).expanduser()
    if not is_file_name(name):
        yield from _numbered(_from_hub(name.removeprefix(_HUB)))
        return
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    match kind:
        case "csv" | "tsv":
            yield from _from_csv(path)
        case "parquet":
            yield from _numbered(_from_parquet(path))
        case "json":
            yield from _from_json(path)
        case _:
            for number, line in read_lines(path):
                yield _Found(f"line {number}", read_json_line(path, number, line))


def _numbered(rows: Iterable[Any]) -> Iterator[_Found]:
    for number, row in enumerate(rows, 1):
        yield _Found(f"row {number}", row)


def _from_csv(path: Path) -> Iterator[_Found]:
    text = _whole_text(path)
    header = text.lstrip().partition("\n")[0]
    # A comma, or what spreadsheets write in its place.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), strict=True, delimiter=delimiter)
    begun = 1
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise DataError(f"{path}, line 1: two columns are '{twice[0]}'; rename one of them")
        reader.fieldnames = names
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, line {reader.line_num}: has not as many cells as the header; quote "
                    "cells that hold commas or line ends"
                )
            yield _Found(f"line {reader.line_num}", row)
            begun = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: not CSV ({error}) in the row that begins on line {max(begun, 2)}; close "
            "quotes, write those inside a cell twice, and leave out cells of a book's length"
        ) from None


def _from_json(path: Path) -> Iterator[_Found]:
    text = _whole_text(path)
    if not text.strip():
        return
    try:
        data = read_json(text, str(path))
    except DataError:
        if text.lstrip().startswith("["):
            raise
    else:
        yield from _numbered(data if isinstance(data, list) else [data])
        return
    try:
        for number, line in read_lines(path):
            yield _Found(f"line {number}", read_json_line(path, number, line))
    except DataError:
        raise DataError(
            f"{path}: neither a JSON array of rows nor a JSON object a line; write '[' before "
            "the first row and ']' after the last, with commas between"
        ) from None


def _whole_text(path: Path) -> str:
    """A text with its line numbers kept: cells and values may hold line ends."""
    lines: list[str] = []
    for number, line in read_lines(path):
        lines += [""] * (number - 1 - len(lines)) + [line]
    return "\n".join(lines)


def _from_parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from None


def _from_hub(name: str) -> Iterator[Any]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split="train")
    except Exception as error:  # faults of hub, network and format come as a dozen classes
        detail = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name}: neither a file here nor a data set of the Hub that can be read ({detail}); "
            "check the name, or download it and name the file"
        ) from None
    yield from rows


def _id_of(data: Any, id_from: str | None, number: int) -> str:
    if not isinstance(data, Mapping):
        raise _BadRowError(f"is {type(data).__name__}, not an object with {_FORMS}")
    if (bad := find_bad_character(data)) is not None:
        raise _BadRowError(f"{bad.where}: {bad.what}")
    if id_from is not None and id_from not in data:
        raise _BadRowError(f"has no field '{id_from}' to take an id from")
    found = data.get(id_from or "id")
    return str(number) if found is None else str(found)


def _own_rows(data: Mapping[str, Any], row_id: str) -> Iterator[OwnRow]:
    asked = list(_asked(data))
    is_classification = _BOOLEANS.get(str(data.get("is_classification") or False).lower())
    if is_classification is None:
        raise _BadRowError("'is_classification' is neither true nor false")
    for place, one in enumerate(asked):
        if not is_visible(one.instruction):
            raise _BadRowError("the instruction is empty; write one or leave the row out")
        if not is_visible(one.output):
            raise _BadRowError("the answer is empty; write one or leave the row out")
        yield OwnRow(
            id=row_id if len(asked) == 1 else f"{row_id}#{place}",
            instruction=one.instruction,
            input=one.input,
            output=one.output,
            is_classification=is_classification,
            is_prompt=one.is_prompt,
            category=_label(data, "category"),
            task_type=_label(data, "task_type"),
        )


def _asked(data: Mapping[str, Any]) -> Iterator[_Asked]:
    if isinstance(data.get("messages"), list):
        yield _from_messages(data["messages"])
    elif isinstance(data.get("conversations"), list):
        yield _from_messages(data["conversations"])
    elif isinstance(data.get("instances"), list) and data["instances"]:
        for instance in data["instances"]:
            given = instance if isinstance(instance, Mapping) else {}
            yield _Asked(
                _text(data, "instruction"), _text(given, "input", ""), _text(given, "output")
            )
    elif "instruction" in data:
        yield _Asked(_text(data, "instruction"), _text(data, "input", ""), _text(data, "output"))
    elif isinstance(data.get("prompt"), list):
        said = data["prompt"] + list(data.get("completion") or [])
        yield _from_messages(said)
    elif "prompt" in data:
        answer = _END.sub("", _text(data, "completion")).strip()
        yield _Asked(_text(data, "prompt").rstrip(), "", answer, is_prompt=True)
    else:
        known = ", ".join(f"'{key}'" for key in list(data)[:8]) or "nothing"
        raise _BadRowError(f"holds {known}, but needs {_FORMS}")


def _from_messages(messages: list[Any]) -> _Asked:
    """Turns, each with ``role`` and ``content`` or, in ShareGPT, with ``from`` and ``value``."""
    said: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    order = ""
    for message in messages:
        given = message if isinstance(message, Mapping) else {}
        role = str(given.get("role", given.get("from"))).lower()
        who = _ROLES.get(role, role)
        if who not in said:
            raise _BadRowError(f"a message is of '{who}', not of system, user or assistant")
        said[who].append(_text(given, "content" if "content" in given else "value"))
        order += who[0]
    if re.fullmatch("s?u{1,2}a", order) is None:
        raise _BadRowError(
            f"has {len(messages)} messages ({order}); a row is one question of the user, or an "
            "instruction and its input, and one answer: make a row of each question"
        )
    return _Asked(
        "\n\n".join(filter(None, [*said["system"], said["user"][0]])),
        "".join(said["user"][1:]),
        said["assistant"][0],
    )


def _label(data: Mapping[str, Any], key: str) -> str | None:
    found = data.get(key)
    return found.strip() or None if isinstance(found, str) else None


def _text(data: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if value is None and default is not None:
        return default
    if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        if other := [part.get("type") for part in value if not isinstance(part.get("text"), str)]:
            raise _BadRowError(f"'{key}' holds a part of type {other[0]!r}; only text can be used")
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise _BadRowError(f"'{key}' is {'missing' if value is None else 'not a text'}")
    return value
