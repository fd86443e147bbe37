"""The user's own commands, on the embedded model and a suite small enough for seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.forking import Forking

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    "model.threads=1",
    "generation.instructions_per_round=6",
    "generation.instructions.requests_per_batch=1",
    "generation.instructions.max_tokens=120",
    "generation.classification.requests_per_batch=4",
    "generation.instances.requests_per_batch=4",
    "generation.instances.max_tokens=60",
    "generation.instances.demonstrations=3",
    "training.max_steps=6",
    "training.batch_size=4",
    "training.save_steps=2",
    "training.logging_steps=2",
    "evaluation.max_tokens=16",
    "evaluation.few_shot_demonstrations=2",
    "evaluation.bootstrap_samples=500",
)


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tasks of the development suite."""
    lines = (ROOT / "data/microworld/dev.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("suite") / "eight.jsonl"
    path.write_text("\n".join(lines[:8]) + "\n")
    return path


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    """Runs commands without waiting for their imports."""
    started = Forking(environment())
    yield started
    started.close()


def small_run(suite: Path, run: Path, more: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a small run: config, overrides, output folder."""
    suites = f"evaluation.suites=[{suite}]"
    return ["configs/quickstart.yaml", *SMALL, suites, *more, "--output-dir", str(run)]


def command(*program: str, suite: Path, run: Path, more: tuple[str, ...] = ()) -> list[str]:
    return [*program, *small_run(suite, run, more)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def execute(arguments: list[str], timeout: int = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "selfinstruct_train.cli.app", *arguments]


# What holds times, paths or the moment of a kill; everything else must be the same to the byte.
_TIMED = {
    *("manifest.json", "forecast.json", "report.html", "rows.html", "config.yaml", "run.log"),
    *("training.json", "training.jsonl"),
}


def contents(run: Path) -> dict[str, bytes | list[object]]:
    """Every file of a run that a repetition must give again; figures of steps without their
    seconds."""
    found: dict[str, bytes | list[object]] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        # The pages of rows are of all rounds, as the report is.
        if not path.is_file() or "done/" in name or name.startswith("rows/"):
            continue
        if path.name == "training.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif path.name not in _TIMED and path.name != "README.md":
            found[name] = path.read_bytes()
    return found


def require_a_base_that_stays(run: Path) -> None:
    """In both rounds of a run the base answers the same, and each tuned model in its own way."""
    said = [
        [
            row["response"]
            for row in map(json.loads, (run / f"round-{n}/eval/eight/{s}.jsonl").open())
        ]
        for n, s in ((0, "base"), (1, "base"), (0, "tuned"), (1, "tuned"))
    ]
    assert said[0] == said[1] and said[0] != said[2] != said[3], "the base stays as it was"
