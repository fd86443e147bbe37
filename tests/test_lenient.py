"""Own rows come in any of the usual forms, and every fault names its line."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfinstruct_train.errors import DataError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.sources.lenient import OwnRow, read_own
from selfinstruct_train.templates import encode
from selfinstruct_train.training.mix import own_training_rows

ASKED = [("Add the numbers.", "1, 2", "3"), ("Name a colour.", "", "blue\n\nor red")]
SHAPES = {
    "alpaca": lambda i, x, o: {"instruction": i, "input": x, "output": o},
    "messages": lambda i, x, o: {
        "messages": [{"role": "user", "content": t} for t in (i, x) if t]
        + [{"role": "assistant", "content": o}]
    },
    "sharegpt": lambda i, x, o: {
        "conversations": [{"from": "human", "value": t} for t in (i, x) if t]
        + [{"from": "gpt", "value": o}]
    },
    "pairs of messages": lambda i, x, o: {
        "prompt": [{"role": "user", "content": t} for t in (i, x) if t],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": o}]}],
    },
    "seed tasks": lambda i, x, o: {"instruction": i, "instances": [{"input": x, "output": o}]},
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(rows: tuple[OwnRow, ...]) -> list[tuple[str, str, str]]:
    return [(row.instruction, row.input, row.output) for row in rows]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_every_form_in_every_file_gives_the_same_rows(
    tmp_path: Path, shape: str, suffix: str
) -> None:
    file = write(tmp_path / f"own.{suffix}", [SHAPES[shape](*row) for row in ASKED])
    assert asked(read_own(str(file))) == ASKED


def test_a_table_gives_the_same_rows_with_line_ends_in_its_cells(tmp_path: Path) -> None:
    file = write(tmp_path / "own.csv", [SHAPES["alpaca"](*row) for row in ASKED])
    assert asked(read_own(str(file))) == ASKED


def test_prompts_that_are_worded_as_a_template_are_taken_apart(tmp_path: Path) -> None:
    answers = load_answers("en")
    # The form of the official file of fine-tuning data.
    official = {"prompt": "Task: Add.\nInput: 1\nOutput:", "completion": " 1<|endoftext|>"}
    ours = [{"prompt": encode("plain", i, x, answers), "completion": " " + o} for i, x, o in ASKED]
    other = {"prompt": "What floats?", "completion": "Wood."}
    file = write(tmp_path / "own.jsonl", [*ours, official, other])
    rows = own_training_rows(read_own(str(file)), answers)
    assert [(r.instruction, r.input, r.output) for r in rows[:2]] == ASKED
    assert rows[2].output == "1" and rows[2].input == "1" and "Add." in rows[2].instruction
    assert (rows[3].instruction, rows[3].input) == ("What floats?", "")
    assert {row.source for row in rows} == {"own"} and rows[3].id == "own-4"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": "a story"}, r"line 2: holds 'text', but needs 'instruction' and 'output'"),
        ({"instruction": "Add.", "output": ""}, "line 2: the answer is empty"),
        ({"instruction": " ", "output": "3"}, "line 2: the instruction is empty"),
        ({"instruction": "Add.", "output": 3}, "line 2: 'output' is not a text"),
        ({"instruction": "Add.", "output": "a\x00"}, "line 2: output: holds a NUL character"),
        ([1], "line 2: is list, not an object"),
        (
            {"messages": [{"role": w, "content": "x"} for w in ("user", "assistant") * 2]},
            r"line 2: has 4 messages \(uaua\).*make a row of each question",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "line 2: a message is of 'tool'"),
        ({"instruction": "Add.", "output": "\u200b"}, "line 2: the answer is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "line 2: 'content' holds a part of type 'image_url'",
        ),
        (
            {"instruction": "Add.", "output": "3", "is_classification": "maybe"},
            "line 2: 'is_classification' is neither true nor false",
        ),
    ],
)
def test_a_row_of_no_known_form_is_named_with_its_line(
    tmp_path: Path, row: Any, fault: str
) -> None:
    file = write(tmp_path / "own.jsonl", [SHAPES["alpaca"](*ASKED[0]), row])
    with pytest.raises(DataError, match=fault):
        read_own(str(file))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.csv", "instruction;input;output\nAdd.;1, 2;3\n"),
        ("own.tsv", "instruction\tinput\toutput\nAdd.\t1, 2\t3\n"),
        ("own.csv", '\ufeffinstruction , input,output\r\nAdd.,"1, 2",3'),
        ("own.json", json.dumps({"instruction": "Add.", "input": "1, 2", "output": "3"}, indent=1)),
        (
            "own.jsonl",
            json.dumps(
                {
                    "conversations": [
                        {"role": "Developer", "content": ""},
                        {"role": "User", "content": "Add."},
                        {"role": "human", "content": "1, 2"},
                        {"role": "Assistant", "content": [{"type": "text", "text": "3"}]},
                    ]
                }
            ),
        ),
    ],
)
def test_what_spreadsheets_and_chats_write_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    (row,) = read_own(str(tmp_path / name))
    assert (row.instruction, row.input.strip(), row.output) == ("Add.", "1, 2", "3")


def test_all_faults_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", [{"instruction": "Add.", "output": ""}] * 8)
    with pytest.raises(DataError, match=r"line 1: .*line 5: .*; and 3 more rows$"):
        read_own(str(file))


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("own.jsonl", '{"instruction": \n', r"line 1: not JSON"),
        ("own.json", '[{"instruction": "a"},\n oh]', "not JSON .*line 2"),
        ("own.json", "a\nb", "neither a JSON array of rows nor a JSON object a line"),
        ("own.csv", "instruction,output\na,b\nc,d,e\n", "line 3: has not as many cells"),
        ("own.csv", 'instruction,output\na,b\n"c,d\ne,f\n', "row that begins on line 3; close"),
        ("own.csv", 'instruction,output\na,b\n"a "b" c",d\n', "row that begins on line 3; close"),
        (
            "own.csv",
            "instruction,output\na," + "b" * 200_000,
            "row that begins on line 2; .*length",
        ),
        ("own.csv", "instruction,output,output\na,b,c\n", "line 1: two columns are 'output'"),
        ("own.json", '[{"instruction": "a", "instruction": "b", "output": "c"}]', "given twice"),
        ("own.json", "[" * 100_000, "nested too deeply"),
        ("own.json", '[{"a": ' + "9" * 5000 + "}]", "thousands of digits; correct it"),
        ("own.json", '{\n"data": [\n{"a": 1}\n]\n}', "holds 'data', but needs"),
        ("own.parquet", "no", "cannot be read as Parquet"),
        ("own.jsonl", "", "holds no rows"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(
    tmp_path: Path, name: str, text: str, fault: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=fault):
        read_own(str(tmp_path / name))


def test_a_name_that_is_no_file_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, split: str) -> list[dict[str, str]]:
        assert split == "train"
        if name != "me/rows":
            raise ConnectionError("offline")
        return [{"instruction": "Add.", "input": "1", "output": "1"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_own("me/rows") == read_own("hf://datasets/me/rows")
    with pytest.raises(DataError, match=r"me/others: neither a file here nor .* \(offline\)"):
        read_own("me/others")
    with pytest.raises(DataError, match="no such file"):
        read_own("./own.jsonl")


def test_ids_come_from_the_field_that_is_named(tmp_path: Path) -> None:
    rows = [{"key": k, "instruction": "Add.", "output": "1"} for k in "ab"]
    file = str(write(tmp_path / "own.jsonl", rows))
    assert [row.id for row in read_own(file, "key")] == ["a", "b"]
    assert [row.id for row in read_own(file)] == ["1", "2"]
    with pytest.raises(DataError, match="line 1: has no field 'name' to take an id from"):
        read_own(file, "name")
