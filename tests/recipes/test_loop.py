"""The whole loop as a user runs it: what it leaves, that a kill changes nothing, that errors are
clear."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.forking import Forking
from tests.recipes.conftest import (
    ROOT,
    cli,
    command,
    contents,
    environment,
    execute,
    small_run,
)

KILLS = (
    "completions/instructions.jsonl",
    "instructions.jsonl",
    "classified.jsonl",
    "completions/instances.jsonl",
    "instances.jsonl",
    "training.jsonl",
    "checkpoints/checkpoint-4",
    "eval/eight/base.jsonl",
    "eval/eight/tuned.jsonl",
)
"""Files of a round in the order in which they appear."""


@pytest.fixture(scope="session")
def whole(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = execute(command(*cli("run"), suite=suite, run=run, more=("rounds=2",)))
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout and "own data" in done.stdout
    assert "items are too few" in done.stdout
    return run


def test_a_run_leaves_exactly_the_files_that_the_design_names(whole: Path) -> None:
    evaluation = {
        f"eval/eight/{name}.jsonl" for name in ("base", "base-few-shot", "seeds-only", "tuned")
    } | {"eval/eight/comparison.json"}
    expected = evaluation | {
        "instructions.jsonl",
        "rejected/instructions.jsonl",
        "rejected/instances.jsonl",
        "classified.jsonl",
        "instances.jsonl",
        "training.jsonl",
        "contamination.jsonl",
        "completions/instructions.jsonl",
        "completions/instances.jsonl",
        "calibration.json",
        "dataset/train.jsonl",
        "dataset/counts.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/training.json",
        "done/instructions.json",
        "done/classification.json",
        "done/instances.json",
        "done/train.json",
        "done/evaluate.json",
        "decision.json",
    }
    for number in (0, 1):
        folder = whole / f"round-{number}"
        found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert found - {"adapter/README.md"} == expected
    top = {p.name for p in whole.iterdir()}
    assert top == {
        ".run.lock",
        "config.yaml",
        "forecast.json",
        "manifest.json",
        "report.html",
        "rows",
        "rows.html",
        "run.log",
        "round-0",
        "round-1",
        "seeds-only",
    }


def test_the_comparison_has_the_keys_of_the_compare_command(whole: Path) -> None:
    data = json.loads((whole / "round-1/eval/eight/comparison.json").read_text())
    assert {"delta", "ci_low", "ci_high", "wins", "ties", "losses"} <= data.keys()
    assert [s["system"] for s in data["scores"]] == [
        "base",
        "base-stopped",
        "base-few-shot",
        "seeds-only",
        "tuned",
    ]
    assert data["wins"] + data["ties"] + data["losses"] == data["n"] == 8


def test_the_second_round_trains_on_the_data_of_both(whole: Path) -> None:
    rows = (whole / "round-1/dataset/train.jsonl").read_text()
    assert '"r0-' in rows and '"r1-' in rows and '"source":"seed"' in rows


def test_a_run_killed_in_every_stage_ends_as_if_nothing_had_happened(
    whole: Path, suite: Path, forking: Forking, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("run", *small_run(suite, run, ("rounds=1",)))
    kept: dict[str, bytes] = {}
    for appears in KILLS:
        forking.kill_when(run / "round-0" / appears, *arguments)
        for name, data in kept.items():
            assert (run / name).read_bytes().startswith(data), f"{name} lost finished rows"
        kept = {
            str(path.relative_to(run)): path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
            for path in (run / "round-0").glob("*.jsonl")
            # Figures of steps since the last checkpoint are taken again with the steps.
            if path.name != "training.jsonl"
        }
    done = forking.run(*arguments)
    assert done.returncode == 0, done.stderr
    undisturbed = contents(whole)
    disturbed = contents(run)
    assert disturbed.keys() == {name for name in undisturbed if not name.startswith("round-1/")}
    assert [name for name in disturbed if disturbed[name] != undisturbed[name]] == []


def test_a_finished_run_is_not_done_again(whole: Path, suite: Path, forking: Forking) -> None:
    before = contents(whole)
    done = forking.run("run", *small_run(suite, whole, ("rounds=2",)))
    assert done.returncode == 0, done.stderr
    assert contents(whole) == before


def test_a_suite_that_joins_late_is_held_against_what_was_trained_on(
    whole: Path, suite: Path, forking: Forking, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    rows = (run / "round-0/dataset/train.jsonl").read_text().splitlines()
    trained = json.loads(next(row for row in rows if '"source":"generated"' in row))
    late = tmp_path / "late.jsonl"
    questions = [(trained["instruction"], trained["input"]), ("Describe how rain falls up.", "")]
    late.write_text(
        "".join(
            json.dumps(
                {
                    "id": f"late-{i}",
                    "instruction": instruction,
                    "instances": [{"input": given, "output": "x"}],
                    "constraints": [{"kind": "words", "at_most": 500}],
                }
            )
            + "\n"
            for i, (instruction, given) in enumerate(questions)
        )
    )
    more = ("rounds=1", f"evaluation.suites=[{suite},{late}]")
    done = forking.run("evaluate", *small_run(suite, run, more))
    assert done.returncode == 0, done.stderr
    assert "1 of 2 rows of late resemble what was trained on (1 ask the same)" in done.stderr
    found = json.loads((run / "round-0/eval/late/comparison.json").read_text())
    assert [(c["id"], c["training_row"]) for c in found["contaminated"]] == [
        ("late-0#0", trained["id"])
    ]
    assert {p["metric"] for p in found["pairs"]} >= {"prompt_level_strict", "rouge_l"}
    assert "that what was trained on gives away" in (run / "report.html").read_text("utf-8")
    first = json.loads((whole / "round-0/eval/eight/comparison.json").read_text())
    assert first["contaminated"] == []


def test_ctrl_c_says_how_to_go_on(suite: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(*cli("run"), suite=suite, run=run),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (run / "round-0/completions/instructions.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command to go on" in said


def test_every_shipped_config_of_our_own_data_validates(forking: Forking) -> None:
    done = forking.run("validate", "configs/quickstart.yaml")
    assert done.returncode == 0 and "175 seed tasks" in done.stdout


def test_help_names_every_command() -> None:
    done = execute(cli("--help"))
    for name in ("run", "generate", "train", "evaluate", "score", "compare", "dedup", "validate"):
        assert name in done.stdout
