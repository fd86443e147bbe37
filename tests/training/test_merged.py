"""Each round on the base with the rounds before merged in: what was learned stays, and is one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import RunError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PreferencePair, TrainingRow, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import adapter
from selfinstruct_train.training.dpo import train_on_pairs
from selfinstruct_train.training.sft import train

TOKENS = torch.arange(2, 40)[None]
RANK = 4


def tune(small: ModuleType, path: Path, loaded: Any = None, **options: Any) -> Path:
    chosen = {"lora_dropout": 0.0, "start": "merged", "lora_r": RANK} | options.pop("chosen", {})
    rows: list[TrainingRow] = small.rows()
    if options.get("start"):
        rows = [row.model_copy(update={"output": row.output[::-1] + "!"}) for row in rows]
    return train(
        loaded or small.loaded_model(),
        rows,
        small.settings(**chosen),
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
        **options,
    ).tuned


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "adapter_model.safetensors"))


def first_ranks(weights: dict[str, torch.Tensor], ranks: int) -> dict[str, torch.Tensor]:
    return {name: w.narrow(int("lora_B" in name), 0, ranks) for name, w in weights.items()}


def logits(loaded: Any, folder: Path | None) -> torch.Tensor:
    loaded.adapters.activate(folder)
    with torch.no_grad():
        return torch.as_tensor(loaded.model(TOKENS).logits)


@pytest.fixture(scope="module")
def first(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(small, tmp_path_factory.mktemp("rounds") / "round-0")


@pytest.fixture(scope="module")
def second(small: ModuleType, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(small, tmp_path_factory.mktemp("rounds") / "round-1", start=first)


def test_what_was_merged_stays_to_the_bit_and_the_new_ranks_have_learned(
    first: Path, second: Path
) -> None:
    before, after = matrices(first), matrices(second)
    assert before.keys() == after.keys()
    for name, kept in first_ranks(after, RANK).items():
        assert torch.equal(kept, before[name]), name
    fresh = [w[:, RANK:] for name, w in after.items() if "lora_B" in name]
    assert all(w.shape[1] == RANK and w.abs().max() > 1e-4 for w in fresh)


def test_it_learns_what_a_fresh_adapter_on_merged_weights_learns(
    small: ModuleType, first: Path
) -> None:
    chosen = {"lora_dropout": 0.0, "lora_r": RANK}
    beside = adapter.attach_adapter(
        small.loaded_model().model, small.settings(**chosen, start="merged"), 1, first
    )
    base = small.loaded_model().model
    merged: Any = PeftModel.from_pretrained(base, str(first)).merge_and_unload()
    alone = adapter.attach_adapter(merged, small.settings(**chosen), 1, None)
    both, one = dict(beside.named_parameters()), dict(alone.named_parameters())
    random = torch.Generator().manual_seed(0)
    places = {name: dimension for name, _, dimension in adapter._matrices(beside)}
    with torch.no_grad():
        for name, dimension in places.items():
            drawn = torch.randn(one[name].shape, generator=random) / 10
            one[name].copy_(drawn)
            both[name].narrow(dimension, RANK, RANK).copy_(drawn)
    losses = [model(input_ids=TOKENS, labels=TOKENS).loss for model in (beside, alone)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for name, dimension in places.items():
        found, wanted = both[name].grad, one[name].grad
        assert found is not None and wanted is not None and wanted.abs().max() > 0
        assert not found.narrow(dimension, 0, RANK).any(), "what is merged stays"
        new = found.narrow(dimension, RANK, RANK)
        assert torch.allclose(new, wanted, atol=1e-4 * wanted.abs().max().item()), name


def test_before_its_first_step_it_is_the_model_before(small: ModuleType, first: Path) -> None:
    loaded = small.loaded_model()
    before = logits(loaded, first)
    loaded.adapters.release()
    config = small.settings(lora_dropout=0.0, lora_r=RANK, start="merged")
    tuned = adapter.attach_adapter(loaded.model, config, 1, first).eval()
    with torch.no_grad():
        assert torch.allclose(tuned(TOKENS).logits, before, atol=1e-5)


def test_stopped_and_resumed_it_ends_with_the_same_bytes(
    small: ModuleType, first: Path, second: Path, tmp_path: Path
) -> None:
    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small, tmp_path, start=first, on_step=stop)
    assert (tmp_path / "checkpoints/checkpoint-4/complete").is_file()
    again = tune(small, tmp_path, start=first)
    for name, weight in matrices(second).items():
        assert torch.equal(matrices(again)[name], weight)


def test_pairs_go_on_with_the_new_ranks_alone(
    small: ModuleType, first: Path, second: Path, tmp_path: Path
) -> None:
    pairs = [
        PreferencePair(
            id=f"pair-{i}", instruction="Say the number twice.", input=str(i),
            chosen=f"{i} {i}", rejected=f"{i} no", source="drawn",
        )
        for i in range(8)
    ]  # fmt: skip
    preference = {"max_steps": 3, "learning_rate": 5e-3}
    both = small.settings(
        method="sft+dpo", preference=preference, lora_dropout=0.0, lora_r=RANK, start="merged"
    )
    tuned = train_on_pairs(
        small.loaded_model(), pairs, both.after_answers, RoundDirectory(tmp_path),
        answers=load_answers("en"), seed=1, world=ALONE, start=second,
    ).tuned  # fmt: skip
    before, after = matrices(first), matrices(tuned)
    assert all(w.shape == matrices(second)[name].shape for name, w in after.items())
    for name, kept in first_ranks(after, RANK).items():
        assert torch.equal(kept, before[name]), name
    assert any(not torch.equal(w, matrices(second)[name]) for name, w in after.items())
    steps = RoundDirectory(tmp_path).store(tmp_path / "training.jsonl", TrainingStep).read()
    assert steps[0].loss == pytest.approx(0.6931, abs=1e-3), "the model is its reference at first"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"lora_r": 3}, "another training.lora_r or lora_alpha"),
        ({"lora_alpha": 8}, "another training.lora_r or lora_alpha"),
        ({"target_modules": ["q_proj"]}, "other training.target_modules"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "other training.target_modules"),
    ],
)
def test_an_adapter_of_another_form_is_not_merged(
    small: ModuleType, first: Path, tmp_path: Path, chosen: dict[str, Any], said: str
) -> None:
    loaded = small.loaded_model()
    names = [name for name, _ in loaded.model.named_modules()]
    with pytest.raises(RunError, match=said):
        tune(small, tmp_path, loaded, start=first, chosen=chosen)
    assert [name for name, _ in loaded.model.named_modules()] == names


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"adapter": "none"}, "without an adapter there is nothing to merge"),
        ({"weight_decay": 0.1}, "weight_decay would change what is merged too"),
        ({"lora_dropout": 0.1}, "lora_dropout would change what is merged too"),
        ({"sweep": {"weight_decay": [0.0, 0.1]}}, "weight_decay would change what is merged too"),
    ],
)
def test_what_would_not_be_merged_is_refused_with_the_settings(
    small: ModuleType, chosen: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        small.settings(**{"lora_dropout": 0.0, "start": "merged"} | chosen)
