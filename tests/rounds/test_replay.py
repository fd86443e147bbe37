"""Replay: the base's own answers to general prompts, as many as the mix asks for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import (
    GeneratedInstance,
    Instance,
    Provenance,
    Sampling,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.rounds import replay, tuning
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.rounds.replay import replay_rows
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.sources.seeds import read_seeds

ROOT = Path(__file__).parents[2]


def settings(tmp_path: Path, *more: str) -> Config:
    own = ["generation.prompts=en", "generation.style=completion", "seeds.path=everyday-seeds"]
    mix = "training.mix={own: 0, seeds: 1, generated: 3, replay: 1}"
    return load_config(ROOT / "configs/quickstart.yaml", [*own, mix, *more], tmp_path / "run")


def prompts(count: int) -> tuple[SeedTask, ...]:
    return tuple(
        SeedTask(
            id=f"p{i}",
            name=f"p{i}",
            instruction=f"Say what the number {i} is like.",
            instances=(Instance(input=str(i), output="an answer that nobody reads"),),
            is_classification=False,
        )
        for i in range(count)
    )


def answers(request: Request, adapter: Path | None) -> ScriptedAnswer:
    """Every fourth is cut, every fourth is empty."""
    assert adapter is None, "the base answers"
    number = int(request.id.removeprefix("replay-p"))
    kind = number % 4
    if kind == 0:
        return ScriptedAnswer(" It goes on and on and", "length")
    return ScriptedAnswer("" if kind == 1 else f" It is {number} times one.", "stop")


def asked(tmp_path: Path, wanted: int, engine: ScriptedEngine, count: int = 40) -> Any:
    config = settings(tmp_path)
    run = RunDirectory(config.output_dir)
    told: list[str] = []

    class Progress:
        def __call__(self, update: object) -> None:
            pass

        def warn(self, text: str) -> None:
            told.append(text)

    opened: Any = SimpleNamespace(
        config=config,
        engine=engine,
        pack=load_pack("en"),
        chat=None,
        replay_prompts=prompts(count),
        progress=Progress(),
    )
    return replay_rows(opened, config, run.round(0), wanted), told


def test_there_are_as_many_rows_as_are_wanted_and_each_is_the_bases_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "BATCH", 8)
    engine = ScriptedEngine(answers)
    found, told = asked(tmp_path, 7, engine)
    assert len(found) == 7 and not told
    assert len(engine.asked) % 8 == 0
    before = [int(name.removeprefix("replay-p")) for name in engine.asked[:-8]]
    assert sum(number % 4 > 1 for number in before) < 7, "no batch more is asked than is needed"
    for row in found:
        number = row.id.removeprefix("replay-p")
        assert (row.source, row.input) == ("replay", number)
        assert row.output == f"It is {number} times one."
    silent = ScriptedEngine(answers)
    assert asked(tmp_path, 7, silent)[0] == found and silent.asked == []


def test_where_prompts_run_out_the_user_is_told_what_to_name(tmp_path: Path) -> None:
    found, told = asked(tmp_path, 30, ScriptedEngine(answers))
    assert len(found) == 20
    assert told == [
        "30 rows of replay are wanted (training.mix.replay), but 40 prompts gave 20; name more in "
        "training.replay_prompts"
    ]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_passed_over(tmp_path: Path) -> None:
    engine = ScriptedEngine(answers, context_length=20)
    found, _ = asked(tmp_path, 3, engine)
    assert found == [] and engine.asked == [], "each takes eight tokens of twenty"


def test_other_prompts_make_another_training_but_not_other_rounds_of_data(tmp_path: Path) -> None:
    contents = [
        read_contents(settings(tmp_path), "embedded", (), (), (), (), (), prompts(count))
        for count in (3, 4)
    ]
    names = {name for name in contents[0] if contents[0][name] != contents[1][name]}
    assert names == {"training.replay_prompts"}


def written(number: int) -> GeneratedInstance:
    return GeneratedInstance(
        id=f"r{number}-000000-0",
        instruction_id=f"r{number}-000000",
        instruction=f"Tell of round {number}.",
        input="",
        output="yes",
        is_classification=False,
        provenance=Provenance(
            round=number,
            request="x",
            sampling=Sampling(max_tokens=1),
            model="m",
            prompt_hash="0" * 16,
        ),
    )


@pytest.mark.parametrize(("rows_of", "expected"), [("all_rounds", {0, 1, 2}), ("this_round", {2})])
def test_data_of_earlier_rounds_join_unless_this_round_is_to_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_of: str, expected: set[int]
) -> None:
    config = settings(tmp_path, "training.mix=null", f"training.rows_of={rows_of}", "rounds=3")
    run = RunDirectory(config.output_dir)
    run.open(config)
    for number in range(3):
        directory = run.round(number)
        directory.store(directory.instances, GeneratedInstance).append([written(number)])
        directory.finish("instances", 0.0)
    given: list[TrainingRow] = []
    monkeypatch.setattr(tuning, "_train", lambda *all: given.extend(all[4]))
    opened: Any = SimpleNamespace(
        run=run, rows=LiveRows(run), seeds=read_seeds(config.seeds.path)[:2], own=(), world=ALONE
    )
    tuning.train_round(opened, config, 2)
    rounds = {int(row.id[1]) for row in given if row.source == "generated"}
    assert rounds == expected
    assert any(row.source == "seed" for row in given)
