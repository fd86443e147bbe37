"""Completion marks: what a stage was made of, and the files that it vouches for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from selfinstruct_train.errors import RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import read_json

FORMAT = 1
"""Of run directories; a newer version of the package that writes other rows counts it up."""
_PIECE = 1 << 20


class VouchedFile(Row):
    """A file as the stage left it."""

    rows: Annotated[int, Field(ge=0)]
    """Line ends in it."""
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: str


class Mark(Row):
    """A stage's completion mark, written last."""

    stage: str
    format: int = FORMAT
    finished: str
    """UTC, ISO 8601."""
    seconds: float
    """Time the stage took in the process that finished it."""
    figures: dict[str, float | int | str | None]
    """What the stage has to say of itself, for the report."""
    fingerprint: str = ""
    """Hash of ``depends_on``."""
    depends_on: dict[str, Any] = {}
    """Settings and hashes of contents that the result was made of."""
    files: dict[str, VouchedFile] = {}
    """Path within the round -> what the file must hold."""


class _Format(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT


def read_mark(path: Path) -> Mark | None:
    """Read a completion mark, or None where there is none.

    Raises:
        DataError: the mark is damaged.
        RunError: a newer version of the package wrote it.
    """
    if not path.exists():
        return None
    fix = "damaged: delete it and run the same command again"
    require_known_format(path, read_json(path, _Format, fix).format)
    return read_json(path, Mark, fix)


def require_known_format(path: Path, number: int) -> None:
    """See that this version of the package can read a run.

    Raises:
        RunError: a newer one wrote it.
    """
    if number > FORMAT:
        raise RunError(
            f"{path}: written by a newer version of selfinstruct-train (format {number}, this one "
            f"reads up to {FORMAT}); install that version, or use another output_dir"
        )


def vouch(folder: Path, paths: Iterable[Path]) -> dict[str, VouchedFile]:
    """Describe the files, and all files within the folders, that are there.

    Args:
        folder: that the paths are named relative to.
        paths: files or folders.
    """
    files = (
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    )
    return {str(file.relative_to(folder)): _describe(file) for file in files}


def require_files(folder: Path, mark: Mark) -> tuple[str, ...]:
    """See that the files of a finished stage are as it left them.

    A tail of NUL bytes, as a power cut leaves it, is cut off.

    Returns:
        What was set right, one sentence each.

    Raises:
        RunError: a file is missing or was changed.
    """
    notes = []
    for name, wanted in mark.files.items():
        path = folder / name
        problem = "is missing"
        if path.is_file():
            found = _describe(path)
            if found != wanted and _cut_nul_tail(path, wanted.bytes):
                notes.append(f"{path}: cut off a tail of NUL bytes, as a power cut leaves it")
                found = _describe(path)
            if found == wanted:
                continue
            problem = (
                f"holds {found.rows} rows, not {wanted.rows}"
                if found.rows != wanted.rows and path.suffix == ".jsonl"
                else "was changed"
            )
        raise RunError(
            f"{path}: {problem} since stage '{mark.stage}' was finished; restore the file, make "
            f"the stage again by adding --redo {mark.stage} to the command, or give another "
            "output_dir"
        )
    return tuple(notes)


def _describe(path: Path) -> VouchedFile:
    digest = hashlib.sha256()
    rows = size = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            rows += piece.count(b"\n")
            size += len(piece)
    return VouchedFile(rows=rows, bytes=size, sha256=digest.hexdigest())


def _cut_nul_tail(path: Path, size: int) -> bool:
    with path.open("r+b") as file:
        file.seek(size)
        is_nul, any_there = True, False
        while is_nul and (piece := file.read(_PIECE)):
            is_nul, any_there = not piece.strip(b"\0"), True
        if is_nul and any_there:
            file.truncate(size)
    return is_nul and any_there
