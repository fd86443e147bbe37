"""What outlives a kill: checkpoints that know whose they are and what their files must hold."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.marks import VouchedFile, vouch
from selfinstruct_train.run.stores import read_json, write_atomically

_COMPLETE = "complete"


class CheckpointMark(Row):
    """The file ``complete`` of a checkpoint, written last."""

    fingerprint: str
    """Of the training."""
    files: dict[str, VouchedFile]
    """Name within the checkpoint -> what the file must hold."""
    figures_bytes: int
    """Of training.jsonl up to the checkpoint's step."""
    figures_sha256: str
    """Of these bytes."""
    own_sha256: str = ""
    """Of this mark without this field: a changed fingerprint is damage, not another training."""

    def sealed(self) -> CheckpointMark:
        """The mark with its own digest."""
        text = self.model_copy(update={"own_sha256": ""}).model_dump_json()
        return self.model_copy(update={"own_sha256": hashlib.sha256(text.encode()).hexdigest()})


class Adopted(NamedTuple):
    """Where a training begins."""

    checkpoint: Path | None
    """None: at its first step."""
    notes: tuple[str, ...]
    """What was put aside, one sentence each."""


def mark_complete(directory: RoundDirectory, step: int, fingerprint: str) -> None:
    """Vouch for a checkpoint that every process has written its part of.

    Raises:
        RunError: the disk is full.
    """
    folder = directory.checkpoints / f"checkpoint-{step}"
    figures = directory.training_steps.read_bytes()
    mark = CheckpointMark(
        fingerprint=fingerprint,
        files=vouch(folder, [folder]),
        figures_bytes=len(figures),
        figures_sha256=hashlib.sha256(figures).hexdigest(),
    )
    write_atomically(folder / _COMPLETE, mark.sealed().model_dump_json(indent=1) + "\n")


def adopt_checkpoint(directory: RoundDirectory, fingerprint: str) -> Adopted:
    """The latest checkpoint of this training that is as it was written; others are removed.

    The figures that are not of its steps are cut off: they are taken again.

    Args:
        directory: the round.
        fingerprint: of the training about to begin.

    Raises:
        RunError: the checkpoints are of another training.
    """
    folders = [f for f in directory.checkpoints.glob("checkpoint-*") if f.name[11:].isdigit()]
    notes: list[str] = []
    adopted: Path | None = None
    figures_bytes = 0
    for folder in sorted(folders, key=checkpoint_step, reverse=True):
        if adopted is not None:
            break
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder)  # a kill came while it was written
            continue
        mark, damage = _inspect(directory, folder)
        if mark is not None and mark.fingerprint != fingerprint:
            raise RunError(
                f"{directory.checkpoints}: holds a training on other data or with other settings, "
                "precision or number of processes; restore them, add --redo train to the command, "
                "or use a new output_dir"
            )
        if mark is None:
            notes.append(f"{folder}: {damage} since it was written; it is not used")
            shutil.rmtree(folder)
            continue
        adopted, figures_bytes = folder, mark.figures_bytes
    if notes:
        goes_on = f"goes on from {adopted.name}" if adopted else "starts at its first step"
        notes[-1] += f", and the training {goes_on}"
    if adopted is None:
        directory.training_steps.unlink(missing_ok=True)
    else:
        os.truncate(directory.training_steps, figures_bytes)
    return Adopted(adopted, tuple(notes))


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _inspect(directory: RoundDirectory, folder: Path) -> tuple[CheckpointMark | None, str]:
    """The mark of a checkpoint that is as it was written, or else what is not."""
    try:
        mark = read_json(folder / _COMPLETE, CheckpointMark, "")
    except DataError:
        return None, f"its file {_COMPLETE} was changed"
    if mark != mark.sealed():
        return None, f"its file {_COMPLETE} was changed"
    found = vouch(folder, [folder])
    for name, wanted in mark.files.items():
        if name not in found:
            return None, f"its file {name} is missing"
        if found[name] != wanted:
            return None, f"its file {name} was changed"
    figures = directory.training_steps
    begin = figures.read_bytes()[: mark.figures_bytes] if figures.exists() else b""
    if hashlib.sha256(begin).hexdigest() != mark.figures_sha256:
        return None, f"{figures.name}, whose figures go with it, was changed"
    return mark, ""
