"""The everyday tasks: complete, consistent with themselves, and apart from each other."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import ContaminationConfig, EvaluationConfig
from selfinstruct_train.contamination.suite_index import ExampleRow, SuiteIndex, SuiteTasks
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import System, compare_predictions, make_system
from selfinstruct_train.evaluation.constraints import ConstrainedTask, meets
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.records import EvalTask, Prediction, SeedTask
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.text.novelty import NoveltyIndex

FILES = {"everyday-seeds": 175, "everyday-test": 150, "everyday-dev": 75}
SUITES = ("everyday-test", "everyday-dev")


@pytest.fixture(scope="module")
def seeds() -> tuple[SeedTask, ...]:
    return read_seed_tasks(resolve("everyday-seeds"))


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return {name: load_suite(name) for name in SUITES}


def tasks_of(suite: Suite) -> list[ConstrainedTask]:
    tasks = [task for task in suite.tasks if isinstance(task, ConstrainedTask)]
    assert len(tasks) == len(suite.tasks)
    return tasks


def answered(name: str, suite: Suite, say: Callable[[ConstrainedTask], str]) -> System:
    rows = [
        Prediction(
            task_id=task.id,
            instruction=task.instruction,
            input=task.instances[0].input,
            response=say(task),
            target=task.instances[0].output,
        )
        for task in tasks_of(suite)
    ]
    return make_system(name, rows, suite)


def test_the_files_hold_what_they_are_said_to_hold(
    seeds: tuple[SeedTask, ...], suites: dict[str, Suite]
) -> None:
    assert {"everyday-seeds": len(seeds)} | {n: len(s.tasks) for n, s in suites.items()} == FILES
    ids = [t.id for t in seeds] + [t.id for s in suites.values() for t in s.tasks]
    assert len(set(ids)) == len(ids)
    assert len({task.name for task in seeds}) == len(seeds)


def test_every_kind_has_its_share(seeds: tuple[SeedTask, ...], suites: dict[str, Suite]) -> None:
    test, dev = (Counter(task.motivation_app for task in suites[n].tasks) for n in SUITES)
    assert len(test) == 10 and set(test.values()) == {15}
    assert set(dev) == set(test) and set(dev.values()) == {7, 8}
    assert sum(task.is_classification for task in seeds) == 45


@pytest.mark.parametrize("name", SUITES)
def test_every_reference_and_every_accepted_answer_is_right_by_its_own_row(
    name: str, suites: dict[str, Suite]
) -> None:
    for task in tasks_of(suites[name]):
        assert task.answers or task.constraints, task.id
        assert len(task.instances) == 1, task.id
        for answer in (task.instances[0].output, *task.answers):
            assert all(meets(answer, c) for c in task.constraints), (task.id, answer)
    right = answered("right", suites[name], lambda task: task.instances[0].output)
    assert right.summary.accuracy == 100.0
    nearest = answered("any", suites[name], lambda t: (t.instances[0].output, *t.answers)[-1])
    assert nearest.summary.accuracy == 100.0
    answers = [bool(task.answers) for task in tasks_of(suites[name])]
    assert set(nearest.scores.exact_match[answers]) == {100.0}
    assert set(right.scores.exact_match[answers]) == {100.0}


@pytest.mark.parametrize("name", SUITES)
def test_saying_the_task_back_or_nothing_is_never_right(
    name: str, suites: dict[str, Suite]
) -> None:
    for say in (
        lambda task: task.instruction,
        lambda task: task.instances[0].input or task.instruction,
        lambda task: f"{task.instruction} {task.instances[0].input}",
        lambda _: "",
    ):
        assert answered("echo", suites[name], say).summary.accuracy == 0.0


def test_accuracy_takes_any_accepted_answer_and_all_constraints(tmp_path: Path) -> None:
    def row(number: int, **more: object) -> str:
        task = {"id": f"t{number}", "motivation_app": "a", "instruction": f"Say {number}."}
        return json.dumps(task | {"instances": [{"input": "", "output": "8"}]} | more)

    short = [{"kind": "words", "at_most": 1}]
    lines = [
        row(1, answers=["8", "eight legs"]),
        row(2, constraints=short),
        row(3, answers=["8", "eight legs"], constraints=short),
        row(4),
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines) + "\n")
    suite = load_suite(str(path))
    legs = answered("legs", suite, lambda _: "Eight legs.")
    eight = answered("eight", suite, lambda _: "8")
    np.testing.assert_array_equal(legs.scores.accuracy, [100.0, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(eight.scores.accuracy, [100.0, 100.0, 100.0, np.nan])
    np.testing.assert_array_equal(legs.scores.exact_match, [100.0, 0.0, 100.0, 0.0])
    assert legs.scores.rouge_l[0] == legs.scores.rouge_l[2] == pytest.approx(100.0)
    settings = EvaluationConfig(suites=("own",), bootstrap_samples=200)
    found = compare_predictions(legs, eight, suite, settings, seed=0)
    pairs = {(p.metric, p.group): p for p in found.pairs}
    for group in ("overall", "a"):
        assert (pairs["accuracy", group].n, pairs["accuracy", group].wins) == (3, 2)
        assert pairs["accuracy", group].delta == pytest.approx(200 / 3)
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(r.model_dump_json() + "\n" for r in legs.predictions))
    said = CliRunner().invoke(app, ["score", "--suite", str(path), "--predictions", str(answers)])
    assert "accuracy (accepted answers and constraints): 33.3 %" in said.output


@pytest.mark.parametrize(
    ("answers", "says"), [(["9", "8"], "put the output first"), (["8", " "], "one is blank")]
)
def test_answers_that_cannot_be_meant_are_refused(
    tmp_path: Path, answers: list[str], says: str
) -> None:
    task = {"id": "t", "instruction": "Count.", "instances": [{"output": "8"}], "answers": answers}
    (tmp_path / "own.jsonl").write_text(json.dumps(task) + "\n")
    with pytest.raises(DataError, match=rf"own\.jsonl, line 1: .*{says}"):
        load_suite(str(tmp_path / "own.jsonl"))


def examples(tasks: Sequence[SeedTask | EvalTask]) -> list[ExampleRow]:
    return [
        ExampleRow(f"{task.id}#{i}", "seed", task.instruction, instance.input, instance.output)
        for task in tasks
        for i, instance in enumerate(task.instances)
    ]


def test_no_file_gives_another_away(seeds: tuple[SeedTask, ...], suites: dict[str, Suite]) -> None:
    dev, test = suites["everyday-dev"].tasks, suites["everyday-test"].tasks
    rules = ContaminationConfig()
    for rows, suite in ((seeds, dev), (seeds, test), (dev, test)):
        index = SuiteIndex(SuiteTasks("everyday", suite), rules, "rouge")
        found = list(index.find(examples(rows)))
        grave = [(p, f.item.id, f.what) for p, f in found if f.level != "instruction"]
        assert not grave


def test_nothing_comes_near_the_official_tasks(
    seeds: tuple[SeedTask, ...], suites: dict[str, Suite]
) -> None:
    beside = Path(__file__).parents[1].parent / "shared"
    folder = Path(os.environ.get("SELFINSTRUCT_MATERIAL", beside)) / "official"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; name a folder with it in SELFINSTRUCT_MATERIAL")
    index = NoveltyIndex()
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        lines = (folder / name).read_text("utf-8").splitlines()
        index.extend((row["id"], row["instruction"]) for row in map(json.loads, lines))
    own = [*seeds, *(task for suite in suites.values() for task in suite.tasks)]
    for task, result in zip(own, index.search([t.instruction for t in own]), strict=True):
        assert result.score <= 0.5, (task.id, result)
