"""Weights spread over processes: the same steps as with one, saved whole, checked sharded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import arguments, launcher
from selfinstruct_train.training.sft import train
from tests.helpers.train_sharded import SETTINGS

ROOT = Path(__file__).parents[2]
HELPER = ROOT / "tests" / "helpers" / "train_sharded.py"


def losses(folder: Path) -> list[float]:
    steps = RoundDirectory(folder).store(folder / "training.jsonl", TrainingStep).read()
    return [step.loss for step in steps]


def weights(folder: Path) -> Path:
    (file,) = RoundDirectory(folder).tuned.glob("*.safetensors")
    return file


def apart(a: Path, b: Path) -> float:
    """Mean difference between two trainings' weights, as a share of what a training moves them."""
    first, second = load_file(weights(a)), load_file(weights(b))
    assert first.keys() == second.keys()
    sums = sum(float((first[name] - second[name]).abs().sum()) for name in first)
    count = sum(weight.numel() for weight in first.values())
    return sums / count / (20 * SETTINGS["learning_rate"])


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "none"])
@pytest.mark.parametrize("processes", [2, 4])
def test_sharded_weights_end_as_those_of_one_process(
    small: ModuleType,
    tmp_path: Path,
    adapter: str,
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arguments, "has_fast_bf16", lambda device: False)
    launcher = ROOT / "configs" / "accelerate" / "fsdp2.yaml"
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launcher),
        "--num_processes", str(processes), "--mixed_precision", "no", "--main_process_port", "0",
        str(HELPER), adapter, str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]

    train(
        small.loaded_model(), small.rows(), small.settings(adapter=adapter, **SETTINGS),
        RoundDirectory(tmp_path / "one"), answers=load_answers("en"), seed=1, world=ALONE,
    )  # fmt: skip
    one, many = losses(tmp_path / "one"), losses(tmp_path / "undisturbed")
    assert len(one) == 20 and many == pytest.approx(one, rel=1e-5)
    assert apart(tmp_path / "one", tmp_path / "undisturbed") < 1e-6
    if processes == 2:
        resumed = tmp_path / "resumed"
        assert weights(resumed).read_bytes() == weights(tmp_path / "undisturbed").read_bytes()
        assert losses(resumed) == many
        assert not RoundDirectory(tmp_path / "spoiled").tuned.exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: is 1"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading"),
        ({"adapter": "qlora"}, r"training\.adapter: weights in 4 bits are not sharded"),
        ({"start": "merged"}, r"training\.start: weights that are sharded have nothing merged"),
        ({"method": "sft+dpo"}, r"training\.method: 'sft\+dpo' cannot be trained with sharded"),
    ],
)
def test_a_launcher_that_cannot_be_served_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    method, adapter = variables.get("method", "sft"), variables.get("adapter", "lora")
    start = variables.get("start", "base")
    launcher.check_launcher(method, adapter, start)
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} | variables
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        launcher.check_launcher(method, adapter, start)


def test_a_cpu_on_which_accelerate_would_not_shard_is_not_passed_over(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ConfigError, match="accelerate shards no weights on CPUs"):
        train(
            small.loaded_model(), small.rows(), small.settings(), RoundDirectory(tmp_path),
            answers=load_answers("en"), seed=1, world=ALONE,
        )  # fmt: skip
