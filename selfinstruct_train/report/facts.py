"""A run directory as typed facts: everything that the page says is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.config import DEFAULT_TRAINING, Config
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.beyond.forgetting import (
    FORGETTING_FILE,
    Forgetting,
    read_forgetting,
)
from selfinstruct_train.evaluation.beyond.harness_figures import (
    DIFFERENCES_FILE,
    HARNESS_FOLDER,
    HarnessComparison,
    read_harness,
)
from selfinstruct_train.evaluation.compare import (
    best_training,
)
from selfinstruct_train.evaluation.trainings import (
    TRAININGS_FILE,
    TrainingsComparison,
    read_trainings,
)
from selfinstruct_train.packs.pack import load_pack_file
from selfinstruct_train.planning.measured import Compared, compared
from selfinstruct_train.rating.store import Rating, ratings_file, standing_ratings
from selfinstruct_train.records import (
    Classified,
    GeneratedInstance,
    Instruction,
    Labelled,
    LeftOutRow,
    Rejection,
    TrainingStep,
)
from selfinstruct_train.report.counts import RoundCounts
from selfinstruct_train.report.preferences import DrawFacts, PairFacts, read_draws, read_pairs
from selfinstruct_train.report.selected import RoundSelection, read_selection
from selfinstruct_train.report.suite_facts import SuiteFacts, read_rows, read_suites, stream_rows
from selfinstruct_train.rounds.governor import Decision
from selfinstruct_train.rounds.table import read_decision
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.manifest import Manifest
from selfinstruct_train.run.marks import Mark
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import count_rows, read_json
from selfinstruct_train.text.words import Units

STAGES = ("instructions", "classification", "instances", "train", "evaluate")
_TRAINED = ("train", "evaluate", "judge")
"""Stages of a training, of which a round may have several."""
ROWS_SHOWN = 100_000
"""Most rows of a kind that plots and examples are made of; counts and means are of all rows."""
_REJECTING: tuple[Literal["instructions"], Literal["instances"]] = ("instructions", "instances")


class RoundFacts(NamedTuple):
    """All that is known of one round."""

    number: int
    marks: Mapping[str, Mark]
    """Completion marks of the stages that are done."""
    counts: RoundCounts
    """Over all rows of the round."""
    instructions: tuple[Instruction, ...]
    """All, or the sample that is shown where a run has more rows than ``ROWS_SHOWN``; so are the
    two below."""
    rejections: tuple[Rejection, ...]
    instances: tuple[GeneratedInstance, ...]
    steps: tuple[TrainingStep, ...]
    """Of the training on answers, or of that on pairs where there is none."""
    forgetting: Forgetting | None
    """Loss on held-out text; None where it was not measured."""
    harness: HarnessComparison | None
    """Figures of lm-evaluation-harness; None where it was not asked."""
    draws: DrawFacts | None
    """Several answers to each input; None where one was written."""
    pairs: tuple[PairFacts, ...]
    """One for each training on pairs."""
    trainings: TrainingsComparison | None
    """Several trainings on the round's data side by side; None where there is one alone."""
    decision: Decision | None
    """What followed; None where nothing is decided."""
    selection: RoundSelection | None = None
    """Rows that were taken and left out; None where rows are not selected."""


class StageMark(NamedTuple):
    """A finished stage."""

    place: str
    """The round and the training, in words."""
    stage: str
    mark: Mark


class RunFacts(NamedTuple):
    """All that is known of a run."""

    path: Path
    config: Config
    units: Units
    """What lengths are counted in, as the pack says."""
    manifest: Manifest | None
    rounds: tuple[RoundFacts, ...]
    seeds_only: Mapping[int, tuple[TrainingStep, ...]]
    """Training figures of the models tuned on seed tasks alone, by the steps they were given."""
    suites: tuple[SuiteFacts, ...]
    """In the order of the config; only those with a result."""
    ratings: tuple[Rating, ...]
    """The last word of each person on each answer, grade or comment."""
    missing: tuple[str, ...]
    """What is not there yet, one sentence each."""
    stages: tuple[StageMark, ...] = ()
    """All finished stages, those of every training and of the seed tasks alone too."""
    compared: tuple[Compared, ...] = ()
    """What was forecast beside what was taken; empty until the run has ended."""

    @property
    def stride(self) -> int:
        """One row in how many stands for the others in plots and examples."""
        return self.rounds[0].counts.stride

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.path.resolve().name


def read_facts(run: RunDirectory) -> RunFacts:
    """Read a run directory, finished or not; nothing in it is changed.

    Raises:
        RunError: the folder is not a run, or no stage of it is finished.
        DataError: a row or file cannot be read.
    """
    # Only the main process reports: a run of several would ask its peers, and wait for ever.
    run = RunDirectory(run.path)
    config = run.config()
    directories = run.rounds()
    stride = _stride(directories)
    live = LiveRows(run)
    pack = load_pack_file(config.generation.prompts)
    units = pack.rules.units
    shows = config.generation.instances.reasoning == "shown"
    label = pack.wording.answer if shows else None
    rounds = tuple(
        _read_round(directory, config, RoundCounts(stride, units), live, label)
        for directory in directories
    )
    if not any(facts.marks for facts in rounds):
        raise RunError(
            f"{run.path}: no stage of this run is finished, so there is nothing to report; "
            "start it again with 'selfinstruct run'"
        )
    suites = read_suites(config, directories)
    manifest = _read_manifest(run.manifest)
    return RunFacts(
        path=run.path,
        config=config,
        units=units,
        manifest=manifest,
        rounds=rounds,
        seeds_only={
            steps: rows
            for steps in run.seeds_only_lengths()
            if (rows := read_rows(run.seeds_only(steps).training_steps, TrainingStep))
        },
        suites=suites,
        ratings=tuple(standing_ratings(read_rows(ratings_file(run), Rating)).values()),
        missing=_missing(config, rounds, suites, manifest),
        stages=tuple(_stage_marks(run, directories)),
        compared=compared(run),
    )


def _stage_marks(run: RunDirectory, directories: list[RoundDirectory]) -> Iterator[StageMark]:
    names = {DEFAULT_TRAINING: ""}
    for directory in directories:
        place = f"round {_number(directory)}"
        for stage in STAGES:
            if stage not in _TRAINED and (mark := directory.mark(stage)) is not None:
                yield StageMark(place, stage, mark)
        for name, training in directory.trainings().items():
            names.setdefault(name, f", training {name}")
            for stage in _TRAINED:
                if (mark := training.mark(stage)) is not None:
                    yield StageMark(place + names[name], stage, mark)
    for name, said in names.items():
        for directory in run.all_seeds_only(name):
            if (mark := directory.mark("train")) is not None:
                steps = directory.path.name.removeprefix("steps-")
                yield StageMark(f"seeds only, {steps} steps{said}", "train", mark)


def _number(directory: RoundDirectory) -> int:
    return int(directory.path.name.removeprefix("round-"))


def _stride(directories: list[RoundDirectory]) -> int:
    """One row in how many is shown, so that of the largest kind at most `ROWS_SHOWN` are."""
    rows: Counter[str] = Counter()
    for directory in directories:
        rows["instructions"] += count_rows(directory.instructions)
        rows["instances"] += count_rows(directory.instances)
        rows["rejections"] += sum(count_rows(directory.rejected(stage)) for stage in _REJECTING)
    return max(1, -(-max(rows.values(), default=0) // ROWS_SHOWN))


def _read_round(
    directory: RoundDirectory,
    config: Config,
    counts: RoundCounts,
    live: LiveRows,
    label: str | None,
) -> RoundFacts:
    best = best_training([directory], config.evaluation)
    tuned = best.directory if best else directory.training(config.training.trainings[0].name)
    forgetting = tuned.evaluation(FORGETTING_FILE)
    harness = tuned.evaluation(HARNESS_FOLDER) / DIFFERENCES_FILE
    trainings = directory.path / TRAININGS_FILE
    marks = {}
    for stage in STAGES:
        home = tuned if stage in ("train", "evaluate") else directory
        if (mark := home.mark(stage)) is not None:
            marks[stage] = mark
    counts.count_classified(stream_rows(directory.classified, Classified))
    counts.count_left_out(stream_rows(directory.selection, LeftOutRow))
    counts.count_labelled(stream_rows(directory.labels, Labelled))
    return RoundFacts(
        number=_number(directory),
        marks=marks,
        counts=counts,
        instructions=tuple(counts.count_instructions(live.instructions_of(directory))),
        rejections=tuple(
            counts.count_rejections(
                row
                for stage in _REJECTING
                for row in stream_rows(directory.rejected(stage), Rejection)
            )
        ),
        instances=tuple(counts.count_instances(live.instances_of(directory))),
        steps=read_rows(_answers_trained(tuned).training_steps, TrainingStep),
        draws=read_draws(directory, label),
        pairs=tuple(
            found
            for name, training in directory.trainings().items()
            if (found := read_pairs(name, training)) is not None
        ),
        forgetting=read_forgetting(forgetting) if forgetting.exists() else None,
        harness=read_harness(harness) if harness.exists() else None,
        trainings=read_trainings(trainings) if trainings.exists() else None,
        decision=read_decision(directory),
        selection=read_selection(directory),
    )


def _answers_trained(directory: RoundDirectory) -> RoundDirectory:
    """Where the training on answers is that came before one on pairs, or was the only one."""
    first = directory.before_pairs
    return first if first.training_steps.exists() else directory


def _read_manifest(path: Path) -> Manifest | None:
    if not path.exists():
        return None
    return read_json(path, Manifest, "delete it; the next start of the run writes it")


def _missing(
    config: Config,
    rounds: tuple[RoundFacts, ...],
    suites: tuple[SuiteFacts, ...],
    manifest: Manifest | None,
) -> tuple[str, ...]:
    missing = []
    for facts in rounds:
        wanted = STAGES if config.generates else STAGES[-2:]
        if undone := [stage for stage in wanted if stage not in facts.marks]:
            missing.append(f"Round {facts.number}: not finished: {', '.join(undone)}.")
    if (ahead := config.rounds - len(rounds)) > 0:
        last = rounds[-1].decision if rounds else None
        why = ""
        if last is not None and last.action == "stop":
            why = f": the run stopped after round {rounds[-1].number}, {last.reason}"
        missing.append(f"{ahead} of {config.rounds} rounds not begun{why}.")
    for suite in suites:
        if not suite.answers:
            missing.append(f"The answers on {suite.name} are gone; their scores are still here.")
    if manifest is None or not manifest.starts:
        missing.append("manifest.json, which names the command and the machine.")
    return tuple(missing)
