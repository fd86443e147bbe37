"""A round without rows of its own ends before training; few rows are warned of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import RunError
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.progress import Progress
from selfinstruct_train.records import (
    EvalTask,
    GeneratedInstance,
    Instance,
    Provenance,
    Rejection,
    Sampling,
    SeedTask,
)
from selfinstruct_train.rounds import loop as loop_module
from selfinstruct_train.rounds import tuning
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import RowStore

QUICKSTART = Path(__file__).parent.parent.parent / "configs/quickstart.yaml"
SEED = SeedTask(
    id="s",
    name="s",
    instruction="Count the letters of this word.",
    instances=(Instance(input="cat", output="3"),),
    is_classification=False,
)


def instance(number: int) -> GeneratedInstance:
    return GeneratedInstance(
        id=f"r0-i{number}",
        instruction_id=f"r0-{number}",
        instruction=f"Say what colour number {number} is and why.",
        input="",
        output="Blue.",
        is_classification=False,
        provenance=Provenance(
            round=0, request="x", sampling=Sampling(max_tokens=1), model="m", prompt_hash="x"
        ),
    )


def finished_data(folder: Path, rows: int) -> RunDirectory:
    """A round whose steps 1 to 4 are finished, with so many rows and 112 that were dropped."""
    run = RunDirectory(folder)
    directory = run.round(0)
    RowStore(directory.instances, GeneratedInstance).emit(instance(i) for i in range(rows))
    dropped = [
        Rejection(stage="instruction", reason=reason, evidence="x", instruction="y")
        for reason in ["too_short"] * 100 + ["not_new"] * 12
    ]
    RowStore(directory.rejected("instructions"), Rejection).emit(dropped)
    directory.finish("instances", 1.0)
    return run


def opened(run: RunDirectory, config: Config, said: list[str], *suites: SuiteTasks) -> Any:
    progress = Progress(record=lambda shown: said.append(shown.text))  # type: ignore[union-attr]
    return SimpleNamespace(
        run=run,
        rows=LiveRows(run),
        seeds=(SEED,),
        config=config,
        pack=load_pack("en"),
        suite_tasks=suites,
        tokenizer_choice="rouge",
        world=ALONE,
        progress=progress,
        engine=None,
        question=None,
        own=(),
        model=None,
        described=SimpleNamespace(tokenizer=None),
        chat=None,
        passages=(),
        replay_prompts=(),
        meanings=None,
        close_engines=lambda: None,
    )


class TrainingBegan(Exception):
    """The training itself is of no interest here."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that a training was begun with."""
    found: list[int] = []

    def tune(*given: Any) -> None:
        found.append(sum(1 for _ in given[5]))
        raise TrainingBegan

    monkeypatch.setattr(tuning, "_tune", tune)
    return found


def test_a_round_without_a_usable_row_ends_before_training(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_data(tmp_path / "run", 0)
    config = load_config(QUICKSTART, output_dir=run.path)
    says = r"round-0: nothing .* can be trained on \(dropped: too_short 100, not_new 12\).*--redo"
    with pytest.raises(RunError, match=says):
        tuning.train_round(opened(run, config, []), config, 0)
    assert trained == []
    monkeypatch.setattr(loop_module, "generate_round", lambda *arguments: None)
    loop: Any = object.__new__(Loop)
    loop.config, loop.run, loop.progress = config, run, None
    loop.opened = opened(run, config, [])
    with pytest.raises(RunError, match=says):
        loop.generate(0)


def test_a_round_that_wrote_nothing_that_could_be_read_says_so(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.round(0).finish("instances", 1.0)
    config = load_config(QUICKSTART, output_dir=run.path)
    with pytest.raises(RunError, match="it wrote nothing that could be read"):
        tuning.train_round(opened(run, config, []), config, 0)


def test_a_round_of_which_a_suite_takes_every_row_ends_before_training(
    tmp_path: Path, trained: list[int]
) -> None:
    run = finished_data(tmp_path / "run", 1)
    config = load_config(QUICKSTART, output_dir=run.path)
    task = EvalTask(id="e", instruction=instance(0).instruction, instances=(Instance(output="x"),))
    with pytest.raises(RunError, match="every row .* resembles a row of a suite.*contamination"):
        tuning.train_round(opened(run, config, [], SuiteTasks("exam", (task,))), config, 0)
    assert trained == []
    spared = load_config(QUICKSTART, ["evaluation.contamination.drop=none"], run.path)
    with pytest.raises(TrainingBegan):
        tuning.train_round(opened(run, spared, [], SuiteTasks("exam", (task,))), spared, 0)
    assert trained == [2]


@pytest.mark.parametrize(("fewest", "warns"), [(3, False), (4, True)])
def test_few_rows_warn(tmp_path: Path, trained: list[int], fewest: int, warns: bool) -> None:
    run = finished_data(tmp_path / "run", 3)
    config = load_config(QUICKSTART, [f"training.min_rows={fewest}"], run.path)
    said: list[str] = []
    with pytest.raises(TrainingBegan):
        tuning.train_round(opened(run, config, said), config, 0)
    assert trained == [4]
    assert [("only 3 of the rows" in text) for text in said] == ([True] if warns else [])
