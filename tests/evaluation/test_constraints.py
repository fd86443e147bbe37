"""Constraints on form: what meets them, what a suite may not declare, and how they are scored."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import System, compare_predictions, make_system
from selfinstruct_train.evaluation.constraints import Constraint, meets
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.records import Prediction

PARSER: TypeAdapter[Constraint] = TypeAdapter(Constraint)


@pytest.mark.parametrize(
    ("constraint", "met", "missed"),
    [
        ({"kind": "starts_with", "text": "Dear"}, " Dear Ann", "dear Ann"),
        ({"kind": "ends_with", "text": "Bye!"}, "So. Bye!\n", "Bye! Ann"),
        ({"kind": "json"}, '{"a": [1, null]}', "{'a': 1}"),
        ({"kind": "json"}, " 3 ", "NaN"),
        ({"kind": "json"}, "[]", "[" * 100_000),
        ({"kind": "json"}, '"x"', '```json\n"x"\n```'),
        ({"kind": "matches", "pattern": r"\d{3}-\d{4}"}, "555-1234\n", "call 555-1234"),
        ({"kind": "words", "exactly": 3}, "one  two\nthree", "one two"),
        ({"kind": "words", "at_most": 2}, "one two", "one two three"),
        ({"kind": "words", "at_least": 2, "at_most": 3}, "one two", "one"),
        ({"kind": "sentences", "exactly": 2}, 'He said: "Go!" I went...', "Pi is 3.14 or so."),
        ({"kind": "sentences", "exactly": 2}, "你好。再见！", "你好，再见！"),
        ({"kind": "sentences", "at_least": 2}, "no mark\nbut a line", "..."),
        ({"kind": "lines", "exactly": 2}, "a\n\n b", "a b"),
        ({"kind": "list_items", "exactly": 3}, "- a\n * b\n\n10) c", "1. a\n2. b\nc"),
        ({"kind": "list_items", "exactly": 0}, "3.5 and -2", "- a"),
        ({"kind": "contains", "word": "New York"}, "in new\nyork.", "in New Yorkshire"),
        ({"kind": "contains", "word": "C++"}, "C++, please", "C, please"),
        ({"kind": "contains", "word": "水"}, "喝水吧", "喝茶吧"),
        ({"kind": "excludes", "word": "can"}, "I cannot", "Can I?"),
        ({"kind": "case", "case": "lower"}, "all 3 low", "Not low"),
        ({"kind": "case", "case": "upper"}, "ALL 3 UP", "123"),
    ],
)
def test_an_answer_meets_a_constraint_or_not(
    constraint: dict[str, Any], met: str, missed: str
) -> None:
    parsed = PARSER.validate_python(constraint)
    assert meets(met, parsed)
    assert not meets(missed, parsed)
    assert not meets(" \n", parsed), "a blank answer meets nothing"


def test_a_pattern_that_runs_wild_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfinstruct_train.evaluation.constraints._SECONDS", 0.05)
    began = time.monotonic()
    wild = PARSER.validate_python({"kind": "matches", "pattern": r"(a|aa)+[cd]"})
    with pytest.raises(DataError, match=r"pattern .* takes over 0.05 s on an answer of 4001"):
        meets("a" * 4000 + "b", wild)
    assert time.monotonic() - began < 5


def write_suite(path: Path, *constraints: list[dict[str, Any]] | None) -> Path:
    rows = [
        {"id": f"t{i}", "instruction": f"Do {i}.", "instances": [{"output": "x"}]}
        | ({} if declared is None else {"constraints": declared})
        for i, declared in enumerate(constraints)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


UPPER = {"kind": "case", "case": "upper"}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ([{"kind": "wrds"}], r"constraints\.0: .*'wrds'.*'sentences'"),
        ([{"kind": "json", "strict": True}], r"constraints\.0\.json\.strict: unknown key"),
        ([{"kind": "words"}], "has no bound; give at_least, at_most or exactly"),
        ([{"kind": "words", "at_least": 5, "at_most": 4}], "at_least 5 is above at_most 4"),
        ([{"kind": "lines", "at_least": 5, "exactly": 5}], "exactly and another bound"),
        ([{"kind": "matches", "pattern": "(a"}], r"constraints\.0\.matches\.pattern: is not a"),
        ([{"kind": "starts_with", "text": " "}], "is blank, so every answer would meet it"),
        ([{"kind": "words", "at_least": 5}, {"kind": "words", "at_most": 4}], "stands twice"),
        ([UPPER, {"kind": "ends_with", "text": "Bye"}], "'Bye', which is not in upper case"),
        (
            [{"kind": "contains", "word": "red Hat"}, {"kind": "excludes", "word": "hat"}],
            "'red Hat' is both demanded and banned",
        ),
    ],
)
def test_what_no_answer_could_meet_is_refused_with_file_line_and_key(
    tmp_path: Path, declared: list[dict[str, Any]], said: str
) -> None:
    path = write_suite(tmp_path / "form.jsonl", None, declared)
    with pytest.raises(DataError, match=rf"form\.jsonl, line 2: .*{said}"):
        load_suite(str(path))


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Three tasks: three constraints, one, none."""
    short = {"kind": "words", "at_most": 2}
    return load_suite(
        str(
            write_suite(
                tmp_path / "form.jsonl",
                [short, UPPER, {"kind": "ends_with", "text": "!"}],
                [short],
                None,
            )
        )
    )


def system(name: str, suite: Suite, *responses: str) -> System:
    rows = [
        Prediction(
            task_id=item.task_id,
            instruction=item.instruction,
            input=item.input,
            response=response,
            target=item.target,
        )
        for item, response in zip(suite.items, responses, strict=True)
    ]
    return make_system(name, rows, suite)


def test_both_levels_are_counted_and_answers_without_constraints_are_not(suite: Suite) -> None:
    score = system("x", suite, "GO ON", "too many words", "anything").summary.constraints
    assert score is not None
    assert (score.answers, score.declared) == (2, 4)
    assert score.instruction_level_strict == pytest.approx(50.0)
    assert score.prompt_level_strict == 0.0
    assert {(k.kind, k.declared, k.met) for k in score.kinds} == {
        ("words", 2, 1),
        ("case", 1, 1),
        ("ends_with", 1, 0),
    }


def test_the_paired_difference_is_that_of_the_two_scores_at_both_levels(suite: Suite) -> None:
    a = system("a", suite, "no no no", "one two", "")
    b = system("b", suite, "GO ON!", "too many words", "")
    settings = EvaluationConfig(suites=("form",), bootstrap_samples=500)
    found = compare_predictions(a, b, suite, settings, seed=0)
    pairs = {p.metric: p for p in found.pairs}
    assert list(pairs) == [
        "rouge_l",
        "accuracy",
        "instruction_level_strict",
        "prompt_level_strict",
    ]
    # Without accepted answers, right is what meets all its constraints.
    assert pairs["accuracy"].delta == pairs["prompt_level_strict"].delta
    # Of four constraints A meets one and B three: an answer counts once for each that it has.
    assert pairs["instruction_level_strict"].delta == pytest.approx(50.0)
    assert pairs["prompt_level_strict"].delta == pytest.approx(0.0)
    for pair in list(pairs.values())[1:]:
        assert (pair.n, pair.wins, pair.losses) == (2, 1, 1)
        assert pair.ci_low == -100.0 and pair.ci_high == 100.0
    assert found.delta == pytest.approx(0.0)


def test_score_and_compare_say_both_levels_on_the_command_line(
    suite: Suite, tmp_path: Path
) -> None:
    files = []
    for name, responses in (("a", ("GO ON", "too many words", "x")), ("b", ("GO!", "one", "x"))):
        rows = system(name, suite, *responses).predictions
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(row.model_dump_json() + "\n" for row in rows))
    source = ["--suite", str(tmp_path / "form.jsonl")]
    runner = CliRunner()
    said = runner.invoke(app, ["score", *source, "--predictions", str(files[0])])
    assert said.exit_code == 0
    assert (
        "constraints, strict: instruction-level 50.0 % of 4 met, prompt-level 0.0 % of 2 answers "
        "meet all"
    ) in said.output
    figures = runner.invoke(app, ["score", *source, "--predictions", str(files[0]), "--json"])
    assert json.loads(figures.output)["constraints"]["instruction_level_strict"] == 50.0
    compared = runner.invoke(app, ["compare", *map(str, files), *source])
    assert "instruction-level (strict): B - A = +50.0 points (95 % interval" in compared.output
    assert "prompt-level (strict): B - A = +100.0 points (95 % interval" in compared.output


def test_suites_without_constraints_say_nothing_of_them(tmp_path: Path) -> None:
    plain = load_suite(str(write_suite(tmp_path / "plain.jsonl", None, [])))
    found = system("a", plain, "x", "x")
    assert found.scores.constraints is None and found.summary.constraints is None
    assert not math.isnan(found.summary.rouge_l)
