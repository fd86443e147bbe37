"""Several trainings on one data set: what a sweep costs, leaves and says."""

import json
from pathlib import Path

from tests.helpers.forking import Forking
from tests.recipes.conftest import small_run

NAMES = ("learning_rate-0.0005", "learning_rate-0.002", "learning_rate-0.004")
GENERATED = ("instructions.jsonl", "classified.jsonl", "instances.jsonl", "completions")
ONE_ROUND = ("rounds=1", "evaluation.few_shot_demonstrations=0")


def generated(run: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of the generation with its bytes and the time at which it was written."""
    round_0 = run / "round-0"
    paths = [p for name in GENERATED for p in (round_0 / name, *(round_0 / name).rglob("*"))]
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in paths if p.is_file()}


def test_a_sweep_of_three_trains_on_one_data_set_and_compares_them(
    suite: Path, forking: Forking, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = forking.run("generate", *small_run(suite, run, ONE_ROUND))
    assert first.returncode == 0, first.stderr
    data = generated(run)

    sweep = "training.sweep={learning_rate: [5e-4, 2e-3, 4e-3]}"
    done = forking.run("run", *small_run(suite, run, (*ONE_ROUND, sweep)))
    assert done.returncode == 0, done.stderr
    assert generated(run) == data
    round_0 = run / "round-0"
    assert not (round_0 / "adapter").exists()
    adapters = set()
    for name in NAMES:
        folder = round_0 / "trainings" / name
        adapters.add((folder / "adapter/adapter_model.safetensors").read_bytes())
        for file in ("training.jsonl", "done/train.json", "done/evaluate.json"):
            assert (folder / file).exists(), file
        assert (folder / "eval/eight/comparison.json").exists()
    assert len(adapters) == 3

    table = json.loads((round_0 / "trainings.json").read_text())
    assert [row["training"] for row in table["rows"]] == list(NAMES)
    assert table["chosen"] in NAMES
    for row in table["rows"]:
        assert (
            row["over_base"]["ci_low"] <= row["over_base"]["delta"] <= row["over_base"]["ci_high"]
        )
        assert (row["over_chosen"] is None) == (row["training"] == table["chosen"])
    assert (
        f"trainings side by side, chosen on one half of the tasks of eight: {table['chosen']}"
        in (done.stderr)
    )
    assert f"round 0, training {table['chosen']}" in done.stdout
    page = (run / "report.html").read_text("utf-8")
    assert "Trainings on the data of round 0" in page and all(name in page for name in NAMES)

    hot = (*ONE_ROUND, "training.name=hot", "training.learning_rate=3e-3")
    done = forking.run("train", *small_run(suite, run, hot))
    assert done.returncode == 0, done.stderr
    assert generated(run) == data
    assert (round_0 / "trainings/hot/adapter/adapter_model.safetensors").exists()
    other = (*hot, "training.learning_rate=1e-3")
    refused = forking.run("train", *small_run(suite, run, other))
    assert refused.returncode == 2
    assert "training.learning_rate: 0.003 -> 0.001" in refused.stderr
