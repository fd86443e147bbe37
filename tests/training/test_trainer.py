"""Laws of the trainer: less work than TRL's on a CPU, and the same loss."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.models.load import LoadedModel
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PreferencePair
from selfinstruct_train.training.adapter import attach_adapter
from selfinstruct_train.training.dataset import encode_rows
from selfinstruct_train.training.dpo import dataset_of
from selfinstruct_train.training.encoded import IGNORED
from selfinstruct_train.training.half import fast_half
from selfinstruct_train.training.pairs import encode_pairs
from selfinstruct_train.training.trainer import AnswerTrainer, PairTrainer

PLAIN: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none"}


def tuned_model(loaded: LoadedModel, config: TrainingConfig) -> PeftModel:
    tuned = attach_adapter(loaded.model, config, 0, None)
    drawn = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:  # zeros at first, which would hide the adapter
            weight.data.normal_(std=0.1, generator=drawn)
    return tuned


def trainer(
    small: ModuleType, path: Path, packing: bool = False, kind: type[SFTTrainer] = AnswerTrainer
) -> SFTTrainer:
    loaded = small.loaded_model()
    rows = [
        row.model_copy(update={"input": "x" * (3 * i), "output": "y" * (5 - i)})
        for i, row in enumerate(small.rows(4))
    ]
    config = small.settings(lora_dropout=0.0)
    examples = encode_rows(
        rows,
        config,
        loaded.tokenizer,
        answers=load_answers("en"),
        max_length=256,
        seed=0,
        file=path / "encoded.arrow",
    )
    return kind(
        model=tuned_model(loaded, config),
        args=SFTConfig(str(path), max_length=None, padding_free=packing, **PLAIN),
        train_dataset=examples.kept.dataset(),
        processing_class=loaded.tokenizer,
    )


def batch_of(one: SFTTrainer | DPOTrainer, *places: int) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = one.data_collator([one.train_dataset[i] for i in places])
    return batch


class TrlPairTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's, but for the pairs that are tokens already."""

    _prepare_dataset = PairTrainer._prepare_dataset


def pair_trainer(small: ModuleType, path: Path, kind: type[DPOTrainer]) -> DPOTrainer:
    loaded = small.loaded_model()
    pairs = [
        PreferencePair(
            id=f"row-{i}",
            source="drawn",
            instruction="Say the number twice.",
            input="x" * (3 * i),
            chosen="y" * (5 - i),
            rejected=f"{i}",
        )
        for i in range(4)
    ]
    config = small.settings(lora_dropout=0.0)
    encoded = encode_pairs(
        pairs, config, loaded.tokenizer, answers=load_answers("en"), max_length=256, seed=0
    )
    return kind(
        model=tuned_model(loaded, config),
        args=DPOConfig(str(path), max_length=256, **PLAIN),
        train_dataset=dataset_of(encoded),
        processing_class=loaded.tokenizer,
    )


def loss_and_gradients(
    one: SFTTrainer | DPOTrainer, batch: dict[str, torch.Tensor], items: int | None
) -> tuple[float, dict[str, torch.Tensor]]:
    one.model.zero_grad()
    loss = one.compute_loss(one.model, dict(batch), num_items_in_batch=items)
    loss.backward()
    gradients = {
        name: weight.grad.clone()
        for name, weight in one.model.named_parameters()
        if weight.grad is not None
    }
    return loss.item(), gradients


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places that each pass has put through the head."""
    found: list[int] = []
    apply = utils._ChunkedLogProbFunction.apply

    def counted(hidden: torch.Tensor, *others: Any) -> Any:
        found.append(hidden.shape[0])
        return apply(hidden, *others)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", counted)
    return found


def assert_same(theirs: Any, ours: Any) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert theirs[1] and theirs[1].keys() == ours[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("items", [None, 40])
def test_only_what_is_learned_goes_through_the_head_and_the_gradients_are_trls(
    small: ModuleType, tmp_path: Path, heights: list[int], packing: bool, items: int | None
) -> None:
    trls = trainer(small, tmp_path / "trl", packing, SFTTrainer)
    batch = batch_of(trls, 0, 1, 2, 3)
    theirs = loss_and_gradients(trls, batch, items)
    one = trainer(small, tmp_path / "ours", packing)
    heights.clear()
    assert_same(theirs, loss_and_gradients(one, batch, items))
    assert heights == [int((batch["labels"] != IGNORED).sum())]
    assert not one.model.get_base_model().base_model._forward_hooks
    assert_same_metrics(trls, one)


def test_of_pairs_too_and_for_the_reference(
    small: ModuleType, tmp_path: Path, heights: list[int]
) -> None:
    trls = pair_trainer(small, tmp_path / "trl", TrlPairTrainer)
    batch = batch_of(trls, 0, 1, 2, 3)
    theirs = loss_and_gradients(trls, batch, None)
    every = [batch["input_ids"][:, 1:].numel()] * 2
    assert heights == every, "TRL itself scores every place"
    one = pair_trainer(small, tmp_path / "ours", PairTrainer)
    heights.clear()
    assert_same(theirs, loss_and_gradients(one, batch, None))
    assert heights == [int(batch["completion_mask"].sum())] * 2
    assert_same_metrics(trls, one)
    for a, b in zip(*(t.compute_ref_log_probs(t.model, batch) for t in (trls, one)), strict=True):
        torch.testing.assert_close(a, b)


def assert_same_metrics(trls: SFTTrainer | DPOTrainer, ours: SFTTrainer | DPOTrainer) -> None:
    theirs, found = trls._metrics["train"], ours._metrics["train"]
    assert theirs.keys() == found.keys() and theirs
    for name, values in theirs.items():
        assert found[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("packing", [False, True])
def test_a_row_has_the_same_loss_alone_and_in_company(
    small: ModuleType, tmp_path: Path, packing: bool
) -> None:
    one = trainer(small, tmp_path, packing)
    one.model.eval()
    with torch.no_grad():
        together = one.compute_loss(one.model, batch_of(one, 0, 1, 2, 3), num_items_in_batch=1)
        alone = [
            one.compute_loss(one.model, batch_of(one, i), num_items_in_batch=1)
            for i in (0, 1, 2, 3)
        ]
    assert len({round(loss.item(), 3) for loss in alone}) == 4
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-5)


def hidden_and_gradient(tuned: Any, mixed: bool, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    tuned.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = (
            tuned.get_base_model()
            .base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            .last_hidden_state
        )
    seen = out.float()[mask.bool()]
    # A norm ends the model, so the sum of squares would have no gradient.
    aim = torch.randn(seen.shape, generator=torch.Generator().manual_seed(2))
    (seen * aim).sum().backward()
    weights = [w.grad.float().flatten() for w in tuned.parameters() if w.grad is not None]
    return seen.detach(), torch.cat(weights)


def as_trainer(mixed: str) -> Any:
    return SimpleNamespace(
        args=SimpleNamespace(device=torch.device("cpu")),
        accelerator=SimpleNamespace(mixed_precision=mixed),
    )


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_detours_in_bfloat16_are_no_further_from_float32(small: ModuleType) -> None:
    exact = small.loaded_model(dtype=torch.bfloat16).model.float()
    rounded = small.loaded_model(dtype=torch.bfloat16).model
    ids = torch.randint(2, 250, (3, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    config = small.settings(lora_dropout=0.0)
    models: list[PreTrainedModel] = [attach_adapter(m, config, 0, None) for m in (exact, rounded)]
    expected = hidden_and_gradient(models[0], False, ids, mask)
    usual = hidden_and_gradient(models[1], True, ids, mask)
    before = rounded.config._attn_implementation
    with fast_half(as_trainer("bf16"), models[1]):
        assert rounded.config._attn_implementation != before
        found = hidden_and_gradient(models[1], True, ids, mask)
    assert rounded.config._attn_implementation == before
    for ours, theirs, truth in zip(found, usual, expected, strict=True):
        assert apart(ours, truth) < 0.05
        assert apart(ours, truth) < 1.2 * apart(theirs, truth)
    again = hidden_and_gradient(models[1], True, ids, mask)
    assert all(torch.equal(a, b) for a, b in zip(again, usual, strict=True))


@pytest.mark.parametrize(
    ("dtype", "mixed"), [(torch.float32, "bf16"), (torch.bfloat16, "no"), (torch.float32, "no")]
)
def test_other_trainings_take_no_detour(small: ModuleType, dtype: torch.dtype, mixed: str) -> None:
    model = small.loaded_model(dtype=dtype).model
    tuned = attach_adapter(model, small.settings(), 0, None)
    before = model.config._attn_implementation
    with fast_half(as_trainer(mixed), tuned):
        assert model.config._attn_implementation == before
