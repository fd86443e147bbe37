"""The memory that an engine takes is given back before the model is trained."""

from pathlib import Path
from typing import Any

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.records import GeneratedInstance, Provenance, Sampling
from selfinstruct_train.rounds import opened, tuning
from selfinstruct_train.rounds.loop import Loop

ROOT = Path(__file__).parent.parent.parent


class TrainingBegan(Exception):
    pass


def test_the_engine_is_closed_before_training_and_writes_again_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = ScriptedEngine(lambda request, adapter: ScriptedAnswer("two words"))
    closed_by_then: list[int] = []

    def train(*given: Any, **named: Any) -> None:
        closed_by_then.append(engine.closed)
        raise TrainingBegan

    monkeypatch.setattr(opened, "make_engine", lambda *_: engine)
    monkeypatch.setattr(tuning, "train", train)
    config = ROOT / "configs" / "quickstart.yaml"
    loop = Loop(load_config(config, ["model.threads=1"], tmp_path / "run"))
    directory = loop.run.round(0)
    provenance = Provenance(
        round=0, request="r", sampling=Sampling(max_tokens=4), model="m", prompt_hash="x"
    )
    row = GeneratedInstance(
        id="r0-0#0",
        instruction_id="r0-0",
        instruction="Write two words.",
        input="",
        output="two words",
        is_classification=False,
        provenance=provenance,
    )
    directory.store(directory.instances, GeneratedInstance).emit([row])
    directory.finish("instances", 0.0)
    assert engine.closed == 0
    with pytest.raises(TrainingBegan):
        loop.train(0)
    assert closed_by_then and closed_by_then[0] > 0
    (found,) = engine.generate([Request("r", "a", Sampling(max_tokens=4))])
    assert found.text == "two words"
