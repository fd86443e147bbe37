"""Seed tasks come in any form that own rows have, and a share of them can be held out."""

import json
from pathlib import Path

import pytest

from selfinstruct_train.errors import DataError
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.sources.seeds import read_seeds, split_seeds


def test_official_seeds_are_read_as_ever_and_their_faults_named(tmp_path: Path) -> None:
    assert read_seeds("everyday-seeds") == read_seed_tasks(resolve("everyday-seeds"))
    (tmp_path / "seeds.jsonl").write_text('{"id": "a", "instances": []}\n')
    with pytest.raises(DataError, match=r"seeds\.jsonl, line 1: name: "):
        read_seeds(str(tmp_path / "seeds.jsonl"))
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        read_seeds("nothing.jsonl")


def test_rows_of_one_instruction_are_one_task(tmp_path: Path) -> None:
    rows = [
        {"key": "sum", "instruction": "Add.", "input": "1 1", "output": "2"},
        {"key": "hue", "instruction": "Is it blue?", "input": "sky", "output": "Yes"},
        {"key": "sum2", "instruction": "Add.", "input": "2 2", "output": "4"},
    ]
    rows[1]["is_classification"] = True
    (tmp_path / "seeds.json").write_text(json.dumps(rows))
    first, second = read_seeds(str(tmp_path / "seeds.json"), "key")
    assert (first.id, len(first.instances), first.is_classification) == ("sum", 2, False)
    assert (second.id, second.is_classification) == ("hue", True)
    assert [task.id for task in read_seeds(str(tmp_path / "seeds.json"))] == ["1", "2"]


def test_the_share_that_is_held_out_does_not_depend_on_the_order_of_the_file() -> None:
    tasks = read_seeds("everyday-seeds")
    split = split_seeds(tasks, 0.2, 0)
    assert (len(split.kept), len(split.held_out)) == (140, 35)
    assert sorted(t.id for t in (*split.kept, *split.held_out)) == sorted(t.id for t in tasks)
    other = split_seeds(tasks[::-1], 0.2, 0)
    assert set(other.held_out) == set(split.held_out) != set(split_seeds(tasks, 0.2, 1).held_out)
    assert split_seeds(tasks, 0.0, 0).kept == tasks
    with pytest.raises(DataError, match=r"holds out all 175 seed tasks; lower it"):
        split_seeds(tasks, 1.0, 0)
