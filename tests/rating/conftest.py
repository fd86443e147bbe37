import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from selfinstruct_train.config import Config
from selfinstruct_train.records import (
    Comparison,
    EvalTask,
    Instance,
    PairedComparison,
    Prediction,
)
from selfinstruct_train.run.directory import RunDirectory

ANSWERS = {
    "base": "alpha no. {}\n### Input:\nmore",
    "seeds-only": "beta no. {}",
    "tuned": "gamma no. {}",
}
SERVE = (
    "import sys; from pathlib import Path; "
    "from selfinstruct_train.cli.program import guard; "
    "from selfinstruct_train.run.directory import RunDirectory\n"
    "def program():\n"
    "    from selfinstruct_train.rating.server import rate\n"
    "    rate(RunDirectory(Path(sys.argv[1])), 0, sys.argv[2] or None)\n"
    "guard(program)\n"
)


class Served(NamedTuple):
    """A rating server in a process of its own."""

    process: subprocess.Popen[str]
    url: str


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Write a run that was evaluated on a few questions."""

    def make(questions: int = 3, extra: str = "", **answers: str) -> RunDirectory:
        suite = tmp_path / "made.jsonl"
        tasks = [
            EvalTask(
                id=f"t{i}",
                instruction=f"Say the word no. {i}.{extra}",
                instances=(Instance(input=f"item {i}{extra}", output=f"word {i}"),),
            )
            for i in range(questions)
        ]
        suite.write_text("".join(task.model_dump_json() + "\n" for task in tasks), "utf-8")
        run = RunDirectory(tmp_path / "run")
        run.open(
            Config.model_validate(
                {
                    "model": {"name_or_path": "embedded"},
                    "seeds": {"path": "microworld-seeds"},
                    "evaluation": {"suites": [str(suite)]},
                    "output_dir": str(run.path),
                }
            )
        )
        folder = run.round(0).evaluation("made")
        for system, text in (ANSWERS | answers).items():
            run.round(0).store(folder / f"{system}.jsonl", Prediction).append(
                Prediction(
                    task_id=task.id,
                    instruction=task.instruction,
                    input=task.instances[0].input,
                    response=text.replace("{}", str(i)),
                    target=task.instances[0].output,
                )
                for i, task in enumerate(tasks)
            )
        pair = PairedComparison(
            a="base-stopped", b="tuned", metric="rouge_l", group="overall", n=questions,
            delta=1.0, ci_low=0.5, ci_high=1.5, wins=1, ties=0, losses=0,
        )  # fmt: skip
        (folder / "comparison.json").write_text(
            Comparison(
                suite="made", confidence=0.95, scores=(), pairs=(pair,),
                **pair.model_dump(include={"n", "delta", "ci_low", "ci_high", "wins", "ties",
                                           "losses"}),
            ).model_dump_json()
        )  # fmt: skip
        return run

    return make


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start rating servers; all are ended with the test."""
    pytest.importorskip("uvicorn", reason="the extra 'rate' is not installed")
    pytest.importorskip("starlette", reason="the extra 'rate' is not installed")
    started: list[subprocess.Popen[str]] = []

    def start(run: RunDirectory, rater: str = "") -> Served:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(run.path), rater],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("open "):
                return Served(process, line.split()[1])
        raise AssertionError(f"the server ended with code {process.wait()}")

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def rows() -> Callable[[RunDirectory], list[dict[str, object]]]:
    """The lines of the ratings file."""

    def read(run: RunDirectory) -> list[dict[str, object]]:
        file = run.path / "ratings.jsonl"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]

    return read
