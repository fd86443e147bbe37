"""Two trainings in a row on two processes; launched by test_two_processes.

Of thirteen rows the last step of an epoch has one, so that a process has none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_models as small

from selfinstruct_train.distributed import join_world
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.sft import train


class Stopped(Exception):
    pass


def main(folder: Path) -> None:
    world = join_world()
    assert world.size == 2
    base_model = small.loaded_model()
    tokens = torch.arange(2, 40)[None]
    logits = base_model.model(tokens).logits
    config = small.settings(lora_dropout=0.0, max_steps=8)
    calls = []

    def count(step: TrainingStep, total: int) -> None:
        calls.append(step.step)

    for name in ("first", "second"):
        directory = RoundDirectory(folder / name, world)
        result = train(
            base_model,
            small.rows(13),
            config,
            directory,
            answers=load_answers("en"),
            seed=1,
            world=world,
            on_step=count,
        )
        assert result.steps == 8
        assert torch.equal(base_model.model(tokens).logits, logits)
    assert len(calls) == (16 if world.is_main else 0)


main(Path(sys.argv[1]))
