"""What every training has in common: whose it is, how it runs, and what it leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainingArguments

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import RunError, TrainingError
from selfinstruct_train.models.memory import is_out_of_memory
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stage import FREE, within
from selfinstruct_train.run.stores import read_json, write_atomically
from selfinstruct_train.training import checks
from selfinstruct_train.training.adapter import attach_adapter, restored_after, save_adapter
from selfinstruct_train.training.alive_check import check_alive
from selfinstruct_train.training.checkpoints import adopt_checkpoint
from selfinstruct_train.training.encoded import Example
from selfinstruct_train.training.half import fast_half
from selfinstruct_train.training.progress import OnStep, Recorder
from selfinstruct_train.training.stopping import SaveAndStop, deferred_stop

if TYPE_CHECKING:
    from peft import PeftModel

    from selfinstruct_train.models.load import LoadedModel

_RESULT = "training.json"
_REFERENCE = "ref"
"""TRL's name for the copy of the adapter that a training on pairs is compared with."""
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


class Parts(NamedTuple):
    """What one kind of training has of its own; `run_training` takes them in this order."""

    write: Callable[[], object]
    """Writes what is trained on into the round's folder."""
    arguments: Callable[[], TrainingArguments]
    trainer: Callable[[PeftModel, Any, Recorder], Trainer]
    """(tuned model, arguments, callback) -> TRL's trainer."""
    gate: Callable[[Trainer, PeftModel], checks.GateReport]
    """Looks at the batches and at the loss, and refuses to train on what is wrong."""
    examples: Sequence[Example]
    """On which the saved adapter is held against the trained one."""
    learning_rate: float


def run_training(
    parts: Parts,
    loaded: LoadedModel,
    config: TrainingConfig,
    directory: RoundDirectory,
    fingerprint: str,
    *,
    seed: int,
    world: World,
    start_adapter: Path | None,
    on_step: OnStep | None,
    say: Callable[[str], None],
) -> TrainingResult:
    """Train an adapter, or finish a training that was stopped; hand the base back as it was.

    Args:
        parts: what this kind of training does.
        loaded: the base and its tokenizer.
        config: how.
        directory: where everything goes.
        fingerprint: of all that bears on the result.
        seed: of the adapter's first weights.
        world: this process among its peers.
        start_adapter: go on from this adapter instead of a fresh one.
        on_step: called on the main process with each logged step.
        say: is told what was damaged and is made again.

    Raises:
        ConfigError: settings that cannot go together.
        TrainingError: the gate or the check of the saved adapter failed, the loss is not a
            number, or training has destroyed the model.
        RunError: the directory holds another training, or cannot be written.
    """
    done = world.on_main(lambda: _finished(directory, fingerprint))
    if done:
        return done
    checkpoint, notes = world.on_main(lambda: adopt_checkpoint(directory, fingerprint))
    for note in notes:
        say(note)
    parts.write()
    loaded.adapters.release()
    with _quietly():
        arguments = parts.arguments()
    recorder = Recorder(directory, world, on_step, resumed=checkpoint, fingerprint=fingerprint)
    with restored_after(loaded.model), _quietly():
        tuned = attach_adapter(loaded.model, config, seed, start_adapter)
        try:
            trainer = parts.trainer(tuned, arguments, recorder)
            trainer.remove_callback(PrinterCallback)
            precision = _precision(trainer)
            gate = parts.gate(trainer, tuned)
            with _room_on_disk(directory), fast_half(trainer, tuned):
                run_trainer(trainer, checkpoint, config)
            # Off comes the mixed precision that training wrapped around the forward.
            trainer.accelerator.unwrap_model(tuned, keep_fp32_wrapper=False)
            if _REFERENCE in tuned.peft_config:  # TRL's frozen copy is no part of the result
                tuned.delete_adapter(_REFERENCE)
            in_memory = checks.row_logits(tuned, parts.examples)
            scratch = directory.adapter.with_name(directory.adapter.name + ".partial")
            with _room_on_disk(directory):
                world.on_main(lambda: save_adapter(tuned, scratch))
        finally:
            tuned.unload()
    with restored_after(loaded.model), _quietly():
        return world.on_main(
            lambda: _finish(
                loaded,
                directory,
                scratch,
                in_memory,
                parts.examples,
                recorder,
                fingerprint=fingerprint,
                precision=precision,
                gate=gate,
                learning_rate=parts.learning_rate,
            )
        )


def _finish(
    loaded: LoadedModel,
    directory: RoundDirectory,
    scratch: Path,
    in_memory: Sequence[torch.Tensor],
    examples: Sequence[Example],
    recorder: Recorder,
    *,
    fingerprint: str,
    precision: str,
    gate: checks.GateReport,
    learning_rate: float,
) -> TrainingResult:
    """Check the saved adapter and put it, with its figures, where it belongs; on the main process.

    Args:
        loaded: the base, which has no adapter now, and its tokenizer.
        directory: of the training.
        scratch: where the adapter was saved.
        in_memory: `checks.row_logits` of the trained model.
        examples: what it was trained on.
        recorder: has the figures of the steps.
        fingerprint: of the training.
        precision: see `TrainingResult`.
        gate: what was seen before the first step.
        learning_rate: the highest, for what to change where it has destroyed the model.

    Raises:
        TrainingError: training has destroyed the model, or what was saved is not what was trained.
    """
    check_alive(recorder.rows, in_memory, learning_rate)
    check = checks.check_adapter(
        loaded.model, scratch, in_memory, examples, loaded.tokenizer, loaded.context_length
    )
    last = recorder.rows[-1]
    result = TrainingResult(
        fingerprint=fingerprint,
        steps=last.step,
        seconds=last.seconds,
        final_loss=last.loss,
        rows=gate.rows,
        too_long=gate.too_long,
        precision=precision,
        adapter=directory.adapter,
        gate=gate,
        check=check,
    )
    write_atomically(scratch / _RESULT, result.model_dump_json(indent=1) + "\n")
    scratch.rename(directory.adapter)
    shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return result


def _precision(trainer: Trainer) -> str:
    """``bf16`` or ``fp16`` where the arithmetic is mixed, else ``fp32``.

    The launcher's environment may ask for mixed precision behind our settings.
    """
    mixed = trainer.accelerator.mixed_precision
    return "fp32" if mixed == "no" else str(mixed)


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


def run_trainer(trainer: Trainer, checkpoint: Path | None, config: TrainingConfig) -> None:
    """Take the steps, from a checkpoint on where there is one; save where a signal stops them.

    Raises:
        TrainingError: the loss is not a number, or the memory is too small.
    """
    arguments = trainer.args
    with deferred_stop() as stop:
        world = World(arguments.process_index, arguments.world_size)
        trainer.add_callback(SaveAndStop(stop, world))
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Exception as error:  # each device and library has its own class for it
            if not is_out_of_memory(error):
                raise
            what = "GPU" if arguments.device.type == "cuda" else "machine"
            raise TrainingError(
                f"the {what} has too little memory for "
                f"training.micro_batch_size={config.micro_batch_size}; halve it (the result stays "
                "the same), or set training.gradient_checkpointing=true"
            ) from None


def _finished(directory: RoundDirectory, fingerprint: str) -> TrainingResult | None:
    """The result of this very training, if it has ended; on the main process.

    Raises:
        RunError: the adapter there is another one.
    """
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


def fingerprint_of(
    examples: Sequence[Example],
    config: TrainingConfig,
    loaded: LoadedModel,
    seed: int,
    world: World,
    start_adapter: Path | None,
    max_steps_override: int | None,
) -> str:
    """16 hex digits of all that bears on a training's result."""
    digest = hashlib.sha256()
    settings = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if not within(f"training.{key}", FREE)
        # Settings of a training on pairs do not bear on one on answers.
        and (key != "preference" or config.method != "sft")
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
