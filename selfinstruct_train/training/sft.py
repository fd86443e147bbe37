"""Step 5: tune the loaded base with a LoRA adapter, and hand the base back as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PrinterCallback
from trl import SFTTrainer

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.packs.pack import AnswerFormat
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import checks
from selfinstruct_train.training.adapter import attach_adapter, restored_after, save_adapter
from selfinstruct_train.training.arguments import sft_arguments
from selfinstruct_train.training.checkpoints import adopt_checkpoint
from selfinstruct_train.training.dataset import encode_rows, write_dataset
from selfinstruct_train.training.job import (
    TrainingResult,
    fingerprint_of,
    finish_training,
    finished,
    precision_of,
    quietly,
    room_on_disk,
    run_trainer,
)
from selfinstruct_train.training.loss_check import check_loss
from selfinstruct_train.training.progress import OnStep, Recorder

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

log = logging.getLogger(__name__)


def train(
    loaded: LoadedModel,
    rows: Iterable[TrainingRow],
    config: TrainingConfig,
    directory: RoundDirectory,
    *,
    answers: AnswerFormat,
    seed: int,
    world: World,
    start_adapter: Path | None = None,
    on_step: OnStep | None = None,
    max_steps_override: int | None = None,
    say: Callable[[str], None] = log.info,
) -> TrainingResult:
    """Tune a LoRA adapter on the loaded base, or finish a tuning that was stopped.

    The same data, settings and seed give the same adapter on the same machine, stopped in between
    or not. On return, and on any error, the base is as it was: no adapter, the same weights,
    forward and settings.

    Args:
        loaded: the base, which is restored_after, and its tokenizer.
        rows: what to learn; gone through several times.
        config: how.
        directory: where data, adapter, checkpoints and figures go.
        answers: the pack's templates.
        seed: of the adapter's first weights, the order of the rows, dropout, and ``varied``
            templates.
        world: this process among its peers; each takes a share of every step's rows.
        start_adapter: go on from this adapter instead of a fresh one.
        on_step: called on the main process with each logged step.
        max_steps_override: train for so many steps, whatever the config says.
        say: is told what was damaged and is made again.

    Raises:
        ConfigError: settings that cannot go together.
        DataError: no row fits.
        TrainingError: the gate or the check of the saved adapter failed, the loss is not a
            number, or training has destroyed the model.
        RunError: the directory holds another training, or cannot be written.
    """
    examples = encode_rows(
        rows,
        config,
        loaded.tokenizer,
        answers=answers,
        max_length=min(config.max_length, loaded.context_length),
        seed=seed,
        file=directory.encoded,
        world=world,
    )
    fingerprint = fingerprint_of(
        examples.kept, config, loaded, seed, world, start_adapter, max_steps_override
    )
    done = world.on_main(lambda: finished(directory, fingerprint))
    if done:
        return done
    checkpoint, notes = world.on_main(lambda: adopt_checkpoint(directory, fingerprint))
    for note in notes:
        say(note)
    write_dataset(rows, directory)
    loaded.adapters.release()
    with quietly():
        arguments = sft_arguments(loaded, config, directory, seed, world, max_steps_override)
    recorder = Recorder(directory, world, on_step, resumed=checkpoint, fingerprint=fingerprint)
    with restored_after(loaded.model), quietly():
        tuned = attach_adapter(loaded.model, config, seed, start_adapter)
        try:
            trainer = SFTTrainer(
                model=tuned,
                args=arguments,
                train_dataset=examples.kept.dataset(),
                processing_class=loaded.tokenizer,
                callbacks=[recorder],
            )
            trainer.remove_callback(PrinterCallback)
            precision = precision_of(trainer)
            gate = checks.check_batches(
                trainer.train_dataset,
                trainer.data_collator,
                examples.kept,
                loaded.tokenizer,
                too_long=len(examples.too_long),
                spaced=config.template != "chat" and answers.gap == " ",
                batch_size=arguments.per_device_train_batch_size,
            )
            check_loss(trainer)
            if config.packing:
                checks.check_packing(tuned, trainer.train_dataset, trainer.data_collator)
            with room_on_disk(directory):
                run_trainer(trainer, checkpoint, config)
            # Off comes the mixed precision that training wrapped around the forward.
            trainer.accelerator.unwrap_model(tuned, keep_fp32_wrapper=False)
            in_memory = checks.row_logits(tuned, examples.kept)
            scratch = directory.adapter.with_name(directory.adapter.name + ".partial")
            with room_on_disk(directory):
                world.on_main(lambda: save_adapter(tuned, scratch))
        finally:
            tuned.unload()

    with restored_after(loaded.model), quietly():
        return world.on_main(
            lambda: finish_training(
                loaded,
                directory,
                scratch,
                in_memory,
                examples.kept,
                recorder,
                fingerprint=fingerprint,
                precision=precision,
                too_long=len(examples.too_long),
                gate=gate,
                learning_rate=config.learning_rate,
            )
        )
