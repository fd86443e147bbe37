"""Text that is not text is refused or cleaned before any work, with file, line and fix."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfinstruct_train.config import load_config
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.evaluation.beyond.forgetting import read_held_out
from selfinstruct_train.evaluation.suites import load_suite, read_predictions
from selfinstruct_train.generation.dedup import read_instructions
from selfinstruct_train.packs.operations import read_operations
from selfinstruct_train.packs.pack import read_pack_file
from selfinstruct_train.records import Sampling
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.sources.reader import read_lines, read_seed_tasks
from selfinstruct_train.text.characters import find_bad_character, without_surrogates

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SEED = {
    "id": "s",
    "name": "s",
    "instruction": "Say it.",
    "instances": [{"input": "", "output": "word X"}],
    "is_classification": False,
}
TASK = {"id": "t", "instruction": "Say it.", "instances": [{"input": "", "output": "word X"}]}
ANSWER = {
    "task_id": "t",
    "instruction": "Say it.",
    "input": "",
    "response": "word X",
    "target": "word X",
}


def predictions(path: Path) -> Any:
    suite = path.with_name("suite.jsonl")
    suite.write_text(json.dumps(TASK) + "\n")
    return read_predictions(path, load_suite(str(suite)))


READERS: list[tuple[Callable[[Path], Any], dict[str, Any]]] = [
    (read_seed_tasks, SEED),
    (lambda path: load_suite(str(path)), TASK),
    (predictions, ANSWER),
    (lambda path: list(read_instructions(path)), {"instruction": "word X"}),
    (lambda path: read_held_out(str(path)), {"text": "word X"}),
]
IDS = ["seeds", "suite", "predictions", "dedup", "held-out"]


@pytest.mark.parametrize(("read", "row"), READERS, ids=IDS)
@pytest.mark.parametrize(
    ("hostile", "says"),
    [
        ("word \\ud83d", "lone surrogate"),
        ("\\udE00 word", "lone surrogate"),
        ("a\\u0000b", "NUL"),
        ("a\0b", "NUL"),
    ],
)
def test_text_that_is_no_text_is_refused_with_file_and_line(
    tmp_path: Path, read: Callable[[Path], Any], row: dict[str, Any], hostile: str, says: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + json.dumps(row).replace("word X", hostile) + "\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2: .*{says}.*remove"):
        read(path)


@pytest.mark.parametrize(("read", "row"), READERS, ids=IDS)
@pytest.mark.parametrize("line", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000, '{"a":' * 100_000])
def test_data_beyond_any_row_is_refused_with_file_and_line(
    tmp_path: Path, read: Callable[[Path], Any], row: dict[str, Any], line: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1: (holds a number|nested too deeply)"):
        read(path)


@pytest.mark.parametrize(("read", "row"), READERS, ids=IDS)
@pytest.mark.parametrize("mark", ["\ufeff", "\\ufeff"], ids=["raw", "escaped"])
def test_byte_order_marks_are_left_out(
    tmp_path: Path, read: Callable[[Path], Any], row: dict[str, Any], mark: str
) -> None:
    clean, marked = tmp_path / "a" / "rows.jsonl", tmp_path / "b" / "rows.jsonl"
    for path in (clean, marked):
        path.parent.mkdir()
    text = json.dumps(row)
    clean.write_text(text)
    marked.write_text("\ufeff" + text.replace("word X", f"word {mark}X"), "utf-8")
    found = repr(read(marked))
    assert found.replace(str(marked), str(clean)) == repr(read(clean))


@pytest.mark.parametrize(("read", "row"), READERS, ids=IDS)
def test_a_key_that_is_given_twice_is_refused_with_file_and_line(
    tmp_path: Path, read: Callable[[Path], Any], row: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    key = next(iter(row))
    path.write_text(json.dumps(row)[:-1] + f', "{key}": "y"}}\n')
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 1: the key '{key}' is given twice"):
        read(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_is_compressed_shows_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for write in (bytes, gzip.compress):
        path.write_bytes(write(json.dumps(SEED).encode()))
        assert [task.id for task in read_seed_tasks(path)] == ["s"]


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u200b", "\u00a0\ufeff", "\u202e"])
@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_seed_task_that_says_nothing_is_refused(tmp_path: Path, field: str, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    said = {"instruction": "Say it.", "output": "word"} | {field: text}
    instance = [{"input": "", "output": said["output"]}]
    path.write_text(json.dumps(SEED | {"instruction": said["instruction"], "instances": instance}))
    with pytest.raises(DataError, match=rf"line 1: inst.*{field if field == 'output' else ''}"):
        read_seed_tasks(path)


def test_an_escaped_backslash_before_ufeff_is_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "the escape \\ufeff \\u0000 \\ud83d"}))
    assert list(read_instructions(path)) == ["the escape \\ufeff \\u0000 \\ud83d"]


@pytest.mark.parametrize("data", [b"\xff\xfe{\0}\0", b"caf\xe9\n", b"\x1f\x8bnot gzip"])
def test_other_bytes_are_one_sentence(tmp_path: Path, data: bytes) -> None:
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="rows"):
            list(read_lines(tmp_path / name))


@given(st.text(st.characters(codec=None), max_size=20))
def test_without_surrogates_text_can_be_written_and_good_text_is_untouched(text: str) -> None:
    cleaned = without_surrogates(text)
    cleaned.encode()
    assert find_bad_character(cleaned) is None
    if find_bad_character(text) is None:
        assert cleaned == text


def test_the_place_of_a_bad_character_is_named() -> None:
    found = find_bad_character({"a": [{"b": "fine"}, {"b": "\ud800"}]})
    assert found is not None and found.where == "a.1.b"


def test_what_an_engine_writes_is_cleaned_where_rows_are_made(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "c.jsonl", StoredCompletion)
    engine = ScriptedEngine(lambda request, adapter: ScriptedAnswer("half \ud83d"))
    (row,) = Journal(store, engine).ask([Request("r", "p", Sampling(max_tokens=4))], None)
    assert row.text == "half \ufffd"


FIGURES = [
    ("top_p", "0"),
    ("top_p", ".nan"),
    ("temperature", ".inf"),
    ("temperature", ".nan"),
    ("temperature", "1e-300"),
    ("temperature", "-1"),
    ("repetition_penalty", ".inf"),
    ("repetition_penalty", "0"),
    ("max_tokens", "0"),
]


@pytest.mark.parametrize(("key", "value"), FIGURES)
@pytest.mark.parametrize("step", ["instructions", "instances"])
def test_config_and_records_have_the_same_bounds(step: str, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"generation\.{step}\.{key}"):
        load_config(QUICKSTART, [f"generation.{step}.{key}={value}"])
    with pytest.raises(ValidationError):
        Sampling(**{"max_tokens": 1} | {key: float(value.replace(".inf", "inf").lstrip("."))})


@pytest.mark.parametrize(
    "override",
    [
        *(f"generation.engine.timeout_seconds={v}" for v in ("-1", "0", ".nan", "1e300", ".inf")),
        *(f"seed={v}" for v in ("-1", str(2**32), str(2**64), "9" * 5000, "0x" + "f" * 5000)),
        *(f"training.learning_rate={v}" for v in (".inf", ".nan")),
        "training.epochs=.inf",
        "rounds=" + "9" * 30,
        *(f"{key}=true" for key in ("rounds", "seed", "training.epochs", "training.mix.seeds")),
        *(f"generation.instances.{key}=yes" for key in ("temperature", "top_p", "max_tokens")),
        *(f"rounds={value}" for value in ("010", "1:30", "-012", "{a: 1, a: 2}")),
        *(f"training.mix.seeds={value}" for value in ("1e400", ".inf", ".nan")),
        *(
            f"{key}={text}"
            for key in ("output_dir", "data", "seeds.path")
            for text in ("''", "' '")
        ),
        "generation.filters.novelty_threshold=-0.1",
        "model.name_or_path=" + "[" * 5000,
        "model.name_or_path=2001-99-99",
        'model.name_or_path="a\\0b"',
        'model.name_or_path="\\ud83d"',
        "model.name_or_path=a\udcffb",
        'output_dir="a\\0b"',
        "output_dir=" + "x" * 300,
        f"output_dir={QUICKSTART}",
        f"output_dir={QUICKSTART}/run",
    ],
)
def test_settings_that_end_in_tracebacks_later_are_refused_at_once(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(QUICKSTART, [override])
    assert f"'{override.partition('=')[0]}'" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_that_libraries_take_is_taken(seed: int) -> None:
    assert load_config(QUICKSTART, [f"seed={seed}"]).seed == seed


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, "a: " + "9" * 5000, "a: 2001-99-99", "a: \0", "a: &a [*a]", 'a: "\\ud83d"',
     "rounds: 1\nseed: 2\nrounds: 3", "a: &a [1]\nb: [*a, *a]"],
)  # fmt: skip
def test_a_config_beyond_any_config_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="c.yaml"):
        load_config(path)


@pytest.mark.parametrize("name", ["pack.yaml", "operations.yaml"])
@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: 2001-99-99", "a: \0", 'a: "\\ud83d"', "a: x\na: y", b"\xff\xfea"]
)
def test_a_pack_is_read_as_carefully(tmp_path: Path, name: str, text: str | bytes) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=name):
        read_pack_file(tmp_path / name) if name == "pack.yaml" else read_operations(tmp_path)


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    text = QUICKSTART.read_text("utf-8").replace("\nrounds", "\n\ufeffrounds")
    path.write_text("\ufeff" + text, "utf-8")
    assert load_config(path) == load_config(QUICKSTART)


def test_rows_are_utf_8_under_an_ascii_locale(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("Übersetze das Wort 猫.\n", "utf-8")
    command = [sys.executable, "-m", "selfinstruct_train.cli.app", "dedup"]
    done = subprocess.run(
        [*command, "--pool", path, "--candidates", path],
        capture_output=True,
        env=os.environ
        | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "Übersetze das Wort 猫."
