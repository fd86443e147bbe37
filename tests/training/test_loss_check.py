"""Laws of the loss check: the trainer learns from the logits that the model answers with."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import ConfigError, TrainingError
from selfinstruct_train.models.adapters import AdapterSwitch
from selfinstruct_train.models.load import LoadedModel
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import sft

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def loaded(small: ModuleType, architecture: str, **settings: Any) -> LoadedModel:
    tokenizer = small.byte_tokenizer()
    ids = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 1}
    config = AutoConfig.for_model(
        architecture, vocab_size=len(tokenizer), **ids, **(SMALL | settings)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if "bias" in name or "norm" in name.lower():
                parameter.data += 0.3 * torch.randn_like(parameter)
    return LoadedModel(
        model,
        tokenizer,
        torch.device("cpu"),
        torch.float32,
        240,
        architecture,
        AdapterSwitch(model),
        (),
    )


def tune(small: ModuleType, path: Path, model: LoadedModel, **settings: Any) -> sft.TrainingResult:
    return sft.train(
        model,
        small.rows(4),
        small.settings(**({"max_steps": 1} | settings)),
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=1,
        world=ALONE,
    )


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("bert", {"is_decoder": True}),
        ("roberta", {"is_decoder": True}),
        ("modernbert-decoder", {"global_attn_every_n_layers": 1}),
    ],
)
def test_a_head_that_the_trainer_skips_is_refused(
    small: ModuleType, tmp_path: Path, architecture: str, settings: dict[str, Any]
) -> None:
    model = loaded(small, architecture, **settings)
    names = [name for name, _ in model.model.named_modules()]
    with pytest.raises(TrainingError, match="leaves out a part of this model's head"):
        tune(small, tmp_path, model)
    assert [name for name, _ in model.model.named_modules()] == names
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "granite", "cohere"])
def test_scaled_and_capped_logits_are_trained_on_as_they_are(
    small: ModuleType, tmp_path: Path, architecture: str
) -> None:
    scales = {"gemma2": {"head_dim": 8}, "granite": {"logits_scaling": 4.0}}
    model = loaded(small, architecture, num_key_value_heads=4, **scales.get(architecture, {}))
    assert tune(small, tmp_path, model).steps == 1


@pytest.mark.parametrize("packing", [False, True])
def test_a_changed_head_is_seen_packed_or_not(
    small: ModuleType, tmp_path: Path, packing: bool
) -> None:
    model = small.loaded_model()
    head = model.model.lm_head
    head.register_forward_hook(lambda *given: given[2] * 1.01)
    with pytest.raises(TrainingError, match="leaves out"):
        tune(small, tmp_path, model, packing=packing)


@pytest.mark.parametrize("architecture", ["granitemoe", "mixtral"])
def test_a_mixture_of_experts_is_trained_without_its_auxiliary_loss(
    small: ModuleType, tmp_path: Path, architecture: str
) -> None:
    model = loaded(
        small, architecture, num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=4
    )
    assert tune(small, tmp_path, model, lora_dropout=0.0).steps == 1


def test_modules_that_cannot_be_wrapped_end_in_the_setting_and_leave_no_trace(
    small: ModuleType, tmp_path: Path
) -> None:
    model = small.loaded_model()
    names = [name for name, _ in model.model.named_modules()]
    # The norm is met after linear layers have been wrapped.
    config = {"target_modules": ["q_proj", "post_attention_layernorm"]}
    with pytest.raises(ConfigError, match=r"^training\.target_modules: .*not supported"):
        tune(small, tmp_path, model, **config)
    assert [name for name, _ in model.model.named_modules()] == names


def test_precision_is_recorded_as_the_trainer_computes_it(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert tune(small, tmp_path, small.loaded_model()).precision == "bf16"
