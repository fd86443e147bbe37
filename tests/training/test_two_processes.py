from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PairCounts, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import read_json
from selfinstruct_train.training.sft import train
from tests.helpers.prefer_on_two_processes import prefer


def figures(path: Path) -> list[TrainingStep]:
    return list(RoundDirectory(path).store(path / "training.jsonl", TrainingStep).read())


def launch(helper: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0",
        str(Path(__file__).parents[1] / "helpers" / helper), *map(str, arguments),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one_and_write_once(
    small: ModuleType, tmp_path: Path
) -> None:
    done = launch("train_on_two_processes.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]

    first, second = figures(tmp_path / "first"), figures(tmp_path / "second")
    assert [row.step for row in first] == [1, 2, 3, 4, 5, 6, 7, 8]
    weights = [
        (tmp_path / n / "adapter" / "adapter_model.safetensors").read_bytes()
        for n in ("first", "second")
    ]
    assert weights[0] == weights[1]
    assert [row.loss for row in first] == [row.loss for row in second]

    config = small.settings(lora_dropout=0.0, max_steps=8)
    train(
        small.loaded_model(), small.rows(13), config, RoundDirectory(tmp_path / "one"),
        answers=load_answers("en"), seed=1, world=ALONE,
    )  # fmt: skip
    for one, two in zip(figures(tmp_path / "one"), first, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=2e-2)
        # The process for which the fourth and eighth step have no row learns nothing of a token.
        assert two.tokens == one.tokens + one.step // 4
    alone, together = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("one", "first")
    )
    for name, tensor in alone.items():
        assert (tensor - together[name]).norm() < 0.05 * tensor.norm(), name


@pytest.mark.slow
def test_a_stop_of_one_process_both_or_the_launcher_is_one_of_all_and_changes_nothing(
    tmp_path: Path,
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    done = launch("train_and_stop.py", whole, "nobody", 0)
    assert done.returncode == 0, done.stderr[-3000:]
    for who, at in (("one", 2), ("both", 4), ("launcher", 6)):
        ended = launch("train_and_stop.py", stopped, who, at)
        assert ended.returncode != 0
        assert f"training stopped after {at + 1} of 8 steps: they are saved" in ended.stderr
        assert "stopped by SIGTERM; run the same command to go on" in ended.stderr
        codes = [(stopped / f"code-{rank}").read_text() for rank in (0, 1)]
        assert codes == ["143", "143"], who
        kept = [path.name for path in (stopped / "round-0/checkpoints").glob("checkpoint-*")]
        assert f"checkpoint-{at + 1}" in kept
        for file in stopped.glob("code-*"):
            file.unlink()
    done = launch("train_and_stop.py", stopped, "nobody", 0)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (f / "round-0/adapter/adapter_model.safetensors" for f in (whole, stopped))
    assert one.read_bytes() == other.read_bytes()
    assert [row.loss for row in figures(whole / "round-0")] == [
        row.loss for row in figures(stopped / "round-0")
    ]


@pytest.mark.slow
def test_pairs_and_the_training_on_them_are_those_of_one_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    done = launch("prefer_on_two_processes.py", two)
    assert done.returncode == 0, done.stderr[-3000:]
    prefer(one, ALONE)
    for name in ("dataset/pairs.jsonl", "dataset/pairs.json", "completions/earlier_model.jsonl"):
        assert (two / "round-0" / name).read_bytes() == (one / "round-0" / name).read_bytes()
    sources = read_json(one / "round-0/dataset/pairs.json", PairCounts, "").sources
    assert sources == {"drawn": 8, "earlier_model": 8}, "four whole batches of both kinds"

    alone, together = figures(one / "round-0"), figures(two / "round-0")
    assert [row.step for row in together] == [row.step for row in alone] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(alone, together, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-2)
        assert b.reward_margin == pytest.approx(a.reward_margin, rel=2e-2, abs=1e-3)
        assert b.reward_accuracy == pytest.approx(a.reward_accuracy)
    weights = [load_file(path / "round-0/adapter/adapter_model.safetensors") for path in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        # Sums in another order, of which Adam makes steps of one size: near 0 in either direction.
        assert (tensor - weights[1][name]).norm() < 0.05 * tensor.norm(), name
