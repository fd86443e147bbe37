"""Files that a kill leaves whole: rows that are only appended, files that are replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import Row

RowT = TypeVar("RowT", bound=Row)
ModelT = TypeVar("ModelT", bound=BaseModel)


class RowStore(Generic[RowT]):
    """An append-only JSONL file of one row type that a deterministic stage writes, or writes again.

    A stage that is resumed runs from its start with the stored completions and emits the same rows;
    those that are already in the file are recognised and passed over. So the file only ever grows,
    and the end of a stopped run equals the end of an undisturbed one.
    """

    def __init__(self, path: Path, row_type: type[RowT], writable: bool = True) -> None:
        self.path = path
        self._row_type = row_type
        self._writable = writable
        self._lines, self._whole = _complete_lines(path)
        self._next = 0

    def read(self) -> tuple[RowT, ...]:
        """The rows in the file.

        Raises:
            DataError: a line is not such a row.
        """
        rows = []
        for number, line in enumerate(self._lines, 1):
            try:
                rows.append(self._row_type.model_validate_json(line))
            except ValidationError as error:
                raise DataError(
                    f"{self.path}, line {number}: {error.errors()[0]['msg']}; the file was "
                    "changed by hand or by another version: restore it, or delete the run's "
                    "folder of this round"
                ) from None
        return tuple(rows)

    def append(self, rows: Iterable[RowT]) -> None:
        """Write rows after all that the file holds.

        Raises:
            RunError: the disk is full.
        """
        self._next = len(self._lines)
        self.emit(rows)

    def skip(self, rows: int) -> None:
        """Pass over rows that an earlier step wrote to the same file."""
        self._next = rows

    def resume(self, batch: int) -> int:
        """Pass over the whole batches of rows that are in the file.

        Args:
            batch: rows that the stage makes together, and so must make together again.

        Returns:
            Rows passed over: the next row to make.
        """
        self._next = len(self._lines) // batch * batch
        return self._next

    def emit(self, rows: Iterable[RowT]) -> None:
        """Write the stage's next rows, less those that a stopped run already wrote.

        Raises:
            RunError: a row differs from what the file holds, so this is not the run that wrote it;
            or the disk
                is full.
        """
        fresh = []
        for row in rows:
            line = row.model_dump_json()
            if self._next < len(self._lines):
                if self._lines[self._next] != line:
                    raise RunError(
                        f"{self.path}, line {self._next + 1}: this run would write another row "
                        "here; the run directory is of another machine, model or version: use a "
                        "new output_dir"
                    )
            else:
                self._lines.append(line)
                fresh.append(line)
            self._next += 1
        # A stage that has nothing to say leaves an empty file: it was here.
        if self._writable and (fresh or not self.path.exists()):
            self._cut_torn_line()
            append_lines(self.path, fresh)

    def _cut_torn_line(self) -> None:
        # Only a writer may cut: whoever reads a running run would cut what is being written.
        if self._whole is not None:
            with self.path.open("r+b") as file:
                file.truncate(self._whole)
            self._whole = None


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines and see them on the disk.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); make room or mend the permissions and "
            "run the same command again: what was finished is kept"
        ) from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new, never a half.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    scratch = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); make room and run the same command "
            "again"
        ) from None


def read_json(path: Path, model: type[ModelT], mend: str) -> ModelT:
    """Read a file that holds one JSON object, as `write_atomically` left it.

    Args:
        path: the file.
        model: what the object must be.
        mend: what the user can do about a damaged one, as the end of a sentence.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        return model.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}; {mend}") from None


def _complete_lines(path: Path) -> tuple[list[str], int | None]:
    """The complete lines of a file, and their bytes where a torn line, left by a kill, follows."""
    if not path.exists():
        return [], None
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    try:
        # Not splitlines(): it also breaks at characters that JSON leaves unescaped.
        lines = whole.decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    return lines, len(whole) if len(whole) < len(data) else None
