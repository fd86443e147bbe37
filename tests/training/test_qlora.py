"""QLoRA: an adapter beside weights in 4 bits, which the weights as they are then answer with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.models import four_bit
from selfinstruct_train.models.load import load_model
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.sft import train

MODEL = ModelConfig(name_or_path="embedded", device="cpu", dtype="float32")


def test_without_the_package_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'selfinstruct-train\[qlora\]'"):
        four_bit.check_four_bit()


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
def test_an_adapter_is_trained_beside_weights_in_four_bits(
    small: ModuleType, tmp_path: Path
) -> None:
    loaded = load_model(MODEL, four_bit=True)
    packed = loaded.model.model.layers[0].mlp.up_proj.weight
    assert packed.dtype == torch.uint8
    before = packed.clone()
    directory = RoundDirectory(tmp_path)
    result = train(
        loaded,
        small.rows(),
        small.settings(adapter="qlora", learning_rate=5e-3, lora_dropout=0.0),
        directory,
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
    )
    steps = directory.store(directory.training_steps, TrainingStep).read()
    assert steps[-1].loss < steps[0].loss and result.check.prompts == 8
    assert torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, before)
    weights = load_file(result.tuned / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)

    # What writes and answers is the base as it is, with that adapter.
    whole = load_model(MODEL)
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        base = whole.model(tokens).logits
        whole.adapters.activate(result.tuned)
        assert not torch.equal(whole.model(tokens).logits, base)
