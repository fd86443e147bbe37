"""Files that a kill leaves whole: rows that are only appended, files that are replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import Row

RowT = TypeVar("RowT", bound=Row)
ModelT = TypeVar("ModelT", bound=BaseModel)

_SYNC_SECONDS = 0.5
_ROWS_AT_ONCE = 4096
_CHUNK = 65536


class RowStore(Generic[RowT]):
    """An append-only JSONL file of one row type that a deterministic stage writes, or writes again.

    A stage that is resumed runs from its start with the stored completions and emits the same rows;
    those that are already in the file are recognised and passed over. So the file only ever grows,
    and the end of a stopped run equals the end of an undisturbed one. Rows stay on the disk: what a
    store holds in memory does not grow with its file.
    """

    def __init__(self, path: Path, row_type: type[RowT], writable: bool = True) -> None:
        self.path = path
        self._row_type = row_type
        self._writable = writable
        self._end, self._torn = _end_of_lines(path)
        self._next = self._at = 0
        self._synced = time.monotonic()

    def read(self) -> tuple[RowT, ...]:
        """The rows in the file.

        Raises:
            DataError: a line is not such a row.
        """
        return tuple(self.stream())

    def stream(self) -> Iterator[RowT]:
        """The rows in the file one by one, for files that memory should not hold.

        Raises:
            DataError: a line is not such a row.
        """
        for _, row in self.places():
            yield row

    def places(self) -> Iterator[tuple[int, RowT]]:
        """The rows in the file with their places, by which `at` finds them again.

        Raises:
            DataError: a line is not such a row.
        """
        place = 0
        for number, line in enumerate(_lines(self.path), 1):
            yield place, self._parse(line, f"line {number}")
            place += len(line)

    def at(self, place: int) -> RowT:
        """The row at a place that `places` told.

        Raises:
            DataError: the line there is not such a row.
        """
        with self.path.open("rb") as file:
            file.seek(place)
            return self._parse(file.readline(), f"byte {place}")

    def append(self, rows: Iterable[RowT], *, sync: bool = True) -> None:
        """Write rows after all that the file holds.

        Args:
            rows: what to write.
            sync: see them on the disk before returning. Without, a kill of the process still loses
                none, but a power cut may lose those since the last `sync`, which comes by itself
                with the first append after half a second.

        Raises:
            RunError: the disk is full.
        """
        self._at = self._end
        self._write(_encoded(rows), sync or time.monotonic() - self._synced > _SYNC_SECONDS)

    def sync(self) -> None:
        """See on the disk what was appended without.

        Raises:
            RunError: the disk is full.
        """
        self._write(b"", True)

    def resume(self, batch: int) -> int:
        """Pass over the whole batches of rows that are in the file.

        Args:
            batch: rows that the stage makes together, and so must make together again.

        Returns:
            Rows passed over: the next row to make.
        """
        self._pass(count_rows(self.path) // batch * batch)
        return self._next

    def emit(self, rows: Iterable[RowT]) -> None:
        """Write the stage's next rows, less those that a stopped run already wrote.

        They reach the disk together, so a batch in one call costs what a single row does.

        Raises:
            RunError: a row differs from what the file holds, so this is not the run that wrote it;
                or the disk is full.
        """
        waiting = iter(rows)
        if self._at < self._end:
            with self.path.open("rb") as file:
                file.seek(self._at)
                while self._at < self._end and (row := next(waiting, None)) is not None:
                    self._recognise(row, file.readline())
        # A stage that has nothing to say leaves an empty file: it was here.
        wrote = not self.path.exists()
        while fresh := _encoded(islice(waiting, _ROWS_AT_ONCE)):
            self._write(fresh, False)
            wrote = True
        if wrote or (self._torn and self._at == self._end):
            self.sync()

    def _parse(self, line: bytes, where: str) -> RowT:
        try:
            return self._row_type.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{self.path}, {where}: {error.errors()[0]['msg']}; the file was changed by hand "
                "or by another version: restore it, or delete the run's folder of this round"
            ) from None

    def _recognise(self, row: RowT, line: bytes) -> None:
        if line != _encoded([row]):
            raise RunError(
                f"{self.path}, line {self._next + 1}: this run would write another row "
                "here; the run directory is of another machine, model or version: use a "
                "new output_dir"
            )
        self._at += len(line)
        self._next += 1

    def _pass(self, rows: int) -> None:
        self._next = self._at = 0
        for line in islice(_lines(self.path), rows):
            self._at += len(line)
            self._next += 1

    def _write(self, data: bytes, sync: bool) -> None:
        if not self._writable:
            return
        # Only a writer may cut: whoever reads a running run would cut what is being written.
        if self._torn:
            with self.path.open("r+b") as file:
                file.truncate(self._end)
        # A full disk may take half of the bytes.
        self._torn = True
        append_bytes(self.path, data, sync=sync)
        self._torn = False
        self._at = self._end = self._end + len(data)
        if sync:
            self._synced = time.monotonic()


def append_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Hand bytes to the system and, unless told not to, see the whole file on the disk.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); make room or fix the permissions and "
            "run the same command again: what was finished is kept"
        ) from None


def count_rows(path: Path) -> int:
    """How many complete rows a file holds; none where it is missing."""
    return sum(1 for _ in _lines(path))


def is_torn(path: Path) -> bool:
    """Whether a kill left the file's last line unfinished."""
    return _end_of_lines(path)[1]


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


def read_json(path: Path, model: type[ModelT], fix: str) -> ModelT:
    """Read a file that holds one JSON object, as `write_atomically` left it.

    Args:
        path: the file.
        model: what the object must be.
        fix: what the user can do about a damaged one, as the end of a sentence.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        return model.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}; {fix}") from None


def _encoded(rows: Iterable[Row]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)


def _lines(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, with their ends; a torn one, left by a kill, is no line."""
    if path.is_file():
        with path.open("rb") as file:
            # Bytes break at line ends alone; text also would where JSON leaves them unescaped.
            yield from takewhile(lambda line: line.endswith(b"\n"), file)


def _end_of_lines(path: Path) -> tuple[int, bool]:
    """How many bytes the complete lines of a file have, and whether a torn line follows them."""
    if not path.is_file():
        return 0, False
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1, start + found + 1 < size
            end = start
    return 0, size > 0
