"""The recipes under `accelerate launch`, alone and with two processes."""

import json
import sys
from pathlib import Path

import pytest

from tests.helpers.forking import Forking
from tests.recipes.conftest import contents, execute, small_run

ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")


def recipe(name: str, suite: Path, run: Path, *launcher: str) -> list[str]:
    return [
        *ACCELERATE,
        *launcher,
        f"recipes/{name}.py",
        "--config",
        *small_run(suite, run, ("rounds=1",)),
    ]


@pytest.fixture(scope="module")
def alone(suite: Path, forking: Forking, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made stage by stage with the three small recipes, without a launcher."""
    run = tmp_path_factory.mktemp("alone") / "run"
    for name in ("generate", "train", "evaluate"):
        overrides = small_run(suite, run, ("rounds=1",))
        done = forking.run(f"recipes/{name}.py", "--config", *overrides)
        assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout
    return run


def test_the_recipe_of_the_whole_loop_gives_what_its_stages_give(
    alone: Path, suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = execute(recipe("self_instruct", suite, run, "--cpu", "--num_processes", "1"))
    assert done.returncode == 0, done.stderr
    assert contents(run) == contents(alone)


def test_two_processes_share_the_work_and_write_everything_once(
    alone: Path, suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    launcher = ("--config_file", "configs/accelerate/cpu_2.yaml", "--main_process_port", "0")
    done = execute(recipe("self_instruct", suite, run, *launcher))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report:") == 1
    one, two = contents(alone), contents(run)
    assert one.keys() == two.keys()
    for name in two:
        if name.endswith(".jsonl") and isinstance(two[name], bytes):
            rows = [json.loads(line) for line in two[name].splitlines()]  # type: ignore[union-attr]
            ids = [row.get("id") or row.get("task_id") for row in rows if "reason" not in row]
            assert len(set(ids)) == len(ids), f"{name} holds a row twice"
    # Nothing before training depends on how many processes there are.
    for name in (
        "instructions",
        "rejected/instructions",
        "classified",
        "instances",
        "rejected/instances",
    ):
        assert two[f"round-0/{name}.jsonl"] == one[f"round-0/{name}.jsonl"]
    comparison = json.loads(two["round-0/eval/eight/comparison.json"])  # type: ignore[arg-type]
    assert comparison["n"] == 8
