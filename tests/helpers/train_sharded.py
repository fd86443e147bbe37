"""A training with weights spread over CPU processes; launched by test_sharded.

accelerate shards on GPUs and the like alone; told that these processes are such, it does on CPUs
what it does there, over gloo.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import accelerate.state
from accelerate import PartialState
from accelerate.utils import DistributedType

sys.path.insert(0, str(Path(__file__).parent))
import small_models as small

from selfinstruct_train.distributed import World, join_world
from selfinstruct_train.errors import TrainingError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import arguments, sharding, trainee
from selfinstruct_train.training.progress import Recorder
from selfinstruct_train.training.sft import train

SETTINGS = {
    "max_steps": 20,
    "save_steps": 10,
    "lora_dropout": 0.0,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "micro_batch_size": 4,
}


class Stop(Exception):
    """As a kill after the checkpoint of step 10."""


def pretend_to_be_gpus() -> None:
    """Let accelerate shard here."""
    real = accelerate.state.AcceleratorState.__init__

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        shared = PartialState._shared_state
        if shared.get("distributed_type") == DistributedType.MULTI_CPU:
            shared["distributed_type"] = DistributedType.MULTI_GPU
        real(self, *arguments, **options)

    accelerate.state.AcceleratorState.__init__ = begin


def tune(adapter: str, folder: Path, world: World) -> None:
    result = train(
        small.loaded_model(),
        small.rows(),
        small.settings(adapter=adapter, **SETTINGS),
        RoundDirectory(folder, world),
        answers=load_answers("en"),
        seed=1,
        world=world,
    )
    assert result.steps == 20 and result.check.prompts == 8


def stopped(adapter: str, folder: Path, world: World) -> None:
    real = Recorder.on_save

    def save(self: Recorder, args: Any, state: Any, control: Any, **_: Any) -> None:
        real(self, args, state, control)
        raise Stop

    Recorder.on_save = save  # type: ignore[method-assign]
    try:
        tune(adapter, folder, world)
    except Stop:
        return
    finally:
        Recorder.on_save = real  # type: ignore[method-assign]
    raise AssertionError("not stopped")


def spoiled(adapter: str, folder: Path, world: World) -> None:
    """What is saved is not what was trained."""
    real = sharding.gathered

    def gathered(model: Any) -> dict[str, Any]:
        found = real(model)
        for weight in found.values():
            weight *= 1.1
        return found

    trainee.sharding.gathered = gathered
    try:
        tune(adapter, folder, world)
    except TrainingError as error:
        assert "saved model is not the trained one" in str(error)
        return
    finally:
        trainee.sharding.gathered = real
    raise AssertionError("not refused")


def main(adapter: str, folder: Path) -> None:
    pretend_to_be_gpus()
    # In 16 bits sharded weights are computed with otherwise than whole ones.
    arguments.has_fast_bf16 = lambda device: False
    world = join_world()
    tune(adapter, folder / "undisturbed", world)
    if world.size == 2:
        stopped(adapter, folder / "resumed", world)
        tune(adapter, folder / "resumed", world)
        spoiled(adapter, folder / "spoiled", world)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
