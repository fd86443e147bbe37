"""What a training trains and what it leaves: an adapter beside the weights, or the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import set_seed

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import RunError
from selfinstruct_train.models.whole import is_whole, put_weights
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import sharding
from selfinstruct_train.training.adapter import attach_adapter, save_adapter

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel

_REFERENCE = "ref"
"""TRL's name for the copy of the adapter that a training on pairs is compared with."""


class Trainee(NamedTuple):
    """The model of a training, from its first step until what it saved has been checked."""

    model: Any
    """A `PreTrainedModel` of which all weights are trained, or a `PeftModel`."""
    save: Callable[[Path], None]
    """Writes what was trained into a folder, in place of what is there; every process must call."""
    detach: Callable[[], None]
    """Takes the adapter off the base again, however the training ended."""
    saved: Callable[[Path], AbstractContextManager[Any]]
    """The model as a folder has it, once the trained one is detached."""
    shared_out: bool = False
    """Whether no process has the whole model, so that it is asked by all or by none."""


def tuned_folder(directory: RoundDirectory, config: TrainingConfig) -> Path:
    """Where a training leaves the tuned model."""
    return directory.whole if config.adapter == "none" else directory.adapter


def make_trainee(
    loaded: LoadedModel, config: TrainingConfig, seed: int, world: World, start: Path | None
) -> Trainee:
    """Make a loaded model ready to be trained.

    Args:
        loaded: the base; without an adapter its own weights are trained.
        config: how.
        seed: of an adapter's first weights.
        world: this process among its peers.
        start: a tuned model of the same kind to go on from.

    Raises:
        ConfigError: ``target_modules`` names no module of the model.
        RunError: there is nothing to go on from.
        EngineError: what there is was not tuned from this model.
    """
    if config.adapter == "none":
        return _whole(loaded, seed, world, start)
    return _lora(loaded, config, seed, world, start)


def when_trained(trainee: Trainee, loaded: LoadedModel, world: World) -> Trainee:
    """The same after the training, which may have spread its weights over the processes.

    Args:
        trainee: of `make_trainee`.
        loaded: has the tokenizer.
        world: this process among its peers.
    """
    model = trainee.model
    if not sharding.is_sharded(model):
        return trainee
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}

    def save(folder: Path) -> None:
        weights = sharding.gathered(model)
        world.on_main(
            lambda: (
                save_adapter(model, folder, weights)
                if hasattr(model, "peft_config")
                else _save_whole(loaded, folder, weights)
            )
        )

    def saved(folder: Path) -> AbstractContextManager[Any]:
        return sharding.filled(model, trained, folder, world)

    return Trainee(model, save, lambda: None, saved, shared_out=True)


def _lora(
    loaded: LoadedModel, config: TrainingConfig, seed: int, world: World, start: Path | None
) -> Trainee:
    tuned = attach_adapter(loaded.model, config, seed, start)

    def save(folder: Path) -> None:
        if _REFERENCE in tuned.peft_config:
            tuned.delete_adapter(_REFERENCE)
        world.on_main(lambda: save_adapter(tuned, folder))

    @contextmanager
    def saved(folder: Path) -> Iterator[Any]:
        from peft import PeftModel

        again = PeftModel.from_pretrained(loaded.model, str(folder))
        try:
            yield again
        finally:
            again.unload()

    return Trainee(tuned, save, tuned.unload, saved)


def _whole(loaded: LoadedModel, seed: int, world: World, start: Path | None) -> Trainee:
    model = loaded.model
    if start is not None:
        if not is_whole(start):
            raise RunError(
                f"{start}: no whole model there to go on from; finish the round before, or set "
                "training.start=base"
            )
        put_weights(model, start)
    set_seed(seed)
    model.requires_grad_(True)

    def save(folder: Path) -> None:
        world.on_main(lambda: _save_whole(loaded, folder))

    @contextmanager
    def saved(folder: Path) -> Iterator[Any]:
        # None of the trained weights is left: each is read, or the reading fails.
        put_weights(model, folder)
        yield model

    return Trainee(model, save, lambda: None, saved)


def _save_whole(
    loaded: LoadedModel, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    loaded.model.save_pretrained(str(folder), state_dict=weights)
    loaded.tokenizer.save_pretrained(str(folder))
