"""Training on pairs: it learns what it should, from where it should, and survives a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import DataError, TrainingError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PairCounts, PreferencePair, TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import read_json
from selfinstruct_train.training import arguments, dpo
from selfinstruct_train.training.job import TrainingResult
from selfinstruct_train.training.pairs import encode_pairs
from selfinstruct_train.training.sft import train

FAST = {"learning_rate": 5e-3, "beta": 0.1}


def pairs(number: int = 12) -> list[PreferencePair]:
    return [
        PreferencePair(
            id=f"row-{i}",
            source="drawn",
            instruction="Say the number twice.",
            input=str(i),
            chosen=f"{i} {i}",
            rejected=f"{i} x",
        )
        for i in range(number)
    ]


def tune(small: ModuleType, path: Path, loaded: Any = None, **options: Any) -> TrainingResult:
    preference = FAST | options.pop("preference", {})
    config = small.settings(method="dpo", preference=preference, **options.pop("settings", {}))
    return dpo.train_on_pairs(
        loaded or small.loaded_model(),
        options.pop("pairs", None) or pairs(),
        config,
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
        **options,
    )


def weights(path: Path) -> str:
    return hashlib.sha256((path / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def figures(path: Path) -> tuple[TrainingStep, ...]:
    return RoundDirectory(path).store(path / "training.jsonl", TrainingStep).read()


@pytest.fixture(scope="module")
def undisturbed(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("undisturbed") / "round-0"
    tune(small, path, settings={"max_steps": None}, preference={"max_steps": 6})
    return path


def test_the_chosen_answers_become_likelier_than_the_rejected_ones(undisturbed: Path) -> None:
    rows = figures(undisturbed)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5, 6]
    # Before the first step the model is its own reference: no margin, and a loss of log 2.
    assert rows[0].loss == pytest.approx(0.6931, abs=1e-3)
    assert rows[0].reward_margin == pytest.approx(0.0, abs=1e-3)
    assert rows[-1].loss < 0.6 and (rows[-1].reward_margin or 0.0) > 0.2
    assert (rows[-1].reward_accuracy or 0.0) > 0.7


def test_what_is_left_is_one_adapter_its_pairs_and_its_figures(undisturbed: Path) -> None:
    files = {p.relative_to(undisturbed).as_posix() for p in undisturbed.rglob("*") if p.is_file()}
    assert files == {
        "training.jsonl",
        "dataset/pairs.jsonl",
        "dataset/pairs.json",
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/training.json",
    }
    counts = read_json(undisturbed / "dataset" / "pairs.json", PairCounts, "")
    assert counts.pairs == 12 and counts.sources == {"drawn": 12}
    assert counts.chosen_words == counts.rejected_words == 2.0


@pytest.mark.parametrize("step", [1, 4])
def test_a_training_stopped_at_any_step_ends_as_if_it_had_not_been(
    small: ModuleType, tmp_path: Path, undisturbed: Path, step: int
) -> None:
    def stop(row: TrainingStep, total: int) -> None:
        if row.step == step:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"settings": {"max_steps": None}, "preference": {"max_steps": 6}}
    with pytest.raises(KeyboardInterrupt):
        tune(small, tmp_path, on_step=stop, **options)
    tune(small, tmp_path, **options)
    assert weights(tmp_path) == weights(undisturbed)
    seen = [row.model_dump(exclude={"seconds"}) for row in figures(tmp_path)]
    assert seen == [row.model_dump(exclude={"seconds"}) for row in figures(undisturbed)]


def test_the_base_is_handed_back_as_it_was(small: ModuleType, tmp_path: Path) -> None:
    loaded = small.loaded_model()
    tokens = torch.arange(2, 40)[None]
    before = loaded.model(tokens).logits
    names = [name for name, _ in loaded.model.named_modules()]
    tune(small, tmp_path, loaded, preference={"max_steps": 2})
    assert torch.equal(loaded.model(tokens).logits, before)
    assert [name for name, _ in loaded.model.named_modules()] == names


def test_a_tuned_adapter_is_gone_on_from_and_is_the_reference(
    small: ModuleType, tmp_path: Path
) -> None:
    loaded = small.loaded_model()
    answers = load_answers("en")
    first = train(
        loaded,
        small.rows(),
        small.settings(max_steps=8),
        RoundDirectory(tmp_path / "sft"),
        answers=answers,
        seed=1,
        world=ALONE,
    )
    both = tune(small, tmp_path / "both", loaded, start=first.tuned, preference={"max_steps": 2})
    # Against the base, an adapter that is tuned already would have a margin from the start.
    row = figures(tmp_path / "both")[0]
    assert row.loss == pytest.approx(0.6931, abs=1e-3)
    assert weights(tmp_path / "both") != weights(tmp_path / "sft")
    assert both.check.largest_difference < 1e-3 * both.check.largest_logit
    assert not list((tmp_path / "both").rglob("ref"))


@pytest.mark.parametrize(
    ("loss", "architecture"), [("ipo", "llama"), ("apo_zero", "qwen2"), ("sigmoid", "gpt_neox")]
)
def test_each_loss_trains_each_architecture(
    small: ModuleType, tmp_path: Path, loss: str, architecture: str
) -> None:
    loaded = small.loaded_model(architecture)
    tune(small, tmp_path, loaded, preference={"loss": loss, "max_steps": 3})
    rows = figures(tmp_path)
    assert rows[-1].reward_margin is not None and rows[0].reward_margin is not None
    assert rows[-1].reward_margin > rows[0].reward_margin


class _Trainer:
    """What the gate reads of a trainer."""

    def __init__(self, small: ModuleType, change: Callable[[dict[str, list[int]]], None]) -> None:
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        loaded = small.loaded_model()
        self.tokenizer = loaded.tokenizer
        config = small.settings(method="dpo")
        self.pairs = encode_pairs(
            pairs(4), config, loaded.tokenizer, answers=load_answers("en"), max_length=256, seed=1
        )
        rows = [dict(row) for row in dpo.dataset_of(self.pairs)]
        change(rows[2])
        self.train_dataset = rows
        self.data_collator = DataCollatorForPreference(loaded.tokenizer.pad_token_id, 256)
        self.args = type("Arguments", (), {"per_device_train_batch_size": 2})


def nothing(row: dict[str, list[int]]) -> None:
    """Leave the pair as it is."""


def test_the_gate_passes_pairs_that_are_whole(small: ModuleType) -> None:
    trainer = _Trainer(small, nothing)
    report = dpo.check_pairs(trainer, trainer.pairs, trainer.tokenizer, 3)  # type: ignore[arg-type]
    assert report.rows == 8 and report.too_long == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda row: row["chosen_ids"].pop(), "row-2, chosen answer: was cut"),
        (lambda row: row["rejected_ids"].pop(), "row-2, rejected answer: was cut"),
        (lambda row: row["rejected_ids"].insert(0, 9), "row-2, rejected answer: was cut"),
        (
            lambda row: row["prompt_ids"].append(row["chosen_ids"].pop(0)),
            "row-2, chosen answer: the loss is not taken on exactly the answer",
        ),
    ],
)
def test_the_gate_names_a_pair_that_is_not_what_it_should_be(
    small: ModuleType, change: Callable[[dict[str, list[int]]], None], sentence: str
) -> None:
    def both(row: dict[str, list[int]]) -> None:
        change(row)
        if "exactly" in sentence:
            # The prompt took the first token of the chosen answer: so it must of the other.
            row["rejected_ids"].pop(0)

    trainer = _Trainer(small, both)
    with pytest.raises(TrainingError, match=sentence):
        dpo.check_pairs(trainer, trainer.pairs, trainer.tokenizer, 0)  # type: ignore[arg-type]


def test_a_reference_that_is_not_the_model_is_refused(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = dpo.PairTrainer.compute_ref_log_probs

    def shifted(self: Any, *args: Any) -> Any:
        chosen, rejected = true(self, *args)
        return chosen * 1.001, rejected

    # In 16 bits so small a shift is rounding.
    monkeypatch.setattr(arguments, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(dpo.PairTrainer, "compute_ref_log_probs", shifted)
    with pytest.raises(TrainingError, match="reference"):
        tune(small, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_pairs_that_do_not_fit_are_left_out_and_none_at_all_is_a_sentence(
    small: ModuleType, tmp_path: Path
) -> None:
    long = pairs(6)
    long[1] = long[1].model_copy(update={"chosen": "0 " * 300, "rejected": "x " * 300})
    result = tune(small, tmp_path / "some", pairs=long, preference={"max_steps": 1})
    assert result.too_long == 1
    with pytest.raises(DataError, match="no pair to train on"):
        tune(small, tmp_path / "none", pairs=long[1:2])
