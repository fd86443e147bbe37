"""``training.load: own`` trains a fresh copy of the model: the same steps, the same adapter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfinstruct_train.config import load_config
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.models.describe import describe_model
from selfinstruct_train.models.load import load_model
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import SeedTask
from selfinstruct_train.rounds import tuning
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks

ROOT = Path(__file__).parents[2]


def opened(load: str, folder: Path, seeds: tuple[SeedTask, ...]) -> Any:
    """What the tuning reads of an opened run."""
    config = load_config(
        ROOT / "configs/quickstart.yaml",
        [f"training.load={load}", "training.max_steps=2", "training.batch_size=4"],
        folder / "run",
    )
    run = RunDirectory(config.output_dir)
    run.open(config)
    described = describe_model(config.model)
    said: list[str] = []
    return SimpleNamespace(
        config=config,
        run=run,
        world=run.world,
        seeds=seeds,
        pack=load_pack("en"),
        described=described,
        model=load_model(config.model, described),
        suite_tasks=[],
        selection=selection_of(config.evaluation),
        tokenizer_choice="auto",
        close_engines=lambda: said.append("closed"),
        progress=SimpleNamespace(say=said.append, warn=said.append, __call__=lambda update: None),
        said=said,
    )


def test_a_copy_of_its_own_is_trained_to_the_same_adapter_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = tuple(read_seed_tasks(resolve("microworld-seeds"))[:8])
    adapters, loaded = [], []
    real = tuning.load_model

    def noted(*arguments: Any) -> Any:
        loaded.append(real(*arguments))
        return loaded[-1]

    monkeypatch.setattr(tuning, "load_model", noted)
    for load in ("shared", "own"):
        run = opened(load, tmp_path / load, seeds)
        run.progress = Progress(run.said)
        before = {name: value.clone() for name, value in run.model.model.state_dict().items()}
        (directory,) = tuning.train_seeds_only(
            run,
            run.config.model_copy(
                update={
                    "evaluation": run.config.evaluation.model_copy(update={"seeds_only_epochs": ()})
                }
            ),
            2,
        )
        adapters.append((directory.adapter / "adapter_model.safetensors").read_bytes())
        after = run.model.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(loaded) == 1, "only 'own' loads a copy"
    assert adapters[0] == adapters[1]


class Progress:
    """Collects what is said."""

    def __init__(self, said: list[str]) -> None:
        self.say = self.warn = said.append

    def __call__(self, update: object) -> None:
        """Leave the figures alone."""
