"""Step 5: tune the loaded base on answers, by an adapter or in its own weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import checks
from selfinstruct_train.training.arguments import sft_arguments
from selfinstruct_train.training.dataset import encode_rows, write_dataset
from selfinstruct_train.training.job import (
    Parts,
    TrainingResult,
    fingerprint_of,
    run_training,
)
from selfinstruct_train.training.loss_check import check_loss
from selfinstruct_train.training.progress import OnStep
from selfinstruct_train.training.trainer import AnswerTrainer

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
    start: Path | None = None,
    on_step: OnStep | None = None,
    max_steps_override: int | None = None,
    say: Callable[[str], None] = log.info,
) -> TrainingResult:
    """Tune the loaded base, or finish a tuning that was stopped.

    The same data, settings and seed give the same model on the same machine, stopped in between
    or not. On return, and on any error, a base that got an adapter is as it was: no adapter, the
    same weights, forward and settings. Without one its own weights are trained.

    Args:
        loaded: the base and its tokenizer.
        rows: what to learn; gone through several times.
        config: how.
        directory: where data, tuned model, checkpoints and figures go.
        answers: the pack's templates.
        seed: of the adapter's first weights, the order of the rows, dropout, and ``varied``
            templates.
        world: this process among its peers; each takes a share of every step's rows.
        start: go on from this tuned model instead of the base.
        on_step: called on the main process with each logged step.
        max_steps_override: train for so many steps, whatever the config says.
        say: is told what was damaged and is made again.

    Raises:
        ConfigError: settings that cannot go together.
        DataError: no row fits.
        TrainingError: the gate or the check of the saved model failed, the loss is not a
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
    # By the main process alone, which deletes the examples where it finds the training finished.
    fingerprint = world.on_main(
        lambda: fingerprint_of(
            examples.kept, config, loaded, seed, world, start, max_steps_override
        )
    )

    def gate(trainer: AnswerTrainer, tuned: Any) -> checks.GateReport:
        report = checks.check_batches(
            trainer.train_dataset,
            trainer.data_collator,
            examples.kept,
            loaded.tokenizer,
            too_long=len(examples.too_long),
            spaced=config.template != "chat" and answers.gap == " ",
            batch_size=trainer.args.per_device_train_batch_size,
        )
        check_loss(trainer)
        if config.packing:
            checks.check_packing(tuned, trainer.train_dataset, trainer.data_collator)
        return report

    parts = Parts(
        write=lambda: write_dataset(rows, directory),
        arguments=lambda: sft_arguments(loaded, config, directory, seed, world, max_steps_override),
        trainer=lambda tuned, arguments, recorder: AnswerTrainer(
            model=tuned,
            args=arguments,
            train_dataset=examples.kept.dataset(),
            processing_class=loaded.tokenizer,
            callbacks=[recorder],
        ),
        gate=gate,
        examples=examples.kept,
        learning_rate=config.learning_rate,
    )
    return run_training(
        parts,
        loaded,
        config,
        directory,
        fingerprint,
        seed=seed,
        world=world,
        start=start,
        on_step=on_step,
        say=say,
    )
