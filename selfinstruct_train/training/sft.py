"""Step 5: tune the loaded base with a LoRA adapter, and hand the base back as it was."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import torch
from safetensors import SafetensorError
from transformers import PrinterCallback
from trl import SFTTrainer

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import RunError, TrainingError
from selfinstruct_train.packs.pack import AnswerFormat
from selfinstruct_train.records import Row, TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stage import FREE, within
from selfinstruct_train.run.stores import read_json, write_atomically
from selfinstruct_train.training import checks
from selfinstruct_train.training.adapter import attach_adapter, restored_after, save_adapter
from selfinstruct_train.training.alive_check import check_alive
from selfinstruct_train.training.arguments import trainer_arguments
from selfinstruct_train.training.checkpoints import adopt_checkpoint
from selfinstruct_train.training.dataset import (
    Example,
    encode_rows,
    to_dataset,
    write_dataset,
)
from selfinstruct_train.training.loss_check import check_loss
from selfinstruct_train.training.progress import OnStep, Recorder

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

log = logging.getLogger(__name__)

_RESULT = "training.json"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TrainingResult(Row):
    """What a training did; adapter/training.json holds it."""

    fingerprint: str
    """Of data, settings, seed and model: the same training has the same one."""
    steps: int
    seconds: float
    """Time in training steps, pauses between a kill and its resumption not counted."""
    final_loss: float
    """Mean over the last logged steps."""
    rows: int
    too_long: int
    """Rows left out because they did not fit."""
    precision: str
    """``bf16`` or ``fp16`` where the arithmetic is mixed, else ``fp32``."""
    adapter: Path
    gate: checks.GateReport
    check: checks.AdapterCheck


def train(
    loaded: LoadedModel,
    rows: Sequence[TrainingRow],
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
        rows: what to learn.
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
    )
    fingerprint = _fingerprint(
        examples.kept, config, loaded, seed, world, start_adapter, max_steps_override
    )
    done = world.on_main(lambda: _finished(directory, fingerprint))
    if done:
        return done
    checkpoint, notes = world.on_main(lambda: adopt_checkpoint(directory, fingerprint))
    for note in notes:
        say(note)
    write_dataset(rows, directory)
    loaded.adapters.release()
    with _quietly():
        arguments = trainer_arguments(loaded, config, directory, seed, world, max_steps_override)
    recorder = Recorder(directory, world, on_step, resumed=checkpoint, fingerprint=fingerprint)
    with restored_after(loaded.model), _quietly():
        tuned = attach_adapter(loaded.model, config, seed, start_adapter)
        try:
            trainer = SFTTrainer(
                model=tuned,
                args=arguments,
                train_dataset=to_dataset(examples.kept),
                processing_class=loaded.tokenizer,
                callbacks=[recorder],
            )
            trainer.remove_callback(PrinterCallback)
            # The launcher's environment may ask for mixed precision behind our settings.
            mixed = trainer.accelerator.mixed_precision
            precision = "fp32" if mixed == "no" else str(mixed)
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
            with _room_on_disk(directory):
                _run(trainer, checkpoint, config)
            # Off comes the mixed precision that training wrapped around the forward.
            trainer.accelerator.unwrap_model(tuned, keep_fp32_wrapper=False)
            in_memory = checks.row_logits(tuned, examples.kept)
            scratch = directory.adapter.with_name(directory.adapter.name + ".partial")
            with _room_on_disk(directory):
                world.on_main(lambda: save_adapter(tuned, scratch))
        finally:
            tuned.unload()

    def finish() -> TrainingResult:
        check_alive(recorder.rows, in_memory, config.learning_rate)
        check = checks.check_adapter(
            loaded.model, scratch, in_memory, examples.kept, loaded.tokenizer, loaded.context_length
        )
        last = recorder.rows[-1]
        result = TrainingResult(
            fingerprint=fingerprint,
            steps=last.step,
            seconds=last.seconds,
            final_loss=last.loss,
            rows=len(examples.kept),
            too_long=len(examples.too_long),
            precision=precision,
            adapter=directory.adapter,
            gate=gate,
            check=check,
        )
        write_atomically(scratch / _RESULT, result.model_dump_json(indent=1) + "\n")
        scratch.rename(directory.adapter)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
        return result

    with restored_after(loaded.model), _quietly():
        return world.on_main(finish)


@contextmanager
def _room_on_disk(directory: RoundDirectory) -> Iterator[None]:
    """Say in one sentence that the disk is full; torch and safetensors each say it otherwise.

    Raises:
        RunError: a checkpoint or an adapter could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RunError(
            f"{directory.path}: the checkpoint or adapter cannot be written, the disk is full "
            f"({reason}); make room and run the same command again: it goes on from the last "
            "checkpoint"
        ) from None


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    # torch writes its archives by itself and safetensors in Rust; neither tells the number apart.
    text = str(error)
    if isinstance(error, SafetensorError):
        return any(f"os error {number}" in text for number in _NO_ROOM)
    return any(word in text for word in ("PytorchStreamWriter", "inline_container", "iostream"))


def _run(trainer: SFTTrainer, checkpoint: Path | None, config: TrainingConfig) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError:
        raise TrainingError(
            "the GPU has too little memory for "
            f"training.micro_batch_size={config.micro_batch_size}; halve it (the result stays the "
            "same), or set training.gradient_checkpointing=true"
        ) from None


def _finished(directory: RoundDirectory, fingerprint: str) -> TrainingResult | None:
    file = directory.adapter / _RESULT
    if not file.exists():
        if directory.adapter.exists():
            raise RunError(
                f"{directory.adapter}: not the end of a training of this package (no {_RESULT}); "
                "move the folder away and run the same command again"
            )
        return None
    fix = "damaged: move the folder away and run the same command again"
    result = read_json(file, TrainingResult, fix)
    if result.fingerprint != fingerprint:
        raise RunError(
            f"{directory.adapter}: this adapter was trained on other data or with other settings; "
            "add --redo train to the command, or use a new output_dir"
        )
    shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return result.model_copy(update={"adapter": directory.adapter})


def _fingerprint(
    examples: Sequence[Example],
    config: TrainingConfig,
    loaded: LoadedModel,
    seed: int,
    world: World,
    start_adapter: Path | None,
    max_steps_override: int | None,
) -> str:
    digest = hashlib.sha256()
    settings = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if not within(f"training.{key}", FREE)
    }
    # The launcher's environment may ask for mixed precision behind our settings.
    precision = [str(loaded.dtype), os.environ.get("ACCELERATE_MIXED_PRECISION", "no")]
    head = [settings, loaded.model_id, seed, world.size, precision, max_steps_override]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for example in examples:
        digest.update(repr((example.id, len(example.tokens), example.answer_start)).encode())
        digest.update(example.tokens.tobytes())
    if start_adapter is not None:
        for file in sorted(start_adapter.glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars of datasets, and no advice of transformers to those who wrote TRL."""
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()
