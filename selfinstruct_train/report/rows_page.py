"""A page of all rows, kept and dropped, to search, filter and mark; it works from the disk."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2
from markupsafe import Markup

from selfinstruct_train.records import (
    GeneratedInstance,
    Instruction,
    LeftOutRow,
    Neighbour,
    Provenance,
    Rejection,
    Row,
)
from selfinstruct_train.report.wording import visible
from selfinstruct_train.rounds.table import read_decision
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import Pruned
from selfinstruct_train.run.stores import RowStore, write_atomically

PAGE = "rows.html"
"""Beside the report; its rows are in the folder ``rows``."""
_HERE = Path(__file__).parent
_ROWS_A_CHUNK = 2000
_REJECTING: tuple[Literal["instructions", "instances"], ...] = ("instructions", "instances")


class ShownRow(Row):
    """A row as the page holds it; control and direction marks are spelled out."""

    id: str = ""
    """Of a row that is or was kept; what was dropped has none."""
    stage: str
    """``instruction``, ``instance`` or ``contamination``."""
    round: int
    reason: str
    """``kept``, ``pruned``, ``rolled_back``, ``left_out``, or why it was dropped."""
    why: str = ""
    """What the filter saw, or why it is live no more."""
    score: float | None = None
    """ROUGE-L F1 of the instruction with the nearest one in the pool, 0 to 1."""
    instruction: str
    input: str = ""
    output: str = ""
    nearest: str = ""
    provenance: str = ""


def write_rows(run: RunDirectory, environment: jinja2.Environment) -> Path:
    """Write the page of all rows and its folder of rows.

    The rows are JSON in script files, since a page on a disk may fetch nothing. Its content policy
    lets scripts run by a token that follows from the rows, so no row can hold it.

    Args:
        run: the run directory.
        environment: templates that escape what they put out.

    Returns:
        Path of the page.

    Raises:
        RunError: it cannot be written.
        DataError: a row of the run cannot be read.
    """
    folder = run.path / "rows"
    digest = hashlib.sha256()
    rows = _all_rows(run)
    total = chunks = 0
    while chunk := list(islice(rows, _ROWS_A_CHUNK)):
        total += len(chunk)
        text = _script(chunk)
        digest.update(text.encode())
        write_atomically(folder / f"{chunks:04}.js", text)
        chunks += 1
    for path in folder.glob("*.js"):
        if path.stem.isdigit() and int(path.stem) >= chunks:
            path.unlink()
    page = run.path / PAGE
    text = environment.get_template(PAGE).render(
        name=run.path.resolve().name,
        folder=shlex.quote(str(run.path)),
        nonce=digest.hexdigest()[:32],
        total=total,
        chunks=chunks,
        script=Markup((_HERE / "rows.js").read_text("utf-8")),
    )
    write_atomically(page, text)
    return page


def _script(rows: Iterable[ShownRow]) -> str:
    """A chunk as a script in ASCII: one string of JSON, which browsers read faster than code."""
    text = json.dumps([row.model_dump() for row in rows], separators=(",", ":"))
    return f"addRows({json.dumps(text)});\n"


class _Fate(NamedTuple):
    """What became of a row that the filters kept."""

    reason: str = "kept"
    why: str = ""


class _Fates:
    """What became of the rows of a round that the filters kept."""

    def __init__(self, directory: RoundDirectory, pruned: dict[str, _Fate]) -> None:
        decision = read_decision(directory)
        self._all = _Fate()
        if decision is not None and decision.rolled_back:
            self._all = _Fate("rolled_back", decision.reason)
        self._pruned = pruned
        store = RowStore(directory.selection, LeftOutRow, writable=False)
        self._left_out = {row.id: _left_out(row) for row in store.stream()}

    def of(self, *ids: str) -> _Fate:
        """Of a row with these ids, its own first: what a person did comes before what the run did.

        Rows that a person pruned are named so in a rolled-back round too.
        """
        for known in (self._pruned, self._left_out):
            if found := next((known[i] for i in ids if i in known), None):
                return found
        return self._all


def _left_out(row: LeftOutRow) -> _Fate:
    near = f" to {_neighbour(row.nearest)}" if row.nearest else ""
    return _Fate("left_out", f"{row.reason.replace('_', ' ')}{near}, weighed score {row.score:.3f}")


def _all_rows(run: RunDirectory) -> Iterator[ShownRow]:
    """Rounds in order; of each the instructions, the instances, and what was dropped."""
    store = RowStore(run.pruned, Pruned, writable=False)
    pruned = {row.id: _Fate("pruned", row.reason) for row in store.stream()}
    for number, directory in enumerate(run.rounds()):
        scores: dict[str, float] = {}
        fates = _Fates(directory, pruned)
        for row in RowStore(directory.instructions, Instruction, writable=False).stream():
            if row.nearest:
                scores[row.id] = row.nearest.score
            yield _instruction(number, row, fates.of(row.id))
        for made in RowStore(directory.instances, GeneratedInstance, writable=False).stream():
            fate = fates.of(made.id, made.instruction_id)
            yield _instance(number, made, scores.get(made.instruction_id), fate)
        for dropped in _rejections(directory):
            yield _rejection(number, dropped)


def _rejections(directory: RoundDirectory) -> Iterator[Rejection]:
    for stage in _REJECTING:
        yield from RowStore(directory.rejected(stage), Rejection, writable=False).stream()


def _instruction(number: int, row: Instruction, fate: _Fate) -> ShownRow:
    return ShownRow(
        id=row.id,
        stage="instruction",
        round=number,
        reason=fate.reason,
        why=visible(fate.why),
        score=row.nearest.score if row.nearest else None,
        instruction=visible(row.instruction),
        nearest=_neighbour(row.nearest),
        provenance=_origin(row.provenance),
    )


def _instance(number: int, row: GeneratedInstance, score: float | None, fate: _Fate) -> ShownRow:
    return ShownRow(
        id=row.id,
        stage="instance",
        round=number,
        reason=fate.reason,
        why=visible(fate.why),
        score=score,
        instruction=visible(row.instruction),
        input=visible(row.input),
        output=visible(row.output),
        provenance=f"instruction {row.instruction_id}; {_origin(row.provenance)}",
    )


def _rejection(number: int, row: Rejection) -> ShownRow:
    of = f"instruction {row.instruction_id}; " if row.instruction_id else ""
    return ShownRow(
        stage=row.stage,
        round=number,
        reason=row.reason,
        why=visible(row.evidence),
        score=row.nearest.score if row.nearest else None,
        instruction=visible(row.instruction),
        input=visible(row.input),
        output=visible(row.output),
        nearest=_neighbour(row.nearest),
        provenance=of + (_origin(row.provenance) if row.provenance else ""),
    )


def _neighbour(nearest: Neighbour | None) -> str:
    return visible(f"{nearest.id}: {nearest.instruction}") if nearest else ""


def _origin(made: Provenance) -> str:
    """Who wrote a row, from what, and how, in words."""
    parts = [f"request {made.request}"]
    if made.passage is not None:
        parts.append(f"passage {made.passage.words}")
    if made.demonstrations:
        parts.append(f"shown {', '.join(made.demonstrations)}")
    if made.operation is not None:
        parts.append(f"operation {made.operation}")
    parts += [f"{one.name} {one.value}" for one in made.attributes]
    parts.append(f"model {made.model}")
    if made.adapter:
        parts.append(f"adapter {made.adapter}")
    parts.append(f"temperature {made.sampling.temperature:g}")
    parts.append(f"seed {made.sampling.seed}")
    return visible("; ".join(parts))
