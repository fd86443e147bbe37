"""The house style: notes that follow its rules, a program that knows them, and files kept apart."""

import json
import runpy
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from selfinstruct_train.config import ContaminationConfig, load_config
from selfinstruct_train.contamination.suite_index import ExampleRow, SuiteIndex, SuiteTasks
from selfinstruct_train.evaluation.compare import make_system
from selfinstruct_train.evaluation.constraints import ConstrainedTask
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.generation.domain import shown_pack
from selfinstruct_train.generation.faults import text_faults
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import EvalTask, Prediction, SeedTask
from selfinstruct_train.rounds.opened import OpenedRun
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.text.novelty import NoveltyIndex

ROOT = Path(__file__).parent.parent
SUITES = {"orders-test": 100, "orders-dev": 75}
Task = SeedTask | EvalTask


@pytest.fixture(scope="module")
def seeds() -> tuple[SeedTask, ...]:
    return read_seed_tasks(resolve("orders-seeds"))


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return {name: load_suite(name) for name in SUITES}


@pytest.fixture(scope="module")
def tasks(seeds: tuple[SeedTask, ...], suites: dict[str, Suite]) -> list[Task]:
    return [*seeds, *(task for suite in suites.values() for task in suite.tasks)]


@pytest.fixture(scope="module")
def follows() -> Callable[[str, str, str], bool]:
    found = runpy.run_path(str(ROOT / "data" / "orders" / "house_rules.py"))["score"]
    assert callable(found)
    return found  # type: ignore[no-any-return]


def test_the_files_hold_what_they_are_said_to_hold(
    seeds: tuple[SeedTask, ...], suites: dict[str, Suite], tasks: Sequence[Task]
) -> None:
    assert len(seeds) == 20
    assert {name: len(suite.tasks) for name, suite in suites.items()} == SUITES
    assert len({task.id for task in tasks}) == len({task.instruction for task in tasks})
    for suite in suites.values():
        kinds = Counter(task.motivation_app for task in suite.tasks)
        assert set(kinds) == {"words", "digits", "one", "a dozen"}
        assert kinds["words"] > kinds["digits"] > kinds["one"] >= kinds["a dozen"] >= 1, kinds


def test_every_note_follows_the_rules_for_its_order_and_for_no_other(
    tasks: Sequence[Task], follows: Callable[[str, str, str], bool]
) -> None:
    for task in tasks:
        (instance,) = task.instances
        assert follows(task.instruction, "", instance.output), task.id
    for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        assert not follows(task.instruction, "", other.instances[0].output), task.id


@pytest.mark.parametrize("key", ["item", "quantity"])
def test_a_note_with_one_thing_wrong_follows_no_rules(
    tasks: Sequence[Task], follows: Callable[[str, str, str], bool], key: str
) -> None:
    for task in tasks:
        note = json.loads(task.instances[0].output)
        item, count = str(note["item"]), note["quantity"]
        wrongs = {
            "item": [
                "bread of the day",
                f"{count} {item}",
                f"{item}, please",
                f"{item} for",
                "",
                None,
            ],
            "quantity": [count + 1, str(count), 0, None, True if count != 1 else 1.0],
        }
        for wrong in wrongs[key]:
            said = json.dumps(note | {key: wrong})
            assert not follows(task.instruction, "", said), (task.id, said)


def test_a_part_of_what_was_ordered_is_not_what_was_ordered(
    tasks: Sequence[Task], follows: Callable[[str, str, str], bool]
) -> None:
    checked = 0
    for task in tasks:
        note = json.loads(task.instances[0].output)
        words = str(note["item"]).split()
        # With "roses" on it a cake is a cake; and some orders name a thing twice.
        if "with" in words or any(task.instruction.lower().count(w.lower()) > 1 for w in words):
            continue
        for size in range(1, len(words)):
            for part in (words[:size], words[size:]):
                said = json.dumps(note | {"item": " ".join(part)})
                assert not follows(task.instruction, "", said), said
                checked += 1
    assert checked > 200


def test_a_note_in_another_form_follows_no_rules(
    tasks: Sequence[Task], follows: Callable[[str, str, str], bool]
) -> None:
    task = tasks[0]
    right = task.instances[0].output
    note = json.loads(right)
    for said in (
        f"Here is the note: {right}",
        f"```json\n{right}\n```",
        json.dumps(note, indent=1),
        json.dumps(dict(reversed(note.items()))),
        json.dumps(note | {"price": 3}),
        json.dumps([note]),
        "",
        "null",
    ):
        assert not follows(task.instruction, "", said), said


@pytest.mark.parametrize("name", SUITES)
def test_the_suites_take_the_right_note_and_nothing_else(
    name: str, suites: dict[str, Suite]
) -> None:
    suite = suites[name]

    def accuracy(say: Callable[[ConstrainedTask], str]) -> float | None:
        rows = [
            Prediction(
                task_id=task.id, instruction=task.instruction, input="", response=say(task),
                target=task.instances[0].output,
            )
            for task in suite.tasks
            if isinstance(task, ConstrainedTask)
        ]  # fmt: skip
        assert len(rows) == len(suite.tasks)
        return make_system("any", rows, suite).summary.accuracy

    def without(key: str) -> Callable[[ConstrainedTask], str]:
        return lambda task: json.dumps(json.loads(task.instances[0].output) | {key: "x"})

    assert accuracy(lambda task: task.instances[0].output) == 100.0
    assert accuracy(lambda task: json.dumps(json.loads(task.instances[0].output), indent=2)) == 100
    assert accuracy(lambda task: task.instances[0].output.replace('"', "")) == 0.0
    assert accuracy(lambda task: task.instruction) == accuracy(lambda task: "") == 0.0
    for key in ("item", "quantity"):
        assert accuracy(without(key)) == 0.0


def test_no_order_is_nearly_another(
    seeds: tuple[SeedTask, ...], suites: dict[str, Suite], tasks: Sequence[Task]
) -> None:
    index = NoveltyIndex()
    for task in tasks:
        found = index.search([task.instruction])[0] if len(index) else None
        assert found is None or found.score <= 0.7, (task.id, found)
        index.add(task.id, task.instruction)
    rules = ContaminationConfig()
    test, dev = (suites[name].tasks for name in SUITES)
    for rows, suite in ((seeds, dev), (seeds, test), (dev, test)):
        examples = [
            ExampleRow(task.id, "seed", task.instruction, "", task.instances[0].output)
            for task in rows
        ]
        assert not list(SuiteIndex(SuiteTasks("orders", suite), rules, "rouge").find(examples))


def test_the_config_keeps_what_the_house_writes(tasks: Sequence[Task]) -> None:
    config = load_config(ROOT / "configs" / "house-style.yaml")
    program = config.generation.instances.chooser_program
    assert program is not None and program.resolve() == ROOT / "data" / "orders" / "house_rules.py"
    pack = load_pack(config.generation.prompts)
    screen = InstructionFilter(config.generation.filters, pack.rules)
    faults = text_faults(pack.rules.faults)
    for task in tasks:
        assert screen.fault(task.instruction) is None, task.id
        (found,) = check_instances(
            task.instruction, task.instances, False, 1, 4, pack.wording, faults=faults
        )
        assert found.fault is None, (task.id, found)


def test_the_base_is_shown_few_shot_what_the_writer_is_shown(
    tmp_path: Path, seeds: tuple[SeedTask, ...]
) -> None:
    changed = (
        "model.name_or_path=embedded",
        "model.context_length=null",
        "training.template=plain",
    )
    config = load_config(ROOT / "configs" / "house-style.yaml", changed, tmp_path / "run")
    opened = OpenedRun(config)
    prompt = opened.few_shot_question("Note the order: two figs.", "")
    assert prompt.startswith("All of these tasks are for the orders that customers write")
    shown = [task for task in seeds if task.instances[0].output in prompt]
    assert len(shown) == config.evaluation.few_shot_demonstrations
    pack = shown_pack(opened.pack, config, opened.seeds)
    assert {task.id for task in shown} == {task.id for task in pack.input_first[: len(shown)]}
