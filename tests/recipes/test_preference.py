"""Answers drawn, and then preferred: the whole way, and that a kill on it changes nothing."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.recipes.conftest import ROOT, cli, command, contents, environment, execute

MORE = (
    "rounds=1",
    "generation.instances.answers=as_written",
    "generation.instances.best_of=3",
    "generation.instances.chooser=minimum_bayes_risk",
    "training.method=sft+dpo",
    "training.preference.pairs=[drawn,earlier_model,judged]",
    "training.preference.max_steps=4",
    "training.preference.learning_rate=1e-3",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("preferring") / "run"
    done = execute(command(*cli("run"), suite=suite, run=run, more=MORE))
    assert done.returncode == 0, done.stderr
    assert "preference pairs, chosen answers of" in done.stderr
    return run


def test_pairs_are_made_of_rows_that_are_trained_on_and_both_parts_leave_an_adapter(
    whole: Path,
) -> None:
    round_0 = whole / "round-0"
    pairs = [
        json.loads(line) for line in (round_0 / "dataset/pairs.jsonl").read_text().splitlines()
    ]
    rows = [
        json.loads(line) for line in (round_0 / "sft/dataset/train.jsonl").read_text().splitlines()
    ]
    assert pairs and {pair["id"] for pair in pairs} <= {row["id"] for row in rows}
    assert {pair["source"] for pair in pairs} >= {"earlier_model"}
    first, last = (round_0 / p / "adapter_model.safetensors" for p in ("sft/adapter", "adapter"))
    assert first.read_bytes() != last.read_bytes()
    mark = json.loads((round_0 / "done/train.json").read_text())
    assert mark["figures"]["steps"] == 6 + 4
    assert {"dataset/pairs.jsonl", "sft/adapter/adapter_model.safetensors"} <= mark["files"].keys()


def test_a_run_killed_while_it_draws_answers_and_prefers_ends_as_if_it_had_not_been(
    whole: Path, suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = command(*cli("run"), suite=suite, run=run, more=MORE)
    for appears in (
        "drawn.jsonl",
        "completions/earlier_model.jsonl",
        "sft/checkpoints/checkpoint-2",
        "checkpoints/checkpoint-2",
    ):
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 240
        while not (run / "round-0" / appears).exists():
            assert process.poll() is None, f"the run ended before {appears} was there"
            assert time.monotonic() < deadline, f"{appears} never came"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = execute(arguments)
    assert done.returncode == 0, done.stderr
    expected, found = contents(whole), contents(run)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
