"""Seed tasks in the official schema, or made of rows of any other form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.lenient import OwnRow, is_file_name, read_own
from selfinstruct_train.sources.reader import read_lines, read_seed_tasks
from selfinstruct_train.sources.registry import SOURCES


class SeedSplit(NamedTuple):
    """Seed tasks to start from, and those that a model is measured on."""

    kept: tuple[SeedTask, ...]
    held_out: tuple[SeedTask, ...]


def read_seeds(name: str, id_from: str | None = None) -> tuple[SeedTask, ...]:
    """Read seed tasks.

    Args:
        name: one that ``selfinstruct data list`` shows, a file, or a data set of the Hub. Rows that
            are no seed tasks are put together by their instruction.
        id_from: the field that holds a row's id; by default ``id``, else its number.

    Raises:
        DataError: the rows cannot be read; the message names file and line.
    """
    if any(source.name == name for source in SOURCES) or is_file_name(name):
        path = resolve(name)
        if id_from is None and _is_official(path):
            return read_seed_tasks(path)
        name = str(path)
    tasks: dict[str, list[OwnRow]] = {}
    for row in read_own(name, id_from):
        tasks.setdefault(row.instruction, []).append(row)
    return tuple(_task(rows) for rows in tasks.values())


def split_seeds(tasks: Sequence[SeedTask], share: float, seed: int) -> SeedSplit:
    """Hold out a share of the seed tasks.

    Args:
        tasks: all of them, in the order that is kept.
        share: 0 to 1; at least one is held out where it is above 0.
        seed: chooses them; a task's rank depends on its instruction and on nothing else.

    Raises:
        DataError: none would be left.
    """
    ranked = sorted(
        range(len(tasks)),
        key=lambda n: hashlib.sha256(f"{seed}:{tasks[n].instruction}".encode()).hexdigest(),
    )
    chosen = set(ranked[: max(1, round(share * len(tasks)))] if share else ())
    if len(chosen) == len(tasks):
        raise DataError(f"seeds.hold_out {share:g} holds out all {len(tasks)} seed tasks; lower it")
    return SeedSplit(
        tuple(task for n, task in enumerate(tasks) if n not in chosen),
        tuple(task for n, task in enumerate(tasks) if n in chosen),
    )


def _is_official(path: Path) -> bool:
    if path.suffix not in (".jsonl", ".gz"):
        return False
    first = next((line for _, line in read_lines(path)), "")
    try:
        row = json.loads(first)
    except (RecursionError, ValueError):
        return True
    return isinstance(row, dict) and "instances" in row


def _task(rows: Sequence[OwnRow]) -> SeedTask:
    first = rows[0]
    return SeedTask(
        id=first.id.partition("#")[0],
        name=first.id.partition("#")[0],
        instruction=first.instruction,
        instances=tuple(Instance(input=row.input, output=row.output) for row in rows),
        is_classification=first.is_classification,
        category=first.category,
        task_type=first.task_type,
    )
