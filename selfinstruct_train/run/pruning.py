"""Taking rows out of a run: a tombstone for each, and what must then be made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import GeneratedInstance, Instruction
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.lock import RUN_LOCK, hold
from selfinstruct_train.run.rows import LiveRows, Pruned
from selfinstruct_train.run.stage import STAGES, dependencies
from selfinstruct_train.run.stores import RowStore

_NAMED = 5
"""Unknown ids that an error names."""


class Pruning(NamedTuple):
    """What pruning did."""

    pruned: int
    """Tombstones written."""
    before: int
    """Ids that had one already."""
    instances: int
    """Training rows that are live no more, those of pruned instructions too."""
    stale: tuple[str, ...]
    """Finished stages that were made of the rows, one line a round."""


class _Written(NamedTuple):
    """All rows of a run, pruned or not."""

    instructions: dict[str, tuple[str, ...]]
    """Id -> ids of the tasks that its prompt showed; in the order in which they were written."""
    instances: dict[str, str]
    """Id -> id of its instruction."""


def prune(run: RunDirectory, rows: Sequence[Pruned]) -> Pruning:
    """Take rows out: training, the next round, reports and exports no longer read them.

    The rows stay in their files; `pruned.jsonl` gets a line for each. An instruction takes its
    instances with it.

    Args:
        run: the run directory.
        rows: ids of instructions or instances, with the reason.

    Raises:
        RunError: the folder is not a run, an id is of no row, or another process works on the run.
        DataError: a row of the run cannot be read.
    """
    config = run.config()
    written = _read(run)
    unknown = [
        row.id
        for row in rows
        if row.id not in written.instructions and row.id not in written.instances
    ]
    if unknown:
        named = ", ".join(unknown[:_NAMED]) + (" and others" if len(unknown) > _NAMED else "")
        raise RunError(
            f"{run.path}: {len(unknown)} of {len(rows)} ids are of no row that this run wrote: "
            f"{named}; take ids from its instructions.jsonl, instances.jsonl or rows.html. "
            "Nothing was pruned"
        )
    with hold(run.path / RUN_LOCK, "run", "prune later"):
        before = LiveRows(run).pruned
        fresh = {row.id: row for row in rows if row.id not in before}
        RowStore(run.pruned, Pruned).append(fresh.values())
    gone = sum(
        not before & {id, instruction} and bool(fresh.keys() & {id, instruction})
        for id, instruction in written.instances.items()
    )
    stale = [
        f"round {number}: {', '.join(names)}"
        for number, directory in enumerate(run.rounds())
        if (
            names := [
                stage.name
                for stage in STAGES
                if "train" in dependencies(stage.name, number, config)
                and any(d.read_mark(stage.name) for d in directory.trainings().values())
            ]
        )
    ]
    known = {row.id for row in rows}
    return Pruning(len(fresh), len(known) - len(fresh), gone, tuple(stale) if fresh else ())


def descendants(run: RunDirectory, ancestor: str, reason: str) -> list[Pruned]:
    """A row, and all instructions whose prompts showed it or one of its descendants.

    Args:
        run: the run directory.
        ancestor: id of a row of the run, which counts as one of its descendants, or of a seed task,
            which does not.
        reason: why they are pruned.

    Raises:
        RunError: no row has the id or was written from it.
        DataError: a row of the run cannot be read.
    """
    written = _read(run)
    own = ancestor in written.instructions or ancestor in written.instances
    found = {ancestor: None}
    # A prompt shows what was there before it, so one pass in the order of writing finds all.
    for id, shown in written.instructions.items():
        if not found.keys().isdisjoint(shown):
            found[id] = None
    if not own:
        del found[ancestor]
    if not found:
        raise RunError(
            f"{run.path}: no row has the id '{ancestor}', and no prompt showed it; take an id from "
            "instructions.jsonl, rows.html or the seed file"
        )
    return [Pruned(id=id, reason=reason) for id in found]


def read_list(file: Path, reason: str) -> list[Pruned]:
    """Read what to prune: an id a line, or lines of pruned.jsonl, as rows.html saves them.

    Args:
        file: in UTF-8.
        reason: of ids that stand without one.

    Raises:
        DataError: the file cannot be read, is empty, or a line is neither.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = (
                Pruned.model_validate_json(line)
                if line.lstrip().startswith("{")
                else Pruned(id=line.strip())
            )
        except ValidationError as error:
            raise DataError(
                f'{file}, line {number}: {error.errors()[0]["msg"]}; write an id, or {{"id": "…", '
                '"reason": "…"}}'
            ) from None
        found.append(row if row.reason else row.model_copy(update={"reason": reason}))
    if not found:
        raise DataError(f"{file}: names no row; write an id a line")
    return found


def _read(run: RunDirectory) -> _Written:
    run.config()
    instructions = (
        row
        for directory in run.rounds()
        for row in RowStore(directory.instructions, Instruction, writable=False).stream()
    )
    instances = (
        row
        for directory in run.rounds()
        for row in RowStore(directory.instances, GeneratedInstance, writable=False).stream()
    )
    return _Written(
        {row.id: row.provenance.demonstrations for row in instructions},
        {row.id: row.instruction_id for row in instances},
    )
