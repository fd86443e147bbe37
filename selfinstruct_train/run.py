"""The run directory: sole owner of file names, and of writing so that a kill loses nothing."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from selfinstruct_train.config import Config, changed_keys, load_config, save_config
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import ConfigError, DataError, RunError
from selfinstruct_train.records import Row

RowT = TypeVar("RowT", bound=Row)
ModelT = TypeVar("ModelT", bound=BaseModel)

# A run may be resumed with these changed: they do not touch what is already written.
_FREE_KEYS = (
    "output_dir",
    "rounds",
    "training.report_to",
    "evaluation.suites",
    "evaluation.judge",
    "evaluation.published",
    "evaluation.held_out",
    "evaluation.harness",
    "model.threads",
)
_PACKAGES = (
    "selfinstruct-train",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "rouge-score",
)


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


class Mark(Row):
    """A stage's completion mark, written last."""

    stage: str
    finished: str
    """UTC, ISO 8601."""
    seconds: float
    """Time the stage took in the process that finished it."""
    figures: dict[str, float | int | str | None]
    """What the stage has to say of itself, for the report."""


class RoundDirectory:
    """The files of one round."""

    def __init__(self, path: Path, world: World = ALONE) -> None:
        self.path = path
        self.world = world
        self.instructions = path / "instructions.jsonl"
        self.rejected = path / "rejected.jsonl"
        self.classified = path / "classified.jsonl"
        self.instances = path / "instances.jsonl"
        self.dataset = path / "dataset"
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.contamination = path / "contamination.jsonl"
        self.training_steps = path / "training.jsonl"

    def store(self, path: Path, row_type: type[RowT]) -> RowStore[RowT]:
        """A row store on a file of this round."""
        return RowStore(path, row_type, self.world.is_main)

    def completions(self, stage: str) -> Path:
        """The journal of a stage's completions, from which it resumes."""
        return self.path / "completions" / f"{stage}.jsonl"

    def evaluation(self, suite: str) -> Path:
        """The folder of an evaluation suite."""
        return self.path / "eval" / suite

    def mark(self, stage: str) -> Mark | None:
        """The completion mark of a stage, or None while it is not done; every process must ask.

        Raises:
            DataError: the mark is damaged.
        """
        return self.world.on_main(lambda: self._read_mark(stage))

    def finish(self, stage: str, seconds: float, **figures: float | int | str | None) -> None:
        """Write the completion mark of a stage; every process must call.

        No process goes on before the main one has written all rows of the stage.
        """
        mark = Mark(stage=stage, finished=_now(), seconds=round(seconds, 3), figures=figures)
        text = mark.model_dump_json(indent=1) + "\n"
        self.world.on_main(lambda: write_atomically(self._mark_path(stage), text))

    def _read_mark(self, stage: str) -> Mark | None:
        path = self._mark_path(stage)
        if not path.exists():
            return None
        return read_json(path, Mark, "damaged: delete it and run the same command again")

    def _mark_path(self, stage: str) -> Path:
        return self.path / "done" / f"{stage}.json"


class RunDirectory:
    """A run's folder."""

    def __init__(self, path: Path, world: World = ALONE) -> None:
        self.path = path
        self.world = world
        self.config_file = path / "config.yaml"
        self.manifest = path / "manifest.json"
        self.report = path / "report.html"

    def round(self, number: int) -> RoundDirectory:
        """The files of a round, counted from 0."""
        return RoundDirectory(self.path / f"round-{number}", self.world)

    def rounds(self) -> list[RoundDirectory]:
        """The rounds begun so far, in order."""
        numbers = sorted(
            int(p.name.removeprefix("round-"))
            for p in self.path.glob("round-*")
            if p.name[6:].isdigit()
        )
        return [self.round(n) for n in numbers]

    def seeds_only(self, steps: int) -> RoundDirectory:
        """The files of the model trained on seed tasks alone for a number of steps."""
        return RoundDirectory(self.path / "seeds-only" / f"steps-{steps}", self.world)

    def config(self) -> Config:
        """The resolved config of the run.

        Raises:
            RunError: the folder is not a run directory.
        """
        if not self.config_file.exists():
            raise RunError(
                f"{self.path}: not a run directory (no config.yaml); name the output_dir of a run"
            )
        return load_config(self.config_file)

    def open(self, config: Config) -> None:
        """Begin a run here, or go on with the one that was begun; every process must call.

        Raises:
            ConfigError: the run was begun with other settings.
            RunError: the folder cannot be written, or holds something else.
        """
        self.world.on_main(lambda: self._open(config))

    def _open(self, config: Config) -> None:
        if self.config_file.exists():
            old = load_config(self.config_file)
            changed = [k for k in changed_keys(old, config) if not k.startswith(_FREE_KEYS)]
            if changed:
                raise ConfigError(
                    f"{self.path}: this run was begun with another {', '.join(changed)}; restore "
                    "the setting, or give another output_dir"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: holds files but no run; give an empty or new output_dir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            save_config(config, self.config_file)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); give another output_dir"
            ) from None
        self._write_manifest()

    def _write_manifest(self) -> None:
        sessions: list[Any] = []
        if self.manifest.exists():
            sessions = json.loads(self.manifest.read_text("utf-8"))["started"]
        manifest = {
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "packages": {name: _version(name) for name in _PACKAGES},
            "started": [*sessions, _now()],
        }
        write_atomically(self.manifest, json.dumps(manifest, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
