"""The check of one round on two processes; launched by test_harness."""

from __future__ import annotations

import sys
from pathlib import Path

from selfinstruct_train.config import Config
from selfinstruct_train.distributed import join_world
from selfinstruct_train.evaluation.beyond.harness import measure_harness
from selfinstruct_train.models.load import load_model
from selfinstruct_train.run.directory import RunDirectory


def main(tasks: str, output_dir: Path) -> None:
    world = join_world()
    assert world.size == 2
    harness = {"tasks": ["own_likely"], "include_path": tasks, "batch_size": 4}
    config = Config.model_validate(
        {
            "model": {"name_or_path": "embedded", "dtype": "float32"},
            "seeds": {"path": "microworld-seeds"},
            "evaluation": {"suites": ["microworld"], "harness": harness},
            "output_dir": str(output_dir),
        }
    )
    measure_harness(config, load_model(config.model), RunDirectory(output_dir, world), 0)


main(sys.argv[1], Path(sys.argv[2]))
