"""Full fine-tuning: all weights are trained, and a whole model is what it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import EngineError, RunError, TrainingError
from selfinstruct_train.models.whole import is_whole, put_back, put_weights
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PreferencePair, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import job
from selfinstruct_train.training.dpo import train_on_pairs
from selfinstruct_train.training.job import TrainingResult
from selfinstruct_train.training.sft import train
from selfinstruct_train.training.trainee import Trainee, make_trainee

TOKENS = torch.arange(2, 40)[None]


def tune(small: ModuleType, path: Path, **options: Any) -> TrainingResult:
    settings = {"adapter": "none", "learning_rate": 1e-3} | options.pop("settings", {})
    return train(
        options.pop("loaded", None) or small.loaded_model(),
        small.rows(),
        small.settings(**settings),
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
        **options,
    )


def digest(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "training.json"
    }


@pytest.fixture(scope="module")
def undisturbed(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "round-0"
    tune(small, path)
    return path


def test_it_leaves_a_model_that_loads_by_itself_and_says_what_was_trained(
    small: ModuleType, undisturbed: Path
) -> None:
    directory = RoundDirectory(undisturbed)
    assert directory.tuned == undisturbed / "model" and not directory.adapter.exists()
    assert is_whole(directory.tuned) and not directory.checkpoints.exists()
    model = AutoModelForCausalLM.from_pretrained(directory.tuned)
    tokenizer = AutoTokenizer.from_pretrained(directory.tuned)
    base = small.loaded_model()
    assert tokenizer("a").input_ids == base.tokenizer("a").input_ids
    changed = dict(base.model.named_parameters())
    assert all(
        not torch.equal(weight, changed[name]) for name, weight in model.named_parameters()
    ), "every weight is trained, embeddings, norms and head too"
    steps = RoundDirectory(undisturbed).store(directory.training_steps, TrainingStep).read()
    assert steps[-1].loss < steps[0].loss


def test_stopped_and_resumed_it_ends_with_the_same_bytes(
    small: ModuleType, tmp_path: Path, undisturbed: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 5:
            raise Stop

    with pytest.raises(Stop):
        tune(small, tmp_path, on_step=stop)
    assert (tmp_path / "checkpoints/checkpoint-4/complete").is_file()
    tune(small, tmp_path)
    assert digest(tmp_path / "model") == digest(undisturbed / "model")


def test_a_saved_model_that_is_not_the_trained_one_is_refused(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiling(*arguments: Any) -> Trainee:
        made = make_trainee(*arguments)

        def save(folder: Path) -> None:
            made.save(folder)
            weights = load_file(folder / "model.safetensors")
            weights["model.norm.weight"] *= 1.1
            save_file(weights, folder / "model.safetensors", {"format": "pt"})

        return made._replace(save=save)

    monkeypatch.setattr(job, "make_trainee", spoiling)
    with pytest.raises(TrainingError, match="saved model is not the trained one"):
        tune(small, tmp_path)
    assert not (tmp_path / "model").exists()


def test_one_loaded_base_is_any_tuned_model_in_turn_and_then_itself_again(
    small: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    loaded = small.loaded_model()
    adapter = train(
        loaded, small.rows(), small.settings(), RoundDirectory(tmp_path),
        answers=load_answers("en"), seed=1, world=ALONE,
    ).tuned  # fmt: skip
    whole = undisturbed / "model"
    alone = AutoModelForCausalLM.from_pretrained(whole).eval()

    @contextmanager
    def asked(tuned: Path | None) -> Iterator[tuple[str | None, torch.Tensor]]:
        with torch.no_grad():
            name = loaded.adapters.activate(tuned)
            yield name, loaded.model(TOKENS).logits

    with asked(None) as (none, base):
        assert none is None
    with asked(adapter) as (first, with_adapter), asked(whole) as (second, whole_logits):
        assert first != second
        assert torch.equal(whole_logits, alone(TOKENS).logits)
        assert not torch.equal(whole_logits, with_adapter)
    with asked(adapter) as (_, again):
        assert torch.equal(again, with_adapter)
    with asked(whole) as (third, again):
        assert third == second and torch.equal(again, whole_logits)
    with asked(None) as (_, again):
        assert torch.equal(again, base)
    loaded.adapters.activate(whole)
    loaded.adapters.release()
    assert torch.equal(loaded.model(TOKENS).logits, base)


def test_weights_of_another_model_are_refused_and_the_base_stays(
    small: ModuleType, tmp_path: Path
) -> None:
    other = small.loaded_model("qwen2")
    other.model.save_pretrained(tmp_path)
    loaded = small.loaded_model()
    before = loaded.model(TOKENS).logits
    loaded.model.model.layers[1].mlp.up_proj.weight.data = torch.zeros(65, 32)
    with pytest.raises(EngineError, match=r"not the weights of a model tuned from this one"):
        put_weights(loaded.model, tmp_path)
    loaded = small.loaded_model()
    kept = put_weights(loaded.model, tmp_path)
    put_back(loaded.model, kept)
    assert torch.equal(loaded.model(TOKENS).logits, before)


def test_it_goes_on_from_a_tuned_model_and_from_no_adapter(
    small: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    start = undisturbed / "model"
    one_step = {"max_steps": 1, "learning_rate": 1e-9}
    tuned = tune(small, tmp_path / "on", settings=one_step, start=start).tuned
    before, after = (load_file(f / "model.safetensors") for f in (start, tuned))
    for name, weight in before.items():
        assert torch.allclose(after[name], weight, atol=1e-7)
    with pytest.raises(RunError, match="no whole model there to go on from"):
        tune(small, tmp_path / "off", start=tmp_path / "nowhere")


def test_pairs_are_held_against_a_copy_of_the_model_as_it_was(
    small: ModuleType, undisturbed: Path, tmp_path: Path
) -> None:
    pairs = [
        PreferencePair(
            id=f"pair-{i}",
            instruction="Say the number twice.",
            input=str(i),
            chosen=f"{i} {i}",
            rejected=f"{i} no",
            source="drawn",
        )
        for i in range(10, 18)
    ]
    result = train_on_pairs(
        small.loaded_model(),
        pairs,
        small.settings(adapter="none", method="dpo", preference={"max_steps": 3}),
        RoundDirectory(tmp_path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
        start=undisturbed / "model",
    )
    steps = RoundDirectory(tmp_path).store(tmp_path / "training.jsonl", TrainingStep).read()
    assert steps[0].loss == pytest.approx(0.6931, abs=1e-3), "the model is its reference at first"
    assert result.tuned == tmp_path / "model"


def test_what_belongs_to_an_adapter_alone_is_not_swept_without_one(small: ModuleType) -> None:
    with pytest.raises(ValidationError, match="lora_r has no meaning where adapter is none"):
        small.settings(adapter="none", sweep={"lora_r": [4, 8]})
