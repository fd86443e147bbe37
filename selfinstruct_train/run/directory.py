"""The run directory: sole owner of file names, settings and completion marks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from selfinstruct_train.config import DEFAULT_TRAINING, Config, dump_config, load_config
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.consistency import require_consistent
from selfinstruct_train.run.decisions import with_rolled_back
from selfinstruct_train.run.lock import RUN_LOCK, Lock, guard_of, hold
from selfinstruct_train.run.log import EventKind, RunLog
from selfinstruct_train.run.manifest import add_start, read_manifest
from selfinstruct_train.run.marks import Mark, read_mark, vouch
from selfinstruct_train.run.stage import Contents, basis, suite_of, with_training
from selfinstruct_train.run.stores import RowStore, write_atomically

RowT = TypeVar("RowT", bound=Row)

Basis = Callable[[str, str], dict[str, Any]]
"""(stage, training) -> what the stage's result is made of, see `basis`."""


class RoundDirectory:
    """The files of one round."""

    def __init__(
        self,
        path: Path,
        world: World = ALONE,
        basis: Basis | None = None,
        training: str = DEFAULT_TRAINING,
        log: RunLog | None = None,
    ) -> None:
        self.path = path
        self._log = log
        self._training = training
        self.world = world
        self._basis = basis or (lambda stage, training: {})
        self.instructions = path / "instructions.jsonl"
        self.classified = path / "classified.jsonl"
        self.calibration = path / "calibration.json"
        self.instances = path / "instances.jsonl"
        self.drawn = path / "drawn.jsonl"
        self.labels = path / "labels.jsonl"
        self.scores = path / "scores.jsonl"
        self.selection = path / "selection.jsonl"
        self.dataset = path / "dataset"
        self.adapter = path / "adapter"
        self.whole = path / "model"
        self.checkpoints = path / "checkpoints"
        self.encoded = self.checkpoints / "encoded.arrow"
        self.contamination = path / "contamination.jsonl"
        self.training_steps = path / "training.jsonl"
        self.decision = path / "decision.json"

    @property
    def first_calibration(self) -> Path:
        """The calibration of the run's first round."""
        return self.path.with_name("round-0") / self.calibration.name

    @property
    def tuned(self) -> Path:
        """Folder of the tuned model: whole weights where these were trained, else an adapter."""
        return self.whole if self.whole.exists() else self.adapter

    def training(self, name: str) -> RoundDirectory:
        """The files of a training of this round's data: the default one has the round's folder."""
        if name == DEFAULT_TRAINING:
            return self
        path = self.path / "trainings" / name
        found = RoundDirectory(path, self.world, self._basis, name, self._log)
        # One decision a round, made again where any of its trainings is evaluated again.
        found.decision = self.decision
        return found

    def trainings(self) -> dict[str, RoundDirectory]:
        """All trainings begun on this round's data by name, the default one first."""
        names = sorted(path.name for path in self.path.glob("trainings/*") if path.is_dir())
        return {name: self.training(name) for name in (DEFAULT_TRAINING, *names)}

    @property
    def before_pairs(self) -> RoundDirectory:
        """The training on answers that a training on pairs goes on from."""
        return RoundDirectory(self.path / "sft", self.world, self._basis, self._training)

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
        return self.world.on_main(lambda: self.read_mark(stage))

    def begin(self, stage: str) -> None:
        """Note what a stage is about to be made of; every process must call."""
        text = json.dumps(self._basis(stage, self._training), ensure_ascii=False, indent=1) + "\n"
        self.world.on_main(lambda: write_atomically(self._begun_path(stage), text))
        self._note("begun", stage, "")

    def finish(self, stage: str, seconds: float, **figures: float | int | str | None) -> None:
        """Write the completion mark of a stage; every process must call.

        No process goes on before the main one has written all rows of the stage.
        """
        self.world.on_main(lambda: self._finish(stage, seconds, figures))

    def read_mark(self, stage: str) -> Mark | None:
        """The completion mark of a stage, read by this process alone.

        Raises:
            DataError: the mark is damaged.
            RunError: a newer version of the package wrote it.
        """
        return read_mark(self._mark_path(stage))

    def forget_suites(self, stage: str, suites: Collection[str]) -> None:
        """Take suites whose results are gone out of a stage's mark; those of the others stand."""
        mark = self.read_mark(stage)
        if mark is None:
            return
        folders = tuple(f"{self.evaluation(suite).relative_to(self.path)}/" for suite in suites)
        made_of = {k: v for k, v in mark.depends_on.items() if suite_of(k) not in suites}
        files = {name: f for name, f in mark.files.items() if not name.startswith(folders)}
        self._write_mark(mark.model_copy(update={"depends_on": made_of, "files": files}))

    def begun(self, stage: str) -> dict[str, Any] | None:
        """What a stage that is not finished was begun with; None where it has no result yet.

        Nothing is in it where its file is damaged.
        """
        path = self._begun_path(stage)
        if not path.exists() or not any(self._first_results(stage)):
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}

    def has_begun(self, stage: str) -> bool:
        """Whether a stage was begun and is not finished."""
        return self._begun_path(stage).exists()

    def files(self, stage: str) -> list[Path]:
        """Files and folders that a finished stage answers for."""
        match stage:
            case "instructions":
                asked = [self.completions(name) for name in (stage, "passages")]
                return [self.instructions, self.rejected("instructions"), *asked]
            case "classification":
                return [self.classified, self.calibration]
            case "instances":
                written = [self.instances, self.drawn]
                return [*written, self.rejected("instances"), self.completions(stage)]
            case "labels":
                return [self.labels]
            case "scores":
                return [self.scores]
            case "selection":
                return [self.selection]
            case "train":
                names = ("earlier_model", "judged_pairs", "replay")
                asked = [self.completions(name) for name in names]
                first = [self.path / "sft" / name for name in ("dataset", "adapter", "model")]
                tuned = [self.adapter, self.whole]
                own = [self.dataset, *tuned, self.training_steps, self.contamination]
                return [*own, *first, self.path / "sft" / "training.jsonl", *asked]
            case "evaluate":
                # What else is measured may change, and is written again, after the mark.
                found = sorted(self.path.glob("eval/*/*.json*"))
                return [path for path in found if path.parent.name != "harness"]
            case _:
                return []

    def traces(self, stage: str) -> list[Path]:
        """Everything that a stage writes, finished or not."""
        marks = [self._mark_path(stage), self._begun_path(stage)]
        match stage:
            case "train":
                return [*self.files(stage), self.checkpoints, self.path / "sft", *marks]
            case "evaluate":
                return [self.path / "eval", self.decision, *marks]
            case "judge":
                return [*self.path.glob("eval/*/judge"), *marks]
            case _:
                return [*self.files(stage), *marks]

    def _first_results(self, stage: str) -> list[Path]:
        """What a begun stage has that another one may not go on with."""
        match stage:
            case "train":
                tuned = [path for path in (self.adapter, self.whole) if path.exists()]
                return [*self.checkpoints.glob("checkpoint-*"), *tuned]
            case "evaluate" | "judge":
                return self.files(stage)
            case _:
                return [path for path in self.files(stage) if path.exists()]

    def _finish(
        self, stage: str, seconds: float, figures: dict[str, float | int | str | None]
    ) -> None:
        before = self.read_mark(stage)
        # A suite that has left the config may come back: what it was then still counts.
        suites = {k: v for k, v in (before.depends_on if before else {}).items() if suite_of(k)}
        mark = Mark(
            stage=stage,
            finished=_now(),
            seconds=round(seconds, 3),
            figures=figures,
            depends_on=suites | self._basis(stage, self._training),
            files=vouch(self.path, self.files(stage)),
        )
        self._write_mark(mark)
        self._begun_path(stage).unlink(missing_ok=True)
        told = ", ".join(f"{name} {value}" for name, value in figures.items())
        self._note("finished", stage, f"{seconds:.1f} s; {told}")

    def _note(self, event: EventKind, stage: str, text: str) -> None:
        if self._log is not None:
            where = str(self.path.relative_to(self._log.path.parent))
            self._log.write(event, where=where, stage=stage, text=text)

    def _write_mark(self, mark: Mark) -> None:
        text = json.dumps(mark.depends_on, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        mark = mark.model_copy(update={"fingerprint": fingerprint})
        write_atomically(self._mark_path(mark.stage), mark.model_dump_json(indent=1) + "\n")

    def _mark_path(self, stage: str) -> Path:
        return self.path / "done" / f"{stage}.json"

    def _begun_path(self, stage: str) -> Path:
        return self.path / "done" / f"{stage}.begun"


class RunDirectory:
    """A run's folder."""

    def __init__(self, path: Path, world: World = ALONE) -> None:
        self.path = path
        self.world = world
        self.config_file = path / "config.yaml"
        self.manifest = path / "manifest.json"
        self.report = path / "report.html"
        self.forecast = path / "forecast.json"
        self.pruned = path / "pruned.jsonl"
        self.lock = path / RUN_LOCK
        self.log = RunLog(path / "run.log")
        self._held: Lock | None = None
        self._opened: tuple[Config, Contents] | None = None

    def round(self, number: int) -> RoundDirectory:
        """The files of a round, counted from 0."""
        return RoundDirectory(
            self.path / f"round-{number}",
            self.world,
            lambda stage, training: self._basis_of(stage, number, training),
            log=self.log,
        )

    def rounds(self) -> list[RoundDirectory]:
        """The rounds begun so far, in order."""
        return [self.round(n) for n in _numbered(self.path, "round")]

    def seeds_only(self, steps: int, training: str = DEFAULT_TRAINING) -> RoundDirectory:
        """The files of the model trained on seed tasks alone, as a training is, for some steps."""
        return self._seeds_only(self._seeds_folder(training) / f"steps-{steps}", training)

    def all_seeds_only(self, training: str = DEFAULT_TRAINING) -> list[RoundDirectory]:
        """The models trained on seed tasks alone so far, as a training is."""
        folder = self._seeds_folder(training)
        return [self.seeds_only(n, training) for n in _numbered(folder, "steps")]

    def seeds_only_lengths(self) -> list[int]:
        """Steps of the models trained on seed tasks alone so far, in order."""
        return _numbered(self._seeds_folder(DEFAULT_TRAINING), "steps")

    def config(self) -> Config:
        """The resolved config of the run.

        Raises:
            RunError: the folder is not a run directory, or its config is damaged.
        """
        try:
            there = self.config_file.exists()
        except (OSError, ValueError):  # no name that a file can have
            there = False
        if not there:
            raise RunError(
                f"{self.path}: not a run directory (no config.yaml); name the output_dir of a run"
            )
        try:
            return load_config(self.config_file)
        except ConfigError as error:
            raise RunError(f"{error}; start the run again, which writes it") from None

    def open(
        self, config: Config, contents: Contents | None = None, redo: str | None = None
    ) -> tuple[str, ...]:
        """Begin a run here, or go on with the one that was begun; every process must call.

        The main process owns the run until it ends, or this object does.

        Args:
            config: the settings of this start.
            contents: hashes of the data and models that results depend on.
            redo: a stage to make again, with all that depends on it.

        Returns:
            What was found or done, one sentence each.

        Raises:
            RunError: another process works on this run, a stage was made of other settings or data,
                a file is not what its stage left, or the folder cannot be written or holds
                something else.
        """
        self._opened = config, contents or {}
        return self.world.on_main(lambda: self._open(config, contents or {}, redo))

    def begun(self) -> datetime:
        """When the run was first started, UTC; every process must call."""
        starts = self.world.on_main(lambda: read_manifest(self.manifest).starts)
        return datetime.fromisoformat(starts[0].at)

    def _open(self, config: Config, contents: Contents, redo: str | None) -> tuple[str, ...]:
        self.require_run_or_nothing()
        try:
            self._held = hold(self.lock, "run", "give another output_dir")
            manifest = read_manifest(self.manifest)
            notes = self._held.notes + require_consistent(self, config, contents, redo)
        except OSError as error:
            raise self._unusable(error) from None
        write_atomically(self.config_file, dump_config(config))
        changed = add_start(self.manifest, manifest)
        self.log.open(_secret_variables(config))
        return notes + changed

    def require_run_or_nothing(self) -> None:
        """See that a run may begin here or go on.

        Raises:
            RunError: the folder holds something else, or cannot be read.
        """
        own = {self.lock, guard_of(self.lock)}
        try:
            begun = self.config_file.exists() or self.manifest.exists() or self.rounds()
            other = not begun and self.path.exists() and set(self.path.iterdir()) - own
        except OSError as error:
            raise self._unusable(error) from None
        if other:
            raise RunError(f"{self.path}: holds files but no run; give an empty or new output_dir")

    def _unusable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be used ({error.strerror}); give another output_dir")

    def _basis_of(self, stage: str, number: int, training: str) -> dict[str, Any]:
        if self._opened is None:
            return {}
        config, contents = self._opened
        contents = with_rolled_back(contents, self.path, number)
        return basis(stage, number, with_training(config, training), contents)

    def _seeds_folder(self, training: str) -> Path:
        folder = self.path / "seeds-only"
        return folder if training == DEFAULT_TRAINING else folder / training

    def _seeds_only(self, path: Path, training: str) -> RoundDirectory:
        def basis_of(stage: str, training: str) -> dict[str, Any]:
            return self._basis_of("seeds-only" if stage == "train" else stage, 0, training)

        return RoundDirectory(path, self.world, basis_of, training, self.log)


def _numbered(folder: Path, name: str) -> list[int]:
    """Numbers of the folders ``{name}-{number}``; what a user puts beside them is none."""
    pattern = re.compile(rf"{name}-(0|[1-9][0-9]{{0,8}})")
    found = (pattern.fullmatch(path.name) for path in folder.glob(f"{name}-*/"))
    return sorted(int(match[1]) for match in found if match)


def _secret_variables(config: Config) -> tuple[str, ...]:
    judge = config.evaluation.judge
    engines = (config.generation.engine, judge.engine if judge else None)
    return tuple(engine.api_key_variable for engine in engines if engine is not None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
