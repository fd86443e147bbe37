import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from rouge_score.rouge_scorer import RougeScorer

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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Definition": []}, "Definition"),
        ({"Definition": [" \n"]}, "Definition: is blank"),
        ({"Definition": None}, "Definition"),
        ({"Categories": []}, "Categories: Tuple should have at least 1 item"),
        ({"Instances": []}, "Instances: Tuple should have at least 1 item"),
        ({"Instances": [{"input": "a", "output": []}]}, r"Instances\.0\.output: Tuple should"),
        ({"Instances": [{"input": "a", "output": "b"}]}, r"Instances\.0\.output"),
        ({"Instances": [{"input": "a", "output": [7]}]}, r"Instances\.0\.output\.0"),
        ({"Instances": [{"output": ["b"]}]}, r"Instances\.0\.input: Field required"),
    ],
)
def test_a_task_file_that_is_not_of_the_official_form_is_refused_with_its_key(
    checkout: Path, changed: dict[str, object], said: str
) -> None:
    path = checkout / "tasks" / "task2_long.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(DataError, match=rf"task2_long\.json: {said}.*check the repository out"):
        load_suite(str(checkout))


def test_a_split_that_is_empty_or_names_a_task_twice_is_refused(checkout: Path) -> None:
    split = checkout / "splits" / "default" / "test_tasks.txt"
    split.write_text("task2_long\r\n\r\ntask2_long\r\n")
    with pytest.raises(DataError, match=r"test_tasks\.txt: names task 'task2_long' twice"):
        load_suite(str(checkout))
    split.write_text("\n \n")
    with pytest.raises(DataError, match=r"test_tasks\.txt: names no task"):
        load_suite(str(checkout))


def test_scores_are_the_official_ones_the_best_of_all_references(checkout: Path) -> None:
    path = checkout / "tasks" / "task1_twice.json"
    references = ["The cats were running away.", "Cats ran off!", "They fled"]
    answered = ["cat runs away", "cats ran off", "THEY  FLED.", "", "dogs"]
    task = json.loads(path.read_text())
    task["Definition"] = ["  Say what the cats did.\n", "Another wording."]
    task["Instances"] = [
        {"id": f"i{n}", "input": f" scene {n} \n", "output": references} for n in range(5)
    ]
    path.write_text(json.dumps(task))
    suite = load_suite(str(checkout))
    assert suite.tasks[1].instruction == "Say what the cats did."
    items = suite.items[100:]
    assert [item.input for item in items] == [f"scene {n}" for n in range(5)]
    rows = [
        Prediction(
            task_id=item.task_id,
            instruction=item.instruction,
            input=item.input,
            response=answer,
            target=item.target,
        )
        for item, answer in zip(items, answered, strict=True)
    ]
    scores = make_system("x", rows, suite).scores
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    best = [
        max(100 * scorer.score(target, answer)["rougeL"].fmeasure for target in references)
        for answer in answered
    ]
    assert scores.rouge_l.tolist() == pytest.approx(best)
    assert best[1] == best[2] == 100.0 and 0 < best[0] < 100 and best[3] == best[4] == 0.0
    assert scores.exact_match.tolist() == [0.0, 100.0, 100.0, 0.0, 0.0]


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


def test_prompts_of_the_hub_file_may_differ_in_white_space_and_show_examples(
    tmp_path: Path,
) -> None:
    path = tmp_path / "test.parquet"
    prompts = [
        "Definition: Sort it.\r\n\r\nNow complete the following example -\r\nInput: b a.\r\n"
        "Output: ",
        "Definition: Sort it.\n\n Positive Example 1 -\nInput: d c.\n Output: c d.\n\n"
        "Now complete the following example -\nInput: Output: is a word.\nOutput:",
    ]
    table = pyarrow.table({"prompt": prompts, "completion": [" a b", "x"], "id": [1, 2]})
    parquet.write_table(table, path)
    first, second = load_suite(str(path)).items
    assert (first.instruction, first.input, first.target) == ("Sort it.", "b a.", " a b")
    assert second.instruction.startswith("Sort it.\n\n Positive Example 1 -")
    assert second.input == "Output: is a word."


@pytest.mark.parametrize(
    ("prompts", "completions", "said"),
    [
        (["Do it", None], ["x", "y"], "row 2: prompt or completion is not text"),
        (["Do it"], [None], "row 1: prompt or completion is not text"),
        ([7], ["x"], "row 1: prompt or completion is not text"),
        (["Do it", "  "], ["x", "y"], "row 2: has no prompt"),
        ([], [], "holds no rows"),
    ],
)
def test_rows_of_the_hub_file_without_text_are_named(
    tmp_path: Path, prompts: list[object], completions: list[object], said: str
) -> None:
    path = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.table({"prompt": prompts, "completion": completions}), path)
    with pytest.raises(DataError, match=rf"test\.parquet.*{said}; fetch the file again"):
        load_suite(str(path))


def test_a_file_without_prompts_is_no_suite(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    path.write_text("no parquet")
    with pytest.raises(DataError, match="is not a parquet file"):
        load_suite(str(path))
    parquet.write_table(pyarrow.table({"text": ["x"]}), path)
    with pytest.raises(DataError, match="columns 'prompt' and 'completion'"):
        load_suite(str(path))
