"""Writes the table of docs/models.md: tiny random models of many kinds through all a run does.

Run ``python -m dev.architectures [NAME ...]`` after an upgrade of transformers, TRL or PEFT. Each
model is loaded, asked, tuned for two steps, saved and loaded again.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from selfinstruct_train.config import EngineConfig, ModelConfig, TrainingConfig
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.errors import SelfInstructError
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import Sampling, TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.sft import train

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_BEGIN = "<!-- made by python -m dev.architectures -->"
_END = "<!-- end -->"
_SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_STATE = {"state_size": 8, "num_heads": 8, "n_groups": 1, "expand": 2, "chunk_size": 16}
_PROMPTS = ("Name a colour.", "Once upon a time there was a small dog", "A")
_NEW_TOKENS = 8

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16},
    "phi": {},
    "phi3": {},
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "gpt_bigcode": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {},
    "falcon": {"head_dim": None},
    "mpt": {},
    "stablelm": {},
    "starcoder2": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 16},
    "cohere": {},
    "cohere2": {"sliding_window": 16},
    "granite": {},
    "glm": {},
    "glm4": {},
    "nemotron": {},
    "exaone4": {"sliding_window": 16},
    "smollm3": {},
    "helium": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {},
    "seed_oss": {},
    "arcee": {},
    "apertus": {},
    "biogpt": {},
    "codegen": {"rotary_dim": 4},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
    "persimmon": {},
    "modernbert-decoder": {"local_attention": 16},
    "bert": {"is_decoder": True},
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "qwen3_moe": _EXPERTS | {"moe_intermediate_size": 32},
    "olmoe": _EXPERTS,
    "granitemoe": _EXPERTS,
    "granitemoehybrid": _EXPERTS
    | {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
        "shared_intermediate_size": 32,
    },
    "phimoe": _EXPERTS,
    "gpt_oss": _EXPERTS | {"sliding_window": 16},
    "deepseek_v2": _LATENT | {"topk_method": "greedy"},
    "deepseek_v3": _LATENT,
    "mamba": _STATE,
    "mamba2": _STATE | {"head_dim": 8},
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 16,
    },
    "rwkv": {"attention_hidden_size": 32, "context_length": 256},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
}
"""Kind by its name in transformers, and what its tiny model needs beside the usual sizes (None:
without that one)."""


class Outcome(NamedTuple):
    """What became of a model: ``yes``, or the sentence in which it was refused."""

    name: str
    loads: str
    writes: str
    """Whether its greedy text is the one that transformers' own ``generate`` writes."""
    tunes: str
    """Whether it passes the gate, takes two steps, and is saved and loaded again."""

    @property
    def row(self) -> str:
        """Its row of the table."""
        cells = (cell.replace("|", "\\|") for cell in (self.loads, self.writes, self.tunes))
        return f"| `{self.name}` | " + " | ".join(cells) + " |"

    @property
    def is_whole(self) -> bool:
        """Whether all of it works."""
        return (self.loads, self.writes, self.tunes) == ("yes", "yes", "yes")


def try_architecture(name: str, tokenizer: Any, folder: Path) -> Outcome:
    """Put a tiny random model through a run's steps.

    Args:
        name: of `ARCHITECTURES`.
        tokenizer: of 258 tokens, number 0 for padding, 1 the end.
        folder: empty; the model and the training go there.

    Raises:
        Exception: what is not a sentence to the user is a fault of this package.
    """
    torch.manual_seed(0)
    sizes = {k: v for k, v in (_SIZES | ARCHITECTURES[name]).items() if v is not None}
    config = AutoConfig.for_model(name, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    try:
        loaded = load_model(
            ModelConfig(
                name_or_path=str(folder / "model"), device="cpu", threads=1, context_length=200
            )
        )
    except SelfInstructError as error:
        return Outcome(name, _said(error, folder), "-", "-")
    return Outcome(name, "yes", _writes(loaded, folder), _tunes(loaded, folder))


def _writes(loaded: LoadedModel, folder: Path) -> str:
    engine = TransformersEngine(loaded, EngineConfig())
    asked = [
        Request(str(i), prompt, Sampling(max_tokens=_NEW_TOKENS))
        for i, prompt in enumerate(_PROMPTS)
    ]
    try:
        written = {done.id: done.token_ids for done in engine.generate(asked)}
    except SelfInstructError as error:
        return _said(error, folder)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=_NEW_TOKENS, eos_token_id=1, pad_token_id=0
    )
    for request in asked:
        ids = torch.tensor([loaded.tokenizer(request.prompt)["input_ids"]])
        with torch.no_grad():
            own = loaded.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=greedy
            )
        expected = [t for t in own[0, ids.shape[1] :].tolist() if t != 1]
        if list(written[request.id]) != expected:
            return f"other text than transformers after {request.prompt!r}"
    return "yes"


def _tunes(loaded: LoadedModel, folder: Path) -> str:
    rows = [
        TrainingRow(
            id=str(n),
            source="seed",
            instruction="Say it twice.",
            input=str(n),
            output=f"{n} {n}",
            is_classification=False,
        )
        for n in range(4)
    ]
    settings = TrainingConfig(
        batch_size=2, micro_batch_size=2, max_steps=2, lora_r=2, max_length=200, save_steps=1
    )
    try:
        train(
            loaded,
            rows,
            settings,
            RoundDirectory(folder / "round-0"),
            answers=load_answers("en"),
            seed=0,
            world=ALONE,
        )
    except SelfInstructError as error:
        return _said(error, folder)
    return "yes"


def _said(error: SelfInstructError, folder: Path) -> str:
    text = str(error).replace(str(folder / "model"), "MODEL").replace(str(folder), "RUN")
    # Figures of random weights differ between versions of torch.
    return " ".join(re.sub(r"\d+\.\d+", "x", text).split())


def table(outcomes: list[Outcome]) -> str:
    """The table in Markdown."""
    lines = ["| Kind | Loads | Writes as transformers does | Tunes |", "|---|---|---|---|"]
    lines += [outcome.row for outcome in outcomes]
    whole = sum(o.is_whole for o in outcomes)
    return f"{whole} of {len(outcomes)} kinds do all of it.\n\n" + "\n".join(lines)


def main(names: list[str]) -> None:
    """Try the kinds, print what became of each, and write the table if all were tried."""
    from tests.helpers.small_models import byte_tokenizer

    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    outcomes = []
    for name in names or ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(try_architecture(name, byte_tokenizer(), Path(folder)))
        print(*outcomes[-1], sep=" | ", flush=True)
    if not names:
        text = PAGE.read_text("utf-8")
        before, _, rest = text.partition(_BEGIN)
        _, _, after = rest.partition(_END)
        PAGE.write_text(f"{before}{_BEGIN}\n\n{table(outcomes)}\n\n{_END}{after}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
