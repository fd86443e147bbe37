"""Data that leaves a run: every format is read by `datasets`, with a card that says what it is."""

import json
from collections import Counter
from pathlib import Path

import huggingface_hub.constants
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.errors import EngineError, RunError
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.export.data import export_data
from selfinstruct_train.export.hub import check_push, push
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import GeneratedInstance, Labelled
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import Pruned
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.templates import encode
from tests.export.conftest import HOSTILE, provenance, write_run
from tests.helpers.hub import hub

SEED_ROWS = sum(len(t.instances) for t in read_seed_tasks(resolve("microworld-seeds")))


def load(folder: Path, cache: Path, split: str = "train") -> list[dict]:
    return list(load_dataset(str(folder), split=split, cache_dir=str(cache)))


@pytest.mark.parametrize("format", ["sft", "alpaca", "messages", "sharegpt", "parquet"])
def test_datasets_reads_every_format_with_all_rows(
    run: RunDirectory, tmp_path: Path, format: str
) -> None:
    split = export_data(run, format, 0.2, tmp_path / "out", "cc0-1.0")
    train = load(tmp_path / "out", tmp_path / "cache")
    test = load(tmp_path / "out", tmp_path / "cache", "test")
    assert (len(train), len(test)) == (len(split.train), len(split.test))
    assert len(train) + len(test) == SEED_ROWS + 20
    number = next(i for i, row in enumerate(split.train) if row.source == "generated" and row.input)
    row, found = split.train[number], train[number]
    asked = f"{row.instruction}\n\n{row.input}"
    match format:
        case "sft":
            prompt = encode("plain", row.instruction, row.input, load_answers("en"))
            given = {"prompt": prompt, "completion": " " + row.output, "category": "music"}
            assert found == given
        case "alpaca":
            given = {"instruction": row.instruction, "input": row.input, "output": row.output}
            assert found == given | {"category": "music"}
        case "messages":
            roles = [(m["role"], m["content"]) for m in found["messages"]]
            assert roles == [("user", asked), ("assistant", row.output)]
        case "sharegpt":
            said = [(m["from"], m["value"]) for m in found["conversations"]]
            assert said == [("human", asked), ("gpt", row.output)]
        case "parquet":
            assert found["output"] == row.output and found["model"] == "embedded"
            assert found["demonstrations"] == ["mw_seed_0", "mw_seed_1"]
            assert (found["category"], found["attributes"]) == ("music", ["mood: glad"])
            assert found["operation"] is None is found["task_type"]
    seed = next(i for i, row in enumerate(split.train) if row.source == "seed")
    assert train[seed]["category"] is None


@pytest.mark.parametrize("format", ["alpaca", "parquet"])
def test_labels_are_those_of_seeds_of_instructions_and_else_of_the_model(
    tmp_path: Path, format: str
) -> None:
    seeds = [
        task.model_copy(update={"category": f"<b>{n % 2}|", "task_type": "a\nkind"} if n else {})
        for n, task in enumerate(read_seed_tasks(resolve("microworld-seeds"))[:5])
    ]
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(task.model_dump_json() + "\n" for task in seeds), "utf-8")
    run = write_run(tmp_path / "run", seeds={"path": str(path)})
    directory = run.round(0)
    directory.store(directory.labels, Labelled).append(
        [Labelled(id="i1", category="sport", task_type="a\nkind")]
    )
    split = export_data(run, format, 0.0, tmp_path / "out")
    rows = zip(split.train, load(tmp_path / "out", tmp_path / "cache"), strict=True)
    found = {row.id.partition("#")[0]: (r["category"], r["task_type"]) for row, r in rows}
    wanted = {task.id: (task.category, task.task_type) for task in seeds}
    wanted |= {f"i{n}": ("music", "a\nkind" if n == 1 else None) for n in range(10)}
    assert found == wanted, "the tasks in the prompt say it before the model does"
    told = DatasetCard.load(tmp_path / "out" / "README.md").text
    counted = Counter(task.category for task in seeds for _ in task.instances)
    assert "| rows by category | music 20, " in told and f"none {counted[None]} |" in told
    assert f"&lt;b&gt;0&#124; {counted['<b>0|']}" in told and "<b>" not in told
    assert "| rows by kind of task | a kind " in told
    assert ("`category` and `task_type`" in told) == (format == "alpaca")


def test_without_labels_no_column_is_added(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", category=None)
    export_data(run, "alpaca", 0.0, tmp_path / "out")
    row = json.loads((tmp_path / "out/train.jsonl").read_text("utf-8").splitlines()[0])
    assert row.keys() == {"instruction", "input", "output"}
    assert "rows by category" not in (tmp_path / "out/README.md").read_text("utf-8")


def test_no_instruction_is_in_both_parts_and_a_repetition_gives_the_same(
    run: RunDirectory, tmp_path: Path
) -> None:
    first = export_data(run, "alpaca", 0.1, tmp_path / "a")
    again = export_data(run, "alpaca", 0.1, tmp_path / "b")
    assert first == again
    assert (tmp_path / "a/train.jsonl").read_bytes() == (tmp_path / "b/train.jsonl").read_bytes()
    held_out = {row.instruction for row in first.test}
    assert held_out.isdisjoint(row.instruction for row in first.train)
    assert len(held_out) == round(0.1 * len({r.instruction for r in first.train} | held_out))


def test_what_was_pruned_or_resembles_a_suite_stays_at_home(
    run: RunDirectory, tmp_path: Path
) -> None:
    task = load_suite("microworld-dev").tasks[0]
    directory = run.round(0)
    leak = GeneratedInstance(
        id="leak",
        instruction_id="i0",
        instruction=task.instruction,
        input=task.instances[0].input,
        output="x",
        is_classification=False,
        provenance=provenance(),
    )
    directory.store(directory.instances, GeneratedInstance).append([leak])
    RowStore(run.pruned, Pruned).append([Pruned(id="i1")])
    split = export_data(run, "alpaca", 0.0, tmp_path / "out")
    ids = {row.id for row in split.train}
    assert "leak" not in ids and not {"i1#0", "i1#1"} & ids and "i2#0" in ids
    assert "1 rows are left out" in (tmp_path / "out/README.md").read_text()


def test_the_card_says_what_it_is_and_model_text_cannot_act_in_it(
    run: RunDirectory, tmp_path: Path
) -> None:
    export_data(run, "parquet", 0.1, tmp_path / "out", "cc0-1.0")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "cc0-1.0" and "selfinstruct-train" in card.data.tags
    text = card.text
    assert f"{SEED_ROWS + 20} rows" in text and "embedded" in text and "licence: apache-2.0" in text
    assert str(tmp_path) not in card.content
    assert "\u001b" not in text and "\u2028" not in text
    block = text.split("```json\n")[1].split("\n```")[0]
    assert HOSTILE in json.loads(block.splitlines()[0])["output"]


def test_a_folder_with_something_else_is_not_overwritten(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something that is no export; give another folder"):
        export_data(run, "alpaca", 0.0, tmp_path / "mine")
    export_data(run, "alpaca", 0.0, tmp_path / "out")
    export_data(run, "parquet", 0.0, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "train.parquet"]


def test_a_run_without_rows_is_named_with_the_command_that_writes_some(
    run: RunDirectory, tmp_path: Path
) -> None:
    run.round(0).instances.write_text("")
    with pytest.raises(RunError, match=r"no row is finished .* 'selfinstruct generate "):
        export_data(run, "alpaca", 0.0, tmp_path / "out")


def test_the_hub_is_sent_every_file_with_the_token_of_the_environment(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with hub() as there:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", there.address)
        arguments = ["export", "data", str(run.path), "--format", "alpaca"]
        arguments += ["--output", str(tmp_path / "out"), "--push-to-hub", "me/rows"]
        said = CliRunner().invoke(app, arguments)
        assert said.exit_code == 0, said.output
        assert there.tokens == {"Bearer hf_of_the_test"}
        made = there.repositories["me/rows"]
        assert made["type"] == "dataset" and (
            made.get("private") or made["visibility"] == "private"
        )
        here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert there.files == here and {"train.jsonl", "README.md"} == set(here)
        there.refuses = True
        with pytest.raises(EngineError, match=r"did not take me/rows .* \S+out is kept"):
            push(tmp_path / "out", "me/rows", "dataset")
    # The Hub is gone.
    with pytest.raises(EngineError, match="did not take me/rows"):
        push(tmp_path / "out", "me/rows", "dataset")


def test_a_push_that_cannot_begin_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with pytest.raises(EngineError, match="give USER/NAME"):
        check_push("rows")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(EngineError, match="environment variable HF_TOKEN"):
        check_push("me/rows")
