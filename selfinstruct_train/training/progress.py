"""What outlives a kill: the figures of each step, complete checkpoints, and whose they are."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from selfinstruct_train.distributed import World
from selfinstruct_train.errors import RunError, TrainingError
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import append_bytes, write_atomically

OnStep = Callable[[TrainingStep, int], None]
"""Called on the main process with each logged step and the number of steps in all."""

_BEGUN = "begun"
_COMPLETE = "complete"


def adopt_checkpoint(directory: RoundDirectory, fingerprint: str) -> Path | None:
    """The latest complete checkpoint of this training; torn ones are removed.

    Args:
        directory: the round.
        fingerprint: of the training about to begin.

    Raises:
        RunError: the checkpoints are of another training.
    """
    begun = directory.checkpoints / _BEGUN
    if not begun.exists():
        # Figures without a training under way are those of an adapter that was deleted.
        directory.training_steps.unlink(missing_ok=True)
        write_atomically(begun, fingerprint + "\n")
    elif begun.read_text("utf-8").strip() != fingerprint:
        if any(directory.checkpoints.glob(f"checkpoint-*/{_COMPLETE}")):
            raise RunError(
                f"{directory.checkpoints}: holds a training on other data or with other settings, "
                "precision or number of processes; restore them, add --redo train to the command, "
                "or use a new output_dir"
            )
        # Nothing of it is kept yet, so a setting may still be put right.
        directory.training_steps.unlink(missing_ok=True)
        write_atomically(begun, fingerprint + "\n")
    elif directory.training_steps.exists():
        whole = directory.store(directory.training_steps, TrainingStep).read()
        # A line torn by the kill would swallow the next one.
        write_atomically(
            directory.training_steps, "".join(row.model_dump_json() + "\n" for row in whole)
        )
    complete = []
    for folder in directory.checkpoints.glob("checkpoint-*"):
        if (folder / _COMPLETE).exists():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes the figures of each logged step once, and marks checkpoints as complete."""

    def __init__(
        self,
        directory: RoundDirectory,
        world: World,
        on_step: OnStep | None,
        resumed: Path | None,
    ) -> None:
        self._directory = directory
        self._world = world
        self._on_step = on_step
        self.rows = list(directory.store(directory.training_steps, TrainingStep).read())
        self._written = self.rows[-1].step if self.rows else 0
        # A checkpoint is saved where a row is logged, so its step has one.
        at = _step(resumed) if resumed else 0
        self._before = next((row for row in self.rows if row.step == at), None)
        self._began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock when the data are ready."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log where a checkpoint is saved and at the end, and leave out the last checkpoint."""
        last = state.global_step >= state.max_steps
        # Means of the loss start again at a checkpoint, as they do for whoever resumes from it.
        if last or state.global_step % args.save_steps == 0:
            control.should_log = True
        # The adapter itself is saved now; a trainer resumed at its last step would take one more.
        if last:
            control.should_save = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the figures of a step that has none yet.

        Raises:
            TrainingError: the loss is not a number.
        """
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} at step {state.global_step}; lower "
                f"training.learning_rate (now {args.learning_rate:g}) and add --redo train to the "
                "command"
            )
        before = self._before
        row = TrainingStep(
            step=state.global_step,
            epoch=round(state.epoch, 4),
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            gradient_norm=logs.get("grad_norm"),
            tokens=int(logs["num_tokens"]) + (before.tokens or 0 if before else 0),
            seconds=round(time.monotonic() - self._began + (before.seconds if before else 0.0), 3),
        )
        if row.step > self._written:
            self._written = row.step
            self.rows.append(row)
            if self._world.is_main:
                line = row.model_dump_json() + "\n"
                append_bytes(self._directory.training_steps, line.encode())
        if self._on_step and self._world.is_main:
            self._on_step(row, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark a checkpoint as complete once every process has written its part."""
        if self._world.size > 1:
            torch.distributed.barrier()  # each process saves its own random state
        if self._world.is_main:
            folder = self._directory.checkpoints / f"checkpoint-{state.global_step}"
            write_atomically(folder / _COMPLETE, "")
