"""Tiny random models of many architectures, and a tokenizer whose tokens straddle stop strings."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from selfinstruct_train.engines.server import client as completions
from selfinstruct_train.models.adapters import AdapterSwitch
from selfinstruct_train.models.load import LoadedModel
from tests.helpers.answering_server import KEY, Answer, Server, StartServer

MERGES = [("Ġ", "t"), ("Ċ", "Ċ"), (".", "Ċ"), ("a", "b"), ("ab", "c"), ("s", "t"), ("Ġt", "h")]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
# Heads of 16 and more are read row by row, smaller ones go through matrix products.
LARGE_HEADS = LLAMA | {"head_dim": 16}
GEMMA = LLAMA | {"head_dim": 8, "sliding_window": 8, "num_hidden_layers": 3}
GEMMA |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
ARCHITECTURES = {
    "llama": LARGE_HEADS,
    "qwen2": LLAMA,
    "qwen2-windows": LLAMA
    | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": LLAMA | {"head_dim": 8},
    "mistral": LARGE_HEADS | {"sliding_window": 8},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA | {"head_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": SMALL | {"intermediate_size": 48, "max_position_embeddings": 128},
    "opt": SMALL
    | {
        "hidden_size": 64,
        "ffn_dim": 48,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": 64,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in MERGES]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>", "<pad>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture
def make_loaded() -> Callable[..., LoadedModel]:
    def make(
        architecture: str = "llama", attention: str = "sdpa", **settings: object
    ) -> LoadedModel:
        torch.manual_seed(0)
        tokenizer = make_tokenizer()
        config = AutoConfig.for_model(
            architecture.split("-")[0],
            **ARCHITECTURES[architecture],
            **{"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id} | settings,
        )
        # Wide weights make a random model choose firmly, so that no test hangs on a tie.
        config.initializer_range = config.init_std = 0.4
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        return LoadedModel(
            model,
            tokenizer,
            torch.device("cpu"),
            torch.float32,
            128,
            f"tiny-{architecture}",
            AdapterSwitch(model),
            (),
        )

    return make


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    monkeypatch.setattr(completions, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("WRITER_KEY", KEY)
    started: list[Server] = []

    def begin(answer: Callable[[dict[str, Any], int], Answer]) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield begin
    for server in started:
        server.close()
