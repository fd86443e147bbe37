"""Own data goes straight to training, through the same checks as what the model writes."""

import gc
import json
import weakref
from pathlib import Path

import pytest

from selfinstruct_train.config import Config, SeedsConfig
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.evaluation.suites import load_suite, suite_name
from selfinstruct_train.export.rows import read_data
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.rounds.opened import OpenedRun
from selfinstruct_train.rounds.preflight import preflight
from selfinstruct_train.run.stores import RowStore


def config(tmp_path: Path, own: Path, **training: object) -> Config:
    settings = {"max_steps": 2, "batch_size": 4, "max_length": 256, "logging_steps": 1}
    return Config.model_validate(
        {
            "model": {"name_or_path": "embedded", "device": "cpu"},
            "seeds": {"path": "microworld-seeds"},
            "data": str(own),
            "training": settings | training,
            "evaluation": {"suites": ["microworld-dev"]},
            "output_dir": str(tmp_path / "run"),
        }
    )


def own_file(path: Path) -> Path:
    leak = load_suite("microworld-dev").items[0]
    rows = [{"instruction": "Hum the tune.", "input": str(n), "output": "la"} for n in range(30)]
    rows[7] = {"instruction": leak.instruction, "input": leak.input, "output": "x"}
    path.write_text(json.dumps(rows))
    return path


def test_a_run_on_own_rows_and_seeds_writes_nothing_and_drops_what_a_suite_asks(
    tmp_path: Path,
) -> None:
    own = own_file(tmp_path / "own.json")
    mix = {"own": 1, "seeds": 2, "generated": 0}
    wanted = config(tmp_path, own, mix=mix)
    loop = Loop(wanted)
    loop.generate(0)
    loop.train(0)
    directory = loop.run.round(0)
    assert not directory.instructions.exists() and (directory.adapter).is_dir()
    trained = RowStore(directory.dataset / "train.jsonl", TrainingRow).read()
    kinds = [row.source for row in trained]
    assert (kinds.count("own"), kinds.count("seed")) == (29, 60)
    assert "own-8" not in {row.id for row in trained}
    assert "own row own-8 against suite" in directory.contamination.read_text()
    counts = json.loads((directory.dataset / "counts.json").read_text())
    assert (counts["own_rows"], counts["generated_rows"]) == (29, 0)
    # What is exported is what was trained on.
    assert [row.id for row in read_data(loop.run).rows] == [row.id for row in trained]
    own.write_text(json.dumps([{"instruction": "Sing.", "output": "la"}] * 3))
    with pytest.raises(RunError, match="--redo train"):
        Loop(wanted)


def test_held_out_seeds_are_a_suite_and_neither_shown_nor_trained_on(tmp_path: Path) -> None:
    wanted = config(tmp_path, own_file(tmp_path / "own.json"))
    wanted = wanted.model_copy(update={"seeds": SeedsConfig(path="everyday-seeds", hold_out=0.2)})
    opened = OpenedRun(wanted)
    assert (len(opened.seeds), len(opened.suites[-1].tasks)) == (140, 35)
    held_out = {task.instruction for task in opened.suites[-1].tasks}
    assert held_out.isdisjoint(task.instruction for task in opened.seeds)
    suite = opened.config.evaluation.suites[-1]
    assert load_suite(suite) == opened.suites[-1] and suite_name(suite) == "held-out-seeds"
    # The saved settings, which name the suite, start the same run.
    opened.run.round(0).finish("seeds-only", 0.1)
    again = OpenedRun(opened.run.config())
    assert (again.seeds, again.suites) == (opened.seeds, opened.suites)
    assert again.config == opened.config


def test_a_run_that_nobody_holds_gives_back_its_lock_and_its_model_at_once(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        opened = OpenedRun(config(tmp_path, own_file(tmp_path / "own.json")))
        lock, model = opened.run.lock, weakref.ref(opened.model.model)
        assert lock.exists() and model() is not None
        del opened
        assert not lock.exists() and model() is None
    finally:
        gc.enable()


def test_faults_of_own_rows_are_named_before_any_work(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"instruction": "Sing.", "output": ""}\n')
    with pytest.raises(DataError, match=r"own\.jsonl, line 1: the answer is empty"):
        preflight(config(tmp_path, own))
