"""The forward pass of the embedded Llama, written for training speed on a CPU.

The parameters are those of `LlamaForCausalLM`, and so is the function computed; only the order of
work differs: bfloat16 throughout, query, key and value in one product, attention in causal slices
by plain products (on a CPU faster than the fused kernel for short rows), and element-wise chains
left to `torch.compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from dev.embedded.packing import Batch


class Parts(NamedTuple):
    """The pieces of a layer, compiled or not."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]]
    attend: Callable[..., Tensor]
    after: Callable[..., Tensor]
    loss: Callable[..., Tensor]


def parts(compiled: bool) -> Parts:
    """The pieces of the forward pass; compiling them needs a C++ compiler and pays off soon."""
    if not compiled:
        return Parts(_before, _attend, _after, _loss)
    return Parts(
        torch.compile(_before, dynamic=False),
        torch.compile(_attend, dynamic=False),
        torch.compile(_after, dynamic=False),
        torch.compile(_loss, dynamic=False),
    )


class Rotation(NamedTuple):
    """Tables of the rotary embedding, (length, head size) each."""

    cos: Tensor
    sin: Tensor


def rotation(model: LlamaForCausalLM, length: int) -> Rotation:
    """The rotary tables for rows of ``length`` tokens."""
    hidden = torch.zeros(1)
    cos, sin = model.model.rotary_emb(hidden, torch.arange(length)[None])
    return Rotation(cos[0].bfloat16(), sin[0].bfloat16())


def hidden_states(
    model: LlamaForCausalLM, inputs: Tensor, pieces: Parts, tables: Rotation
) -> Tensor:
    """The residual stream before the last norm: (rows, length, width) bfloat16."""
    heads = model.config.num_attention_heads
    x = F.embedding(inputs, model.model.embed_tokens.weight.bfloat16())
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = pieces.before(x, layer.input_layernorm.weight, qkv, tables.cos, tables.sin, heads)
        mixed = pieces.attend(q, k, v)
        x = pieces.after(
            x, mixed, attention.o_proj.weight.bfloat16(), layer.post_attention_layernorm.weight,
            _joined(mlp.gate_proj, mlp.up_proj), mlp.down_proj.weight.bfloat16(),
        )  # fmt: skip
    return x


def batch_loss(model: LlamaForCausalLM, batch: Batch, pieces: Parts, tables: Rotation) -> Tensor:
    """The weighted mean of the cross entropy over the batch, in nats."""
    x = hidden_states(model, batch.inputs, pieces, tables)
    embedding = model.model.embed_tokens.weight.bfloat16()
    return pieces.loss(x, model.model.norm.weight, embedding, batch.targets, batch.weights)


def token_losses(model: LlamaForCausalLM, batch: Batch, pieces: Parts, tables: Rotation) -> Tensor:
    """Cross entropy of each target in nats, 0 where ignored: (rows, length) float32."""
    x = _norm(hidden_states(model, batch.inputs, pieces, tables), model.model.norm.weight)
    scores = F.linear(x, model.model.embed_tokens.weight.bfloat16()).float()
    return F.cross_entropy(scores.transpose(1, 2), batch.targets, reduction="none")


def _joined(*layers: torch.nn.Linear) -> Tensor:
    return torch.cat([layer.weight for layer in layers]).bfloat16()


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * weight).bfloat16()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def _before(
    x: Tensor, norm: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, length, width = x.shape
    split = F.linear(_norm(x, norm), qkv).view(rows, length, 3, heads, width // heads)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    return _rotate(q, cos, sin), _rotate(k, cos, sin), v


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length, scale = q.shape[2], q.shape[3] ** -0.5
    out, size = [], max(128, length // 4)
    for start in range(0, length, size):
        stop = min(start + size, length)
        scores = (q[:, :, start:stop] @ k[:, :, :stop].transpose(-1, -2)).float() * scale
        later = torch.arange(stop)[None, :] > torch.arange(start, stop)[:, None]
        weights = torch.softmax(scores.masked_fill(later, float("-inf")), -1).to(q.dtype)
        out.append(weights @ v[:, :, :stop])
    return torch.cat(out, 2)


def _after(
    x: Tensor, mixed: Tensor, out: Tensor, norm: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    x = x + F.linear(mixed.transpose(1, 2).reshape(x.shape), out)
    gate, up = F.linear(_norm(x, norm), gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, down)


def _loss(x: Tensor, norm: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    scores = F.linear(_norm(x, norm), embedding).float()
    losses = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()
