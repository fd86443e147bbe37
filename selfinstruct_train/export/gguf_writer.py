"""Llama models as GGUF files for llama.cpp and Ollama, with their tokenizer and chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from selfinstruct_train.errors import EngineError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from tokenizers import Tokenizer

GgufType = Literal["f16", "q8_0"]

_Q8_BLOCK = 32
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PROBES = (
    "It's 2026, isn't it? We'll see: they've 1,234,567 reasons  and  more.",
    "def f(x):\n    return x**2\n\n\n\tprint('a  b')\r\n",
    "### Instruction:\nÜbersetze «schön» — 12.5 % … 你好，世界！ Привет 🙂\n\n### Response: ok\n",
)
"""Texts on which a way to split is held against the tokenizer's own."""


class _Splitting(NamedTuple):
    """A way to split text before byte pairs are merged, by the name that llama.cpp has for it."""

    name: str
    pre_tokenizer: dict[str, Any]


def _sequence(first: dict[str, Any], use_regex: bool) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [first, _BYTES | {"use_regex": use_regex}]}


def _split(pattern: str) -> dict[str, Any]:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}


_SPLITTINGS = (
    _Splitting("smollm", _sequence({"type": "Digits", "individual_digits": True}, True)),
    _Splitting("gpt-2", _BYTES | {"use_regex": True}),
    _Splitting("llama-bpe", _sequence(_split(_WORDS % "{1,3}"), False)),
    _Splitting("qwen2", _sequence(_split(_WORDS % ""), False)),
)


def check_gguf(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """See, before any weights are loaded, that a model can be written as GGUF.

    Raises:
        EngineError: the package gguf is missing, or the architecture or tokenizer is another one.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise EngineError(
            "--gguf: needs the package gguf; run: pip install 'selfinstruct-train[gguf]'"
        ) from None
    rope = getattr(config, "rope_parameters", None) or {}
    reason = None
    if config.model_type != "llama":
        reason = f"the architecture '{config.model_type}'"
    elif getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        reason = "a Llama model with biases"
    elif rope.get("rope_type", "default") != "default":
        reason = f"positions of type '{rope['rope_type']}'"
    if reason is not None:
        raise EngineError(
            f"--gguf: '{name}' has {reason}, which is not written here; export it with --merge and "
            "convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    _splitting(tokenizer, name)


def write_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    kind: GgufType,
    name: str,
    licence: str | None,
) -> None:
    """Write a Llama model as a GGUF file.

    Args:
        model: with its weights; norms stay in float32 whatever `kind`.
        tokenizer: byte-level BPE, with the chat template that the file is to hold.
        target: the file.
        kind: ``f16``, or 8 bits in blocks of 32 (rows of another width stay ``f16``).
        name: of the model, for the file's metadata.
        licence: of the model; None leaves it out.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    config: Any = model.config
    writer = GGUFWriter(target, "llama")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    is_f16 = kind == "f16"
    writer.add_file_type(LlamaFileType.MOSTLY_F16 if is_f16 else LlamaFileType.MOSTLY_Q8_0)
    _write_shape(writer, config)
    _write_tokenizer(writer, tokenizer, config.vocab_size, name)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            is_query = "q_proj" in key
            heads = config.num_attention_heads if is_query else config.num_key_value_heads
            weight = _interleaved(weight, heads)
        data = weight.detach().to(torch.float32).cpu().contiguous().numpy()
        stored = GGMLQuantizationType.F32
        if data.ndim > 1:
            fits = not is_f16 and data.shape[-1] % _Q8_BLOCK == 0
            stored = GGMLQuantizationType.Q8_0 if fits else GGMLQuantizationType.F16
        writer.add_tensor(_renamed(key), quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int, name: str
) -> None:
    from gguf import TokenType

    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token for token in raw["added_tokens"]}
    by_id = {number: token for token, number in raw["model"]["vocab"].items()}
    by_id |= {number: token["content"] for number, token in added.items()}
    kinds = []
    for number in range(size):
        if number in added:
            special = added[number]["special"]
            kinds.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        else:
            kinds.append(TokenType.NORMAL if number in by_id else TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitting(tokenizer, name).name)
    writer.add_token_list([by_id.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types(kinds)
    merges = raw["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    start = tokenizer.bos_token_id
    if start is not None:
        writer.add_bos_token_id(start)
    writer.add_add_bos_token(start is not None and tokenizer("a").input_ids[0] == start)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _splitting(tokenizer: PreTrainedTokenizerBase, name: str) -> _Splitting:
    """The way to split text that llama.cpp knows and that gives the tokenizer's own tokens."""
    from tokenizers import Tokenizer

    own: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    raw = json.loads(own.to_str()) if own is not None else {"model": {}}
    if own is not None and raw["model"].get("type") == "BPE" and not raw["normalizer"]:
        tokens = [own.encode(text, add_special_tokens=False).ids for text in _PROBES]
        for known in sorted(_SPLITTINGS, key=lambda s: s.pre_tokenizer != raw["pre_tokenizer"]):
            other = Tokenizer.from_str(json.dumps(raw | {"pre_tokenizer": known.pre_tokenizer}))
            if [other.encode(text, add_special_tokens=False).ids for text in _PROBES] == tokens:
                return known
    raise EngineError(
        f"--gguf: the tokenizer of '{name}' is not one of byte pairs that splits text as "
        f"{', '.join(known.name for known in _SPLITTINGS)} do, and others are not written here; "
        "export it with --merge and convert the folder with llama.cpp's convert_hf_to_gguf.py"
    )


def _renamed(name: str) -> str:
    module = name.removesuffix(".weight")
    if module in _NAMES:
        return f"{_NAMES[module]}.weight"
    number, _, rest = module.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{_NAMES[rest]}.weight"


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in llama.cpp's order: it rotates neighbours where transformers rotates halves."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)
