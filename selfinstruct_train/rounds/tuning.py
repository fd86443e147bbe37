"""Step 5 of a round: which rows are trained on, with which model, and what is said of it."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from selfinstruct_train.config import Config
from selfinstruct_train.contamination.check import check
from selfinstruct_train.errors import RunError
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.models.memory import release_memory
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import PreferencePair, TrainingStep
from selfinstruct_train.rounds.opened import OpenedRun, describe
from selfinstruct_train.rounds.own_rows import (
    require_finished_data,
    require_own_rows,
    too_few_rows,
)
from selfinstruct_train.rounds.preferring import preference_pairs
from selfinstruct_train.rounds.replay import replay_rows
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.training.arguments import seeds_only_lengths
from selfinstruct_train.training.dataset import TrainingRows, training_rows, write_dataset
from selfinstruct_train.training.dpo import train_on_pairs
from selfinstruct_train.training.job import TrainingResult
from selfinstruct_train.training.launcher import is_sharding_asked_for
from selfinstruct_train.training.mix import mix_rows, replay_count, too_many_short
from selfinstruct_train.training.pairs import read_counts
from selfinstruct_train.training.progress import OnStep
from selfinstruct_train.training.sft import train


def train_round(opened: OpenedRun, config: Config, number: int) -> None:
    """Tune the base on the seeds and the data of all rounds so far, unless it is done.

    Args:
        opened: the run.
        config: the settings of this training.
        number: the round, counted from 0.

    Raises:
        RunError: the round has no finished data, or no row of its own that may be trained on.
    """
    name = config.training.name
    round_directory = opened.run.round(number)
    directory = round_directory.training(name)
    if directory.mark("train") is not None:
        return
    opened.world.on_main(partial(require_finished_data, config, round_directory))
    if config.generates:
        require_own_rows(opened.rows, round_directory)
    if config.training.rows_of == "all_rounds":
        instances = partial(opened.rows.trained_on, number)
    else:
        instances = partial(opened.rows.instances_of, round_directory)
    rows = training_rows(opened.seeds, instances, config.training.include_seeds, opened.own)
    if (mix := config.training.mix) is not None:
        mixed = mix_rows(list(rows), mix, config.seed)
        if wanted := replay_count(mixed, mix):
            mixed += replay_rows(opened, config, directory, wanted)
        rows = TrainingRows(lambda: mixed)
    start = None
    if number > 0 and config.training.start != "base":
        before = opened.rows.last_live(number)
        start = None if before is None else before.training(name).tuned
    stage = f"{describe(config, number)} training"
    _train(opened, config, directory, stage, rows, start, None, number)


def train_seeds_only(opened: OpenedRun, config: Config, most: int) -> list[RoundDirectory]:
    """Train on the seed tasks alone, for so many steps and for fewer.

    Args:
        opened: the run.
        config: the settings of the training that it is compared with.
        most: steps of that training.

    Returns:
        The folders of these models, one for each number of steps.
    """
    rows = training_rows(opened.seeds, tuple, include_seeds=True)
    count = sum(len(task.instances) for task in opened.seeds)
    epochs, training = config.evaluation.seeds_only_epochs, config.training
    found = []
    for steps in seeds_only_lengths(epochs, count, training.batch_size, most):
        directory = opened.run.seeds_only(steps, training.name)
        if directory.mark("train") is None:
            stage = f"seeds-only training, {steps} steps"
            _train(opened, config, directory, stage, rows, None, steps)
        found.append(directory)
    return found


def _train(
    opened: OpenedRun,
    config: Config,
    directory: RoundDirectory,
    stage: str,
    rows: TrainingRows,
    start: Path | None,
    steps: int | None,
    number: int | None = None,
) -> None:
    """Tune, check and mark; ``number`` is the round whose pairs are trained on too, if any."""
    directory.begin("train")
    rows = rows.without(too_many_short(rows, config.training.short_answers, config.seed))
    had_written = any(row.source == "generated" for row in rows)
    rows = _without_contamination(opened, directory, rows)
    if number is not None and had_written:
        _require_written_rows(opened, config, directory, stage, rows)
    pairs: list[PreferencePair] | None = None
    if number is not None and config.training.method != "sft":
        pairs = preference_pairs(opened, config, directory, number, list(rows), start)
    opened.close_engines()
    own = config.training.has_own_copy or is_sharding_asked_for()
    model = _own_copy(opened, config) if own else opened.model
    began = time.monotonic()
    results = _tune(opened, config, model, directory, stage, rows, pairs, start, steps)
    if own:
        del model
        release_memory(opened.described.device)
    result = results[-1]
    for warning in (*result.gate.warnings, *result.check.warnings):
        opened.progress.warn(f"{stage}: {warning}")
    if pairs is not None:
        opened.progress.say(f"{stage}: {read_counts(directory).sentence}")
    directory.finish(
        "train",
        time.monotonic() - began,
        steps=sum(found.steps for found in results),
        rows=results[0].rows,
        too_long=result.too_long,
        final_loss=result.final_loss,
        precision=result.precision,
        stopped_by_itself=result.check.stopped,
        stop_checked_on=result.check.prompts,
    )


def _own_copy(opened: OpenedRun, config: Config) -> LoadedModel:
    """A fresh copy of the base to train on."""
    described = opened.described
    if config.training.adapter == "none":
        # The small steps of a training of all weights are lost in 16 bits.
        described = described._replace(dtype=torch.float32)
    if not is_sharding_asked_for():
        four_bit = config.training.adapter == "qlora"
        return load_model(config.model, described, four_bit)
    # A device has memory for its share, and gets it when the weights are spread.
    loaded = load_model(config.model, described._replace(device=torch.device("cpu")))
    return loaded._replace(device=described.device)


def _tune(
    opened: OpenedRun,
    config: Config,
    model: LoadedModel,
    directory: RoundDirectory,
    stage: str,
    rows: TrainingRows,
    pairs: list[PreferencePair] | None,
    start: Path | None,
    steps: int | None,
) -> list[TrainingResult]:
    """Train on answers, on pairs, or on the one and then the other."""
    training, began = config.training, time.monotonic()
    results = []
    if pairs is None or training.method == "sft+dpo":
        result = train(
            model,
            rows,
            training.of_answers,
            directory if pairs is None else directory.before_pairs,
            answers=opened.pack.answers,
            seed=config.seed,
            world=opened.world,
            start=start,
            on_step=_on_step(opened, stage, began),
            max_steps_override=steps,
            say=lambda note: opened.progress.say(f"{stage}: {note}"),
        )
        results.append(result)
        start = result.tuned
    if pairs is not None:
        # What is trained on, for whoever asks what a suite may have been given away by.
        write_dataset(rows, directory)
        result = train_on_pairs(
            model,
            pairs,
            training.after_answers if results else training,
            directory,
            answers=opened.pack.answers,
            seed=config.seed,
            world=opened.world,
            start=start,
            on_step=_on_step(opened, f"{stage} on pairs", began),
            say=lambda note: opened.progress.say(f"{stage}: {note}"),
        )
        results.append(result)
    return results


def _on_step(opened: OpenedRun, stage: str, began: float) -> OnStep:
    def on_step(step: TrainingStep, total: int) -> None:
        note = f"loss {step.loss:.3f}"
        seconds = time.monotonic() - began
        done = ProgressUpdate(stage, step.step, total, 0, Counter(), 0, seconds, note=note)
        opened.progress(done)

    return on_step


def _require_written_rows(
    opened: OpenedRun,
    config: Config,
    directory: RoundDirectory,
    stage: str,
    rows: TrainingRows,
) -> None:
    """See that rows which the model wrote are left to train on, and warn of few.

    Raises:
        RunError: none is.
    """
    written = sum(row.source == "generated" for row in rows)
    if written == 0:
        raise RunError(
            f"{directory.contamination}: every row that the model wrote resembles a row of a "
            "suite; name other suites, or set evaluation.contamination.drop to less"
        )
    if (warning := too_few_rows(written, config.training.min_rows)) is not None:
        opened.progress.warn(f"{stage}: {warning}")


def _without_contamination(
    opened: OpenedRun, directory: RoundDirectory, rows: TrainingRows
) -> TrainingRows:
    pack = opened.pack
    result = check(
        rows,
        opened.seeds,
        pack.demonstrations,
        opened.suite_tasks,
        opened.config.evaluation.contamination,
        opened.tokenizer_choice,
    )
    text = "".join(row.model_dump_json() + "\n" for row in result.found)
    opened.world.on_main(lambda: write_atomically(directory.contamination, text))
    if result.found:
        opened.progress.warn(f"contamination: {result.sentence}; see {directory.contamination}")
    return rows.without(result.left_out)
