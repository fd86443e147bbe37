"""The run directory: sole owner of file names, settings and completion marks."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from selfinstruct_train.config import Config, changed_keys, load_config, save_config
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.stores import RowStore, read_json, write_atomically

RowT = TypeVar("RowT", bound=Row)

# A run may be resumed with these changed: they do not touch what is already written.
_FREE_KEYS = (
    "output_dir",
    "rounds",
    "training.report_to",
    "training.load",
    "evaluation.suites",
    "evaluation.judge",
    "evaluation.published",
    "evaluation.held_out",
    "evaluation.harness",
    "model.threads",
    "process_timeout_minutes",
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

    def rejected(self, stage: Literal["instructions", "instances"]) -> Path:
        """What a stage dropped, and why."""
        return self.path / "rejected" / f"{stage}.jsonl"

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

    def seeds_only_lengths(self) -> list[int]:
        """Steps of the models trained on seed tasks alone so far, in order."""
        found = self.path.glob("seeds-only/steps-*")
        return sorted(int(path.name.removeprefix("steps-")) for path in found)

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

    def begun(self) -> datetime:
        """When the run was first started, UTC; every process must call."""
        started = self.world.on_main(
            lambda: json.loads(self.manifest.read_text("utf-8"))["started"]
        )
        return datetime.fromisoformat(started[0])

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
