"""What every training has in common: whose it is, how it runs, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import RunError, TrainingError, is_disk_full
from selfinstruct_train.models.adapters import without_advice
from selfinstruct_train.models.memory import is_out_of_memory
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stage import FREE, within
from selfinstruct_train.run.stores import read_json, write_atomically
from selfinstruct_train.training import checks, sharding
from selfinstruct_train.training.adapter import restored_after
from selfinstruct_train.training.alive_check import check_alive
from selfinstruct_train.training.checkpoints import adopt_checkpoint
from selfinstruct_train.training.encoded import Example
from selfinstruct_train.training.half import fast_half
from selfinstruct_train.training.launcher import is_sharding_asked_for
from selfinstruct_train.training.progress import OnStep, Recorder
from selfinstruct_train.training.stopping import SaveAndStop, deferred_stop
from selfinstruct_train.training.trainee import make_trainee, tuned_folder, when_trained

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

_RESULT = "training.json"


class TrainingResult(Row):
    """What a training did; training.json beside the tuned model's files holds it."""

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
    tuned: Path
    """Folder of the tuned model."""
    gate: checks.GateReport
    check: checks.SavedCheck


class Parts(NamedTuple):
    """What one kind of training has of its own; `run_training` takes them in this order."""

    write: Callable[[], object]
    """Writes what is trained on into the round's folder."""
    arguments: Callable[[], TrainingArguments]
    trainer: Callable[[Any, Any, Recorder], Trainer]
    """(model to train, arguments, callback) -> TRL's trainer."""
    gate: Callable[[Trainer, Any], checks.GateReport]
    """Looks at the batches and at the loss, and refuses to train on what is wrong."""
    examples: Sequence[Example]
    """On which the saved model is held against the trained one."""
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
    start: Path | None,
    on_step: OnStep | None,
    say: Callable[[str], None],
) -> TrainingResult:
    """Train, or finish a training that was stopped.

    Unless its own weights were trained, the base is handed back as it was.

    Args:
        parts: what this kind of training does.
        loaded: the base and its tokenizer.
        config: how.
        directory: where everything goes.
        fingerprint: of all that bears on the result.
        seed: of the adapter's first weights.
        world: this process among its peers.
        start: go on from this tuned model instead of the base.
        on_step: called on the main process with each logged step.
        say: is told what was damaged and is made again.

    Raises:
        ConfigError: settings that cannot go together.
        TrainingError: the gate or the check of the saved model failed, the loss is not a
            number, or training has destroyed the model.
        RunError: the directory holds another training, or cannot be written.
    """
    folder = tuned_folder(directory, config)
    done = world.on_main(lambda: _finished(folder, directory, fingerprint))
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
        trainee = make_trainee(loaded, config, seed, world, start)
        try:
            trainer = parts.trainer(trainee.model, arguments, recorder)
            sharding.require_sharding(trainer)
            trainer.remove_callback(PrinterCallback)
            precision = _precision(trainer)
            gate = GateAtBegin(partial(parts.gate, trainer, trainee.model))
            if trainer.is_fsdp_enabled:
                trainer.add_callback(gate)  # no process has memory for the whole model
            else:
                gate.pass_through()
            with _room_on_disk(directory), fast_half(trainer, trainee.model):
                run_trainer(trainer, checkpoint, config)
            # Off comes the mixed precision that training wrapped around the forward.
            trainer.accelerator.unwrap_model(trainee.model, keep_fp32_wrapper=False)
            trainee = when_trained(trainee, loaded, world)
            in_memory = checks.row_logits(trainee.model, parts.examples)
            report = gate.pass_through()
            del trainer, gate  # and with them the moments of the optimizer
            scratch = folder.with_name(folder.name + ".partial")
            with _room_on_disk(directory):
                trainee.save(scratch)
        finally:
            trainee.detach()
    world.on_main(lambda: check_alive(recorder.rows, in_memory, parts.learning_rate))

    def check() -> checks.SavedCheck:
        with trainee.saved(scratch) as saved:
            return checks.check_saved(
                saved,
                scratch,
                in_memory,
                parts.examples,
                loaded.tokenizer,
                loaded.context_length,
            )

    with restored_after(loaded.model), _quietly():
        seen = check() if trainee.shared_out else world.on_main(check)
    last = recorder.rows[-1]
    result = TrainingResult(
        fingerprint=fingerprint,
        steps=last.step,
        seconds=last.seconds,
        final_loss=last.loss,
        rows=report.rows,
        too_long=report.too_long,
        precision=precision,
        tuned=folder,
        gate=report,
        check=seen,
    )
    return world.on_main(lambda: _finish(result, scratch, directory))


def _finish(result: TrainingResult, scratch: Path, directory: RoundDirectory) -> TrainingResult:
    """Put a checked model, with its figures, where it belongs; on the main process."""
    write_atomically(scratch / _RESULT, result.model_dump_json(indent=1) + "\n")
    scratch.rename(result.tuned)
    shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return result


class GateAtBegin(TrainerCallback):  # type: ignore[misc]
    """Passes through the gate once: before the trainer begins, or as its first act."""

    def __init__(self, gate: Callable[[], checks.GateReport]) -> None:
        self._gate = gate
        self._report: checks.GateReport | None = None

    def pass_through(self) -> checks.GateReport:
        """What the gate saw.

        Raises:
            TrainingError: what would be trained on is wrong.
        """
        if self._report is None:
            self._report = self._gate()
        return self._report

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the model when its weights are spread over the processes."""
        self.pass_through()


def _precision(trainer: Trainer) -> str:
    """``bf16`` or ``fp16`` where the arithmetic is mixed, else ``fp32``.

    The launcher's environment may ask for mixed precision behind our settings.
    """
    mixed = trainer.accelerator.mixed_precision
    return "fp32" if mixed == "no" else str(mixed)


@contextmanager
def _room_on_disk(directory: RoundDirectory) -> Iterator[None]:
    """Say in one sentence that the disk is full.

    Raises:
        RunError: a checkpoint or the tuned model could not be written.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RunError(
            f"{directory.path}: the checkpoint or model cannot be written, the disk is full "
            f"({reason}); make room and run the same command again: it goes on from the last "
            "checkpoint"
        ) from None


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


def _finished(folder: Path, directory: RoundDirectory, fingerprint: str) -> TrainingResult | None:
    """The result of this very training, if it has ended; on the main process.

    Raises:
        RunError: the model there is another one.
    """
    file = folder / _RESULT
    if not file.exists():
        if folder.exists():
            raise RunError(
                f"{folder}: not the end of a training of this package (no {_RESULT}); "
                "move the folder away and run the same command again"
            )
        return None
    fix = "damaged: move the folder away and run the same command again"
    result = read_json(file, TrainingResult, fix)
    if result.fingerprint != fingerprint:
        raise RunError(
            f"{folder}: this model was trained on other data or with other settings; "
            "add --redo train to the command, or use a new output_dir"
        )
    shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return result.model_copy(update={"tuned": folder})


def fingerprint_of(
    examples: Sequence[Example],
    config: TrainingConfig,
    loaded: LoadedModel,
    seed: int,
    world: World,
    start: Path | None,
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
    # Checkpoints of sharded weights are others.
    precision += ["fsdp2"] if is_sharding_asked_for() else []
    head = [settings, loaded.model_id, seed, world.size, precision, max_steps_override]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for example in examples:
        digest.update(repr((example.id, len(example.tokens), example.answer_start)).encode())
        digest.update(example.tokens.tobytes())
    if start is not None:
        for file in sorted(start.glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars of datasets, and no advice of transformers to those who wrote TRL."""
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with without_advice():
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()
