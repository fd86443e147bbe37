"""Suites by name and by path, and answers matched to them or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.suites import (
    Suite,
    _own_name,
    load_suite,
    read_predictions,
    suite_name,
)
from selfinstruct_train.sources.fetch import resolve

AnswerFile = Callable[[str, Callable[[str], str]], Path]


def edited(path: Path, change: Callable[[list[str]], list[str]]) -> Path:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    return path


def test_a_suite_goes_by_its_known_name_wherever_its_file_lies(tmp_path: Path) -> None:
    own = resolve("microworld")
    assert load_suite("microworld") == load_suite(str(own))
    assert load_suite("microworld").is_microworld
    assert load_suite("microworld-dev").name == suite_name("microworld-dev") == "microworld-dev"
    assert suite_name(str(own)) == "microworld"
    copy = tmp_path / "copy.jsonl"
    shutil.copy(own, copy)
    assert load_suite(str(copy)).name == suite_name(str(copy)) == "copy"
    assert not load_suite(str(copy)).is_microworld
    assert suite_name("gone/away.jsonl.gz") == "away"


@pytest.mark.parametrize(
    "file",
    [
        ".jsonl",
        "..jsonl",
        "...jsonl",
        ".hidden.jsonl",
        "...jsonl.gz",
        "harness.jsonl",
        "forgetting.json.jsonl",
    ],
)
def test_a_file_whose_name_cannot_be_a_suites_own_folder_is_refused(
    tmp_path: Path, file: str
) -> None:
    (tmp_path / file).write_text("")
    with pytest.raises(DataError, match="is no name for its folder; rename the file"):
        _own_name(tmp_path / file)
    if not file.endswith(".gz"):
        shutil.copy(resolve("microworld"), tmp_path / file)
        with pytest.raises(DataError, match="rename the file"):
            load_suite(str(tmp_path / file))


def test_the_official_file_is_known_by_its_content(official: Path, tmp_path: Path) -> None:
    copy = tmp_path / "any.jsonl"
    shutil.copy(official / "user_oriented_instructions.jsonl", copy)
    loaded = load_suite(str(copy))
    assert (loaded.name, len(loaded.items)) == ("user-oriented-252", 252)


def test_seeds_are_no_suite() -> None:
    with pytest.raises(DataError, match="seed tasks, not a suite"):
        load_suite("microworld-seeds")


def test_two_instances_that_ask_the_same_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    row = {"instruction": "Say yes.", "instances": [{"input": "", "output": "yes"}]}
    path.write_text(json.dumps(row | {"id": "a"}) + "\n" + json.dumps(row | {"id": "b"}) + "\n")
    with pytest.raises(DataError, match="'a' and 'b' ask the same"):
        load_suite(str(path))


def test_own_answers_come_back_in_the_order_of_the_suite(
    suite: Suite, answer_file: AnswerFile
) -> None:
    path = edited(answer_file("a.jsonl", str.upper), lambda lines: lines[::-1])
    rows = read_predictions(path, suite)
    assert [row.response for row in rows] == [item.target.upper() for item in suite.items]


def test_published_answers_match_by_folded_text_and_take_the_target_of_the_suite(
    suite: Suite, published_file: Callable[[Callable[[str], str]], Path]
) -> None:
    rows = read_predictions(published_file(lambda target: f" {target}\n"), suite)
    assert [row.response for row in rows] == [f" {item.target}\n" for item in suite.items]
    assert [row.target for row in rows] == [item.target for item in suite.items]
    assert {row.finish_reason for row in rows} == {None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-2], "2 of 8 instances of 'words' have no answer, first 't5'"),
        (lambda lines: [*lines, lines[2]], "line 9: answers the same task as line 3"),
        (
            lambda lines: [*lines, lines[0].replace("Repeat", "Forget")],
            "line 9: answers no task of 'words'",
        ),
        (lambda lines: [*lines, "{torn"], "line 9: not JSON"),
        (lambda lines: [lines[0].replace("response", "answer")], "line 1: response: Field req"),
        (lambda lines: ["[1]\n"], "line 1: row:"),
    ],
)
def test_answers_that_do_not_fit_the_suite_are_refused_with_their_place(
    suite: Suite,
    answer_file: AnswerFile,
    change: Callable[[list[str]], list[str]],
    message: str,
) -> None:
    path = edited(answer_file("a.jsonl", str), change)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, suite)
    assert str(path) in str(caught.value)


def test_a_folder_is_not_a_file_of_answers(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_predictions(tmp_path, suite)
