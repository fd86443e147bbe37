"""What resembles a suite is found, named, and dropped as the policy says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.contamination.check import (
    Contamination,
    check,
    contaminated_rows,
)
from selfinstruct_train.contamination.suite_index import SuiteTasks, normalise
from selfinstruct_train.errors import DataError
from selfinstruct_train.records import EvalTask, Instance, SeedTask, TrainingRow
from selfinstruct_train.sources.reader import read_rows, read_seed_tasks

ROOT = Path(__file__).parents[1]
LONG = "the quick brown fox jumps over the lazy dog while nobody in town is looking at it"


def task(id: str, instruction: str, input: str = "", output: str = "yes") -> EvalTask:
    return EvalTask(
        id=id, instruction=instruction, instances=(Instance(input=input, output=output),)
    )


def row(
    id: str,
    instruction: str,
    input: str = "",
    output: str = "no",
    source: Literal["seed", "generated"] = "generated",
) -> TrainingRow:
    return TrainingRow(
        id=id,
        source=source,
        instruction=instruction,
        input=input,
        output=output,
        is_classification=False,
    )


SUITE = SuiteTasks(
    "exam",
    (
        task("capital", "Answer the following question.", "What is the capital of France?"),
        task("poem", "Write a short poem about the sea and the moon."),
        task("sum", "Summarise the passage below in one short sentence.", LONG),
    ),
)
CLEAN = row("clean", "Name three fruits that grow on trees.")


def kept(rows: list[TrainingRow], result: Contamination) -> list[TrainingRow]:
    return [row for place, row in enumerate(rows) if place not in result.left_out]


def found(rows: list[TrainingRow], **settings: object) -> Contamination:
    return check(rows, (), (), [SUITE], ContaminationConfig.model_validate(settings))


@pytest.mark.parametrize(
    ("given", "reason", "nearest"),
    [
        # The same question but for case, white space and marks; or all in the instruction.
        (
            row("r", "answer the  following question", "what is the capital of france"),
            "suite_exact",
            "capital",
        ),
        (
            row("r", "Answer the following question: What is the capital of France?"),
            "suite_exact",
            "capital",
        ),
        # Instructions alike, and neither row has an input.
        (row("r", "Write a short poem about the sea and the sun."), "suite_rouge", "poem"),
        # Instructions alike, and so are the inputs.
        (
            row("r", "Answer the following question.", "What is the capital of Spain?"),
            "suite_rouge",
            "capital",
        ),
        # Another instruction on the suite's passage.
        (row("r", "Find every adjective.", LONG), "suite_ngram", "sum"),
        # Copied into an answer.
        (row("r", "Tell me about animals.", "", f"Well, {LONG}."), "suite_ngram", "sum"),
    ],
)
def test_a_row_that_gives_a_suite_row_away_is_dropped_and_says_which(
    given: TrainingRow, reason: str, nearest: str
) -> None:
    result = found([given, CLEAN])
    assert result.left_out == {0}
    (rejection,) = result.found
    assert (rejection.stage, rejection.reason) == ("contamination", reason)
    assert rejection.nearest is not None and rejection.nearest.id == f"{nearest}#0"
    assert "row r against suite 'exam'" in rejection.evidence
    assert rejection.evidence.endswith("; dropped")


def test_the_same_instruction_with_another_input_is_listed_and_kept() -> None:
    rows = [row("r", "Answer the following question.", "Who wrote that book about whales?")]
    result = found(rows)
    assert not result.left_out
    (rejection,) = result.found
    assert rejection.reason == "suite_rouge"
    assert rejection.nearest is not None and rejection.nearest.score == 1.0
    assert "1.000, but another input; listed alone" in rejection.evidence


def test_a_long_instruction_that_many_inputs_share_is_no_leak() -> None:
    suite = SuiteTasks("exam", (task("t", f"If {LONG}, how much is it?", "3 plus 4", "7"),))
    rows = [row("r", f"If {LONG}, how much is it?", "8 minus 1", "7")]
    result = check(rows, (), (), [suite], ContaminationConfig())
    assert not result.left_out
    assert len(result.found) == 1


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        ("none", "exact similar instruction clean"),
        ("exact", "similar instruction clean"),
        ("similar", "instruction clean"),
        ("instruction", "clean"),
    ],
)
def test_each_policy_drops_what_it_names_and_all_list_the_same(drop: str, left: str) -> None:
    rows = [
        row("exact", "Answer the following question.", "What is the capital of France?"),
        row("similar", "Answer the following question.", "What is the capital of Spain?"),
        row("instruction", "Answer the following question.", "Who wrote it?"),
        CLEAN,
    ]
    result = found(rows, drop=drop)
    assert " ".join(r.id for r in kept(rows, result)) == left
    assert [f.evidence.split()[2] for f in result.found] == ["exact", "similar", "instruction"]


def test_seeds_are_listed_and_dropped_only_where_the_user_says_so() -> None:
    rows = [row("s#0", SUITE.tasks[1].instruction, source="seed"), CLEAN]
    assert not found(rows).left_out
    assert found(rows).found[0].reason == "suite_exact"
    assert found(rows, drop_seeds=True).left_out == {0}


def test_seeds_and_demonstrations_are_checked_once_each_though_not_trained_on() -> None:
    shown = SeedTask(
        id="s",
        name="poem",
        instruction=SUITE.tasks[1].instruction,
        instances=(Instance(output="no"),),
        is_classification=False,
    )
    config = ContaminationConfig()
    outside = check([CLEAN], [shown], [shown], [SUITE], config)
    assert [f.evidence.split()[0] for f in outside.found] == ["seed", "demonstration"]
    trained = [row("s#0", shown.instruction, source="seed"), CLEAN]
    assert len(check(trained, [shown], (), [SUITE], config).found) == 1


def test_what_was_trained_on_names_the_suite_rows_that_it_gives_away() -> None:
    rows = [
        CLEAN,
        row("spain", "Answer the following question.", "What is the capital of Spain?"),
        row("france", "answer the following question", "What is the capital of France"),
        row("other", "Answer the following question.", "Who wrote that book about whales?"),
        row("copied", "Tell me about animals.", "", f"Well, {LONG}."),
    ]
    found = contaminated_rows(rows, SUITE, ContaminationConfig())
    # Several rows may give one away, then the gravest counts; another input gives nothing away.
    assert [(f.id, f.level, f.training_row) for f in found] == [
        ("capital#0", "exact", "france"),
        ("sum#0", "similar", "copied"),
    ]
    assert contaminated_rows([CLEAN], SUITE, ContaminationConfig()) == ()


def test_one_row_may_give_several_suite_rows_away() -> None:
    twin = task("twin", "Write a short poem about the moon and the sea.")
    suite = SuiteTasks("exam", (*SUITE.tasks, twin))
    rows = [row("r", "Write a short poem about the sea and the moon.")]
    found = contaminated_rows(rows, suite, ContaminationConfig())
    assert [(f.id, f.level) for f in found] == [("poem#0", "exact"), ("twin#0", "similar")]


def test_every_suite_is_named_that_a_row_resembles_and_the_row_counts_once() -> None:
    other = SuiteTasks("second", SUITE.tasks[1:2])
    rows = [row("r", SUITE.tasks[1].instruction), CLEAN]
    result = check(rows, (), (), [SUITE, other], ContaminationConfig())
    assert ["'exam'" in f.evidence for f in result.found] == [True, False]
    assert (len(result.found), result.left_out) == (2, {0})


def test_equal_texts_of_another_script_are_found_with_either_tokenizer() -> None:
    suite = SuiteTasks("exam", (task("t", "翻译下面的句子。", "你好"),))
    rows = [row("same", "翻译下面的句子。", "你好"), row("other", "翻译下面的句子。", "再见")]
    for tokenizer in ("rouge", "unicode"):
        result = check(rows, (), (), [suite], ContaminationConfig(), tokenizer)
        assert [f.reason for f in result.found] == ["suite_exact", "suite_rouge"]
        assert [r.id for r in kept(rows, result)] == ["other"]


def test_a_suite_row_of_one_word_over_and_over_is_compared_like_any_other() -> None:
    suite = SuiteTasks("exam", (task("t", "no " * 9, "no", "no"),))
    (finding,) = check([row("r", "no " * 12), CLEAN], (), (), [suite], ContaminationConfig()).found
    assert finding.nearest is not None and finding.nearest.id == "t#0"


def test_numbers_and_signs_tell_questions_apart() -> None:
    assert normalise("Add 3.5 + 2!") == normalise("add  3.5 + 2")
    assert normalise("3.5 + 2") != normalise("35 + 2")
    assert normalise("3 + 2") != normalise("3 - 2")


def test_a_run_that_would_train_on_nothing_is_stopped_with_the_reason() -> None:
    with pytest.raises(DataError, match="row r against suite 'exam'.*drop=none"):
        found([row("r", SUITE.tasks[1].instruction)])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_what_is_known_of_the_official_data_is_found() -> None:
    material = Path(os.environ.get("SELFINSTRUCT_MATERIAL", ROOT.parent / "shared")) / "official"
    if not material.is_dir():
        pytest.skip(f"no {material}; name a folder with it in SELFINSTRUCT_MATERIAL")
    seeds = read_seed_tasks(material / "seed_tasks.jsonl")
    tasks = read_rows(material / "user_oriented_instructions.jsonl", EvalTask)
    suite = SuiteTasks("user-oriented-252", tasks)
    result = check((), seeds, (), [suite], ContaminationConfig())
    # By digest: the sentences themselves are the material's and stay there.
    pairs = {
        (_digest(f.instruction), _digest(f.nearest.instruction), round(f.nearest.score, 3))
        for f in result.found
        if f.nearest
    }
    assert pairs == {
        ("20baa810a921adf8", "20baa810a921adf8", 1.0),
        ("599f17f564cf3bd2", "dfdc1b24d80ce27b", 0.75),
        ("8ee27811b03d1f1e", "dfdc1b24d80ce27b", 0.706),
    }
    assert {f.reason for f in result.found} == {"suite_rouge"}
    # Alike in the instruction alone: a model trained on the seeds knows no row by heart.
    trained = [
        row(task.id, task.instruction, i.input, i.output, "seed")
        for task in seeds
        for i in task.instances
    ]
    assert contaminated_rows(trained, suite, ContaminationConfig()) == ()
    planted = row("planted", tasks[7].instruction, tasks[7].instances[0].input)
    (known,) = contaminated_rows([*trained, planted], suite, ContaminationConfig())
    assert (known.id, known.level) == (f"{tasks[7].id}#0", "exact")


def test_the_microworld_keeps_its_seeds_and_suites_apart() -> None:
    folder = ROOT / "data" / "microworld"
    seeds = read_seed_tasks(folder / "seed_tasks.jsonl")
    suites = [SuiteTasks(n, read_rows(folder / f"{n}.jsonl", EvalTask)) for n in ("test", "dev")]
    assert check((), seeds, (), suites, ContaminationConfig()).found == ()


SEEDED = """
from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.contamination.check import check
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.records import EvalTask, Instance, TrainingRow

problems = [" ".join(f"word{i}{letter}" for letter in "abcdefghijkl") for i in range(8)]
tasks = tuple(
    EvalTask(
        id=f"t{i}",
        instruction=f"Question number {i} {'abcdefgh'[i] * 5}",
        instances=(Instance(input=problems[i], output=""),),
    )
    for i in range(8)
)
row, kept = (
    TrainingRow(
        id=text[:4],
        source="generated",
        instruction="Explain",
        input=text,
        output="",
        is_classification=False,
    )
    for text in (" ".join(problems), "song")
)
for found in check([row, kept], (), (), [SuiteTasks("exam", tasks)], ContaminationConfig()).found:
    print(found.model_dump_json())
"""


def test_of_equally_similar_suite_rows_the_first_is_named_whatever_the_hash_seed() -> None:
    said = []
    for seed in ("0", "1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", SEEDED], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert len(set(said)) == 1
    assert '"id":"t0#0"' in said[0]
