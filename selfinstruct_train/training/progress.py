"""The figures of each step, written as it is logged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from selfinstruct_train.distributed import World
from selfinstruct_train.errors import TrainingError
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import append_bytes
from selfinstruct_train.training.checkpoints import checkpoint_step, mark_complete

OnStep = Callable[[TrainingStep, int], None]
"""Called on the main process with each logged step and the number of steps in all."""


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes the figures of each logged step once, and marks checkpoints as complete."""

    def __init__(
        self,
        directory: RoundDirectory,
        world: World,
        on_step: OnStep | None,
        resumed: Path | None,
        fingerprint: str,
    ) -> None:
        self._directory = directory
        self._world = world
        self._on_step = on_step
        self._fingerprint = fingerprint
        self.rows = list(directory.store(directory.training_steps, TrainingStep).read())
        self._written = self.rows[-1].step if self.rows else 0
        # A checkpoint is saved where a row is logged, so its step has one.
        at = checkpoint_step(resumed) if resumed else 0
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
            reward_accuracy=logs.get("rewards/accuracies"),
            reward_margin=logs.get("rewards/margins"),
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
        # Whoever left before the mark is there would have the launcher stop the main process.
        self._world.on_main(
            lambda: mark_complete(self._directory, state.global_step, self._fingerprint)
        )
