from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.sft import train


def figures(path: Path) -> list[TrainingStep]:
    return list(RoundDirectory(path).store(path / "training.jsonl", TrainingStep).read())


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one_and_write_once(
    small: ModuleType, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
        str(Path(__file__).parents[1] / "helpers" / "train_on_two_processes.py"), str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]

    first, second = figures(tmp_path / "first"), figures(tmp_path / "second")
    assert [row.step for row in first] == [1, 2, 3, 4, 5, 6]
    weights = [
        (tmp_path / n / "adapter" / "adapter_model.safetensors").read_bytes()
        for n in ("first", "second")
    ]
    assert weights[0] == weights[1]
    assert [row.loss for row in first] == [row.loss for row in second]

    config = small.settings(lora_dropout=0.0)
    train(
        small.loaded_model(), small.rows(), config, RoundDirectory(tmp_path / "one"),
        answers=load_answers("en"), seed=1, world=ALONE,
    )  # fmt: skip
    for one, two in zip(figures(tmp_path / "one"), first, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=2e-2)
        assert two.tokens == one.tokens
