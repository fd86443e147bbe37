import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import make_system
from selfinstruct_train.evaluation.suites import load_suite, read_predictions, suite_name
from selfinstruct_train.records import Prediction


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two test tasks, one with 103 instances and one that asks a question twice."""
    folder = tmp_path / "natural-instructions"
    (folder / "splits" / "default").mkdir(parents=True)
    (folder / "tasks").mkdir()
    (folder / "splits" / "default" / "test_tasks.txt").write_text("task2_long\ntask1_twice\n")
    tasks = {
        "task1_twice": {
            "Definition": ["Name a colour."],
            "Categories": ["Naming", "Other"],
            "Positive Examples": [],
            "Instances": [
                {"id": "a", "input": "sky", "output": ["blue", "deep azure"]},
                {"id": "b", "input": "sky", "output": ["grey"]},
            ],
        },
        "task2_long": {
            "Definition": "Say the number.",
            "Categories": ["Numbers"],
            "Instances": [{"input": f"no. {i}", "output": [f"n {i}"]} for i in range(103)],
        },
    }
    for name, task in tasks.items():
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(task))
    return folder


def answers(path: Path, source: Path, sky: tuple[str, str]) -> Path:
    rows = []
    replies = iter(sky)
    for item in load_suite(str(source)).items:
        rows.append(
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response=next(replies) if item.input == "sky" else item.target,
                target=item.target,
            )
        )
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return path


def test_a_checkout_gives_the_first_hundred_instances_of_each_test_task(checkout: Path) -> None:
    suite = load_suite(str(checkout))
    assert suite.name == suite_name(str(checkout)) == "super-natural-instructions"
    assert [(task.id, len(task.instances)) for task in suite.tasks] == [
        ("task2_long", 100),
        ("task1_twice", 2),
    ]
    assert {item.group for item in suite.items} == {"Naming", "Numbers"}
    assert suite.items[100].references == ("blue", "deep azure")


@pytest.mark.parametrize(
    ("sky", "scores"),
    [
        (("deep azure", "grey"), [100.0, 100.0]),
        (("azure", "blue"), [200 / 3, 0.0]),
        (("grey", "deep azure"), [0.0, 0.0]),
    ],
)
def test_the_nearest_reference_of_the_very_instance_counts(
    checkout: Path, tmp_path: Path, sky: tuple[str, str], scores: list[float]
) -> None:
    suite = load_suite(str(checkout))
    rows = read_predictions(answers(tmp_path / "a.jsonl", checkout, sky), suite)
    assert tuple(row.response for row in rows[100:]) == sky
    system = make_system("x", rows, suite)
    assert system.scores.rouge_l[100:].tolist() == pytest.approx(scores)
    assert system.scores.exact_match[100:].tolist() == [100.0 * (s > 99) for s in scores]


def test_a_third_answer_to_a_question_that_stands_twice_is_refused(
    checkout: Path, tmp_path: Path
) -> None:
    path = answers(tmp_path / "a.jsonl", checkout, ("blue", "grey"))
    last = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + last + "\n")
    with pytest.raises(DataError, match="line 103: answers the same task as line 102"):
        read_predictions(path, load_suite(str(checkout)))


def test_a_missing_or_malformed_task_is_named(checkout: Path) -> None:
    path = checkout / "tasks" / "task2_long.json"
    path.write_text('{"Definition": "x", "Categories": ["y"], "Instances": [{"input": "z"}]}')
    with pytest.raises(DataError, match=r"task2_long.json: Instances.0.output: Field required"):
        load_suite(str(checkout))
    path.unlink()
    with pytest.raises(DataError, match=r"task2_long.json: cannot be read"):
        load_suite(str(checkout))


def test_the_hub_file_gives_instruction_and_input_of_the_official_prompt(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    prompts = [
        "Definition: Add the\nnumbers.\n\nNow complete the following example -\nInput: 1\n\n2\n"
        "Output: ",
        "Just do it",
        "Just do it",
    ]
    completions = ["3", "done", "done"]
    parquet.write_table(pyarrow.table({"prompt": prompts, "completion": completions}), path)
    suite = load_suite(str(path))
    assert suite.name == suite_name(str(path)) == "super-natural-instructions"
    assert [(i.instruction, i.input, i.references) for i in suite.items] == [
        ("Add the\nnumbers.", "1\n\n2", ("3",)),
        ("Just do it", "", ("done",)),
        ("Just do it", "", ("done",)),
    ]


def test_a_file_without_prompts_is_no_suite(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    path.write_text("no parquet")
    with pytest.raises(DataError, match="is no parquet file"):
        load_suite(str(path))
    parquet.write_table(pyarrow.table({"text": ["x"]}), path)
    with pytest.raises(DataError, match="columns 'prompt' and 'completion'"):
        load_suite(str(path))
