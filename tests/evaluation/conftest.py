from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.evaluation.compare import System, make_system
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.records import EvalTask, Instance, Prediction

Answer = Callable[[str], str]


@pytest.fixture(scope="session")
def official() -> Path:
    """The official files, where the optional material is at hand."""
    beside = Path(__file__).parents[2].parent / "shared"
    folder = Path(os.environ.get("SELFINSTRUCT_MATERIAL", beside)) / "official"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; name a folder with it in SELFINSTRUCT_MATERIAL")
    return folder


@pytest.fixture(scope="session")
def published(official: Path) -> dict[str, System]:
    """The published answers at hand, scored once: the base's are long."""
    suite = load_suite(str(official / "user_oriented_instructions.jsonl"))
    return {
        name: make_system(
            name,
            read_predictions(official / "predictions" / f"{name}_predictions.jsonl", suite),
            suite,
        )
        for name in ("davinci", "davinci-self-instruct", "text-davinci-001")
    }


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Seven tasks in two applications, the fifth with two instances."""
    tasks = [
        EvalTask(
            id=f"t{i}",
            motivation_app="Mail" if i % 2 else "Chat",
            instruction=f"Repeat the word {i}.",
            instances=tuple(
                Instance(input=f"word {i} {k}", output=f"word {i} {k}")
                for k in range(2 if i == 4 else 1)
            ),
        )
        for i in range(7)
    ]
    path = tmp_path / "words.jsonl"
    path.write_text("".join(task.model_dump_json() + "\n" for task in tasks))
    return load_suite(str(path))


@pytest.fixture
def answer_file(suite: Suite, tmp_path: Path) -> Callable[[str, Answer], Path]:
    """Writes a file of answers to the suite, made from each target."""

    def write(name: str, answer: Answer) -> Path:
        rows = [
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response=answer(item.target),
                target=item.target,
            )
            for item in suite.items
        ]
        path = tmp_path / name
        path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def published_file(suite: Suite, tmp_path: Path) -> Callable[[Answer], Path]:
    """Writes a file in the published schema, last answer first, with other line ends."""

    def write(answer: Answer) -> Path:
        rows = [
            {
                "prompt": "irrelevant",
                "instruction": item.instruction + "\n",
                "input": item.input.replace(" ", "  "),
                "response": answer(item.target),
                "target": "not the suite's",
            }
            for item in reversed(suite.items)
        ]
        path = tmp_path / "published.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
