"""Random models of a few thousand weights, with a tokenizer of single bytes or a real one."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.models.adapters import AdapterSwitch
from selfinstruct_train.models.load import LoadedModel
from selfinstruct_train.records import TrainingRow

_CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM),
}


def material() -> Path:
    default = Path(__file__).parents[3] / "shared"
    return Path(os.environ.get("SELFINSTRUCT_MATERIAL", default))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and nothing merged, so " a" is two tokens."""
    tokens = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the word "yes" with the blank before it, as real vocabularies do."""
    tokens = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("e", "s"), ("y", "es"), ("Ġ", "yes")]
    tokens += [a + b for a, b in merges]
    raw = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")


def real_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    folder = material() / "tokenizers" / name
    return AutoTokenizer.from_pretrained(folder) if folder.exists() else None


def loaded_model(
    architecture: str = "llama",
    tokenizer: PreTrainedTokenizerBase | None = None,
    context_length: int = 256,
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    tokenizer = tokenizer or byte_tokenizer()
    config_class, model_class = _CLASSES[architecture]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=context_length,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
        # With the usual small weights a frozen head cannot say anything with confidence.
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).to(dtype).eval()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=torch.device("cpu"),
        dtype=dtype,
        context_length=context_length,
        model_id=f"small-{architecture}",
        adapters=AdapterSwitch(model),
        notes=(),
    )


def rows(n: int = 16) -> list[TrainingRow]:
    return [
        TrainingRow(
            id=f"row-{i}",
            source="generated",
            instruction="Say the number twice.",
            input=str(i),
            output=f"{i} {i}",
            is_classification=False,
        )
        for i in range(n)
    ]


def settings(**changed: object) -> TrainingConfig:
    values: dict[str, object] = {
        "batch_size": 4,
        "micro_batch_size": 4,
        "max_steps": 6,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lora_r": 4,
        "lora_dropout": 0.1,
        "max_length": 256,
    }
    return TrainingConfig.model_validate(values | changed)
