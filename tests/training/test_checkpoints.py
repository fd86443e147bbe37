"""Laws of what a training leaves on the disk: damaged or short of room, it ends the same."""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import DataError, RunError, is_disk_full
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import sft
from selfinstruct_train.training.checkpoints import adopt_checkpoint


class Stopped(Exception):
    pass


def tune(small: ModuleType, path: Path, **options: Any) -> sft.TrainingResult:
    return sft.train(
        small.loaded_model(),
        small.rows(),
        small.settings(max_steps=4, save_steps=1),
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
        **options,
    )


def end(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The adapter, and the figures less their times."""
    steps = RoundDirectory(path).store(path / "training.jsonl", TrainingStep).read()
    weights = (path / "adapter" / "adapter_model.safetensors").read_bytes()
    return weights, [step.model_dump(exclude={"seconds"}) for step in steps]


@pytest.fixture(scope="module")
def undisturbed(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("undisturbed") / "round-0"
    tune(small, path)
    return path


@pytest.fixture(scope="module")
def stopped(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training stopped at its fourth step, with two checkpoints."""
    path: Path = tmp_path_factory.mktemp("stopped") / "round-0"

    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        tune(small, path, on_step=stop)
    assert sorted(f.name for f in path.glob("checkpoints/checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-3",
    ]
    return path


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def flip(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)


DAMAGES = (remove, empty, cut, flip)


def fingerprint_of(path: Path) -> str:
    mark = json.loads((path / "checkpoints/checkpoint-3/complete").read_text())
    return str(mark["fingerprint"])


def test_every_file_of_a_checkpoint_is_vouched_for(stopped: Path, tmp_path: Path) -> None:
    files = sorted(p.name for p in (stopped / "checkpoints/checkpoint-3").iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json"} < set(files)
    fingerprint = fingerprint_of(stopped)
    for number, name in enumerate(files):
        for damage in DAMAGES:
            round_ = tmp_path / f"{number}-{damage.__name__}"
            shutil.copytree(stopped, round_)
            damage(round_ / "checkpoints/checkpoint-3" / name)
            directory = RoundDirectory(round_)
            adopted = adopt_checkpoint(directory, fingerprint)
            assert adopted.checkpoint == round_ / "checkpoints/checkpoint-2", (name, damage)
            if name != "complete" or damage is not remove:  # as a kill leaves it: not a word
                (note,) = adopted.notes
                assert "checkpoint-3" in note and name in note
                assert note.endswith("the training goes on from checkpoint-2")
            assert not (round_ / "checkpoints/checkpoint-3").exists()


def test_a_changed_fingerprint_is_damage_and_another_training_is_refused(
    stopped: Path, tmp_path: Path
) -> None:
    fingerprint = fingerprint_of(stopped)
    shutil.copytree(stopped, tmp_path / "r")
    directory = RoundDirectory(tmp_path / "r")
    with pytest.raises(RunError, match="holds a training on other data or with other settings"):
        adopt_checkpoint(directory, "f" * 16)
    file = tmp_path / "r/checkpoints/checkpoint-3/complete"
    file.write_text(file.read_text().replace(fingerprint, "f" * 16))
    assert "complete was changed" in adopt_checkpoint(directory, fingerprint).notes[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_figures_that_were_changed_are_taken_again(
    stopped: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(stopped, tmp_path / "r")
    damage(tmp_path / "r" / "training.jsonl")
    adopted = adopt_checkpoint(RoundDirectory(tmp_path / "r"), fingerprint_of(stopped))
    assert adopted.checkpoint is None or adopted.checkpoint.name == "checkpoint-2"
    assert all("training.jsonl" in note for note in adopted.notes)


def damage_newest(path: Path) -> None:
    flip(path / "checkpoints/checkpoint-3/adapter_model.safetensors")


def damage_both(path: Path) -> None:
    damage_newest(path)
    cut(path / "checkpoints/checkpoint-2/optimizer.pt")


def damage_figures(path: Path) -> None:
    remove(path / "training.jsonl")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_newest, "goes on from checkpoint-2"),
        (damage_both, "starts at its first step"),
        (damage_figures, "starts at its first step"),
    ],
)
def test_a_training_with_damaged_checkpoints_ends_as_an_undisturbed_one(
    small: ModuleType,
    tmp_path: Path,
    stopped: Path,
    undisturbed: Path,
    damage: Callable[[Path], None],
    says: str,
) -> None:
    path = tmp_path / "round-0"
    shutil.copytree(stopped, path)
    damage(path)
    said: list[str] = []
    tune(small, path, say=said.append)
    assert says in said[-1]
    assert end(path) == end(undisturbed)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writing fails as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


# The files of a checkpoint and the adapter have from 200 bytes to 40 thousand.
@pytest.mark.parametrize("size", [300, 3_000, 15_000, 30_000])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    small: ModuleType, tmp_path: Path, undisturbed: Path, size: int
) -> None:
    path = tmp_path / "round-0"
    with room_for(size), pytest.raises(RunError, match="make room.* run the same command again"):
        tune(small, path)
    tune(small, path)
    assert end(path) == end(undisturbed)


def full(write: Callable[[Path], object]) -> Exception:
    """What a writer raises where files may have no more than 100 bytes."""
    with tempfile.TemporaryDirectory() as folder, room_for(100):
        try:
            write(Path(folder))
        except Exception as error:
            return error
    raise AssertionError("it had room")


def test_whoever_has_no_room_is_understood(small: ModuleType) -> None:
    loaded = small.loaded_model()
    weights = {"a": torch.zeros(1000)}
    for write in (
        lambda folder: loaded.tokenizer.save_pretrained(folder),
        lambda folder: loaded.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json")),
        lambda folder: save_file(weights, folder / "model.safetensors"),
        lambda folder: torch.save(weights, folder / "model.pt"),
        lambda folder: (folder / "text").write_text("a" * 1000),
    ):
        error = full(write)
        assert is_disk_full(error), repr(error)
    assert not is_disk_full(ValueError("28"))


def test_a_damaged_result_is_named(tmp_path: Path, small: ModuleType, undisturbed: Path) -> None:
    path = tmp_path / "round-0"
    shutil.copytree(undisturbed, path)
    (path / "adapter/training.json").write_text("")
    with pytest.raises(DataError, match=r"training.json: .*move the folder away"):
        tune(small, path)
    shutil.move(path / "adapter", tmp_path / "away")
    tune(small, path)
    assert end(path) == end(undisturbed)
