"""Writes a small Llama model as GGUF, so that a test can serve it with llama.cpp.

Needs the packages gguf and numpy alone, for it runs in the Python that has llama.cpp:
``python gguf_export.py FOLDER FILE``. It knows Llama models with a byte-level BPE tokenizer that
splits texts about as GPT-2's does; for any other model take llama.cpp's own converter.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_WIDER = {"BF16": ("<u2", 16), "F32": ("<u4", 0)}
"""Numpy type of the bits, and by how many bits they fall short of float32."""
_BLOCK = {
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


def export(folder: Path, target: Path) -> None:
    """Write the weights in ``folder`` to ``target`` in float32."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(target, "llama")
    _write_settings(writer, config)
    _write_tokenizer(writer, config, tokenizer)
    for name, tensor in _tensors(folder / "model.safetensors"):
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            kind = "attention" if "q_proj" in name else "key_value"
            tensor = _interleaved(tensor, config[f"num_{kind}_heads"])
        writer.add_tensor(_renamed(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("exported")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(
    writer: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]
) -> None:
    model = tokenizer["model"]
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    by_id = {number: token for token, number in model["vocab"].items()} | special
    tokens = [by_id.get(i, f"[unused{i}]") for i in range(config["vocab_size"])]
    kinds = [
        gguf.TokenType.CONTROL
        if i in special
        else gguf.TokenType.NORMAL
        if i in by_id
        else gguf.TokenType.UNUSED
        for i in range(len(tokens))
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


def _tensors(file: Path) -> Any:
    """Yield (name, float32 array) of a safetensors file, read by its published layout."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        kind, missing = _WIDER[entry["dtype"]]
        first, last = (start + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(data[first:last], kind).astype("<u4") << missing
        yield name, bits.view("<f4").reshape(entry["shape"])


def _renamed(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in whole:
        return whole[name]
    if name == "lm_head.weight":
        return "output.weight"
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{_BLOCK[rest.removesuffix('.weight')]}.weight"


def _interleaved(tensor: Any, heads: int) -> Any:
    """Rows in llama.cpp's order: it rotates neighbours where transformers rotates halves."""
    rows, columns = tensor.shape
    halves = tensor.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
