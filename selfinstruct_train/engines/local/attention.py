"""Attention of many rows that share the beginning of their prompts.

The keys and values of the shared prefix are stored once and read once for all rows, in one matrix
product; those of each row's own tokens stand in its slot. The two softmaxes are merged by the
logarithms of their sums, which equals one softmax over both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, PreTrainedModel

from selfinstruct_train.engines.local.rowwise import attend_rows, can_attend_rows

_NAME = "selfinstruct_shared_prefix"
_BLOCK = 1 << 24
"""Most scores computed at once: longer queries go in blocks, so that memory stays flat."""


class NotAttention(Exception):
    """The model asks for a kind of attention that is not computed here."""


class Prefix(NamedTuple):
    """Tokens that all rows begin with, and what each layer keeps of them."""

    tokens: tuple[int, ...]
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values, each [key heads, tokens, head size]."""


class View:
    """What the rows of one forward pass may attend to.

    Query ``t`` of a row stands at place ``start + t`` of its slot, after the prefix; it sees the
    whole prefix and its slot up to itself, or as much of them as a sliding window shows.
    """

    def __init__(self, prefix: Prefix | None, starts: torch.Tensor | None, last: int) -> None:
        """Describe a pass.

        Args:
            prefix: the shared beginning.
            starts: [rows], tokens already in each slot; None where the slots are empty.
            last: highest place in a slot that any query stands at.
        """
        self.prefix = prefix
        self.starts = starts
        self.seen = None if starts is None else starts + 1
        """[rows], places of its slot that the query of each row sees."""
        self.windows: set[int | None] = set()
        """Sliding windows that the layers asked for."""
        self._last = last
        self._hidden: dict[tuple[int, ...], torch.Tensor] = {}

    def windowed(self, window: int | None) -> int | None:
        """The window, or None where it reaches back over everything anyway."""
        length = len(self.prefix.tokens) if self.prefix else 0
        return None if window is None or window > length + self._last else window

    def hidden(
        self, first: int, count: int, keys: int, before: int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor:
        """Which keys are hidden, [rows or 1, 1, queries, keys].

        Args:
            first: first query of the block.
            count: queries of the block.
            keys: number of keys.
            before: how far before the slot's first place the first key stands.
            window: sliding window, None for no limit.
            like: any tensor on the device.
        """
        name = (first, count, keys, before, window or 0)
        if name not in self._hidden:
            place = torch.arange(first, first + count, device=like.device)[None, :, None]
            if self.starts is not None:
                place = place + self.starts[:, None, None]
            key = torch.arange(-before, keys - before, device=like.device)
            hidden = key > place
            if window is not None:
                hidden = hidden | (key <= place - window)
            self._hidden[name] = hidden[:, None]
        return self._hidden[name]


@contextmanager
def shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend through a `View` for the time of one forward pass."""
    AttentionInterface.register(_NAME, _attend)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    view: View | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Stand in for a model's attention.

    Takes a query of [rows, heads, queries, size], gives [rows, queries, heads, size].
    """
    if view is None or attention_mask is not None:
        raise NotAttention("the model keeps the view or brings a mask of its own")
    if any(others.get(name) is not None for name in ("s_aux", "position_bias")):
        raise NotAttention("the model adds something to its scores")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    group, queries = query.shape[1] // key.shape[1], query.shape[2]
    view.windows.add(sliding_window)
    window = view.windowed(sliding_window)
    if view.prefix is None and view.starts is None and window is None and softcap is None:
        if group > 1:
            key, value = (x.repeat_interleave(group, 1) for x in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=queries > 1, scale=scale
        )
        return out.transpose(1, 2).contiguous(), None
    shared = None
    if view.prefix is not None:
        shared = view.prefix.layers[module.layer_idx]  # type: ignore[index]
        if window is not None:
            shared = (shared[0][:, -window:], shared[1][:, -window:])
    longest = max(key.shape[2], shared[0].shape[1] if shared else 0)
    step = max(1, _BLOCK // (query.shape[0] * query.shape[1] * longest))
    blocks = [
        _block(query[:, :, t : t + step], key, value, shared, view, t, window, softcap, scale)
        for t in range(0, queries, step)
    ]
    out = blocks[0] if len(blocks) == 1 else torch.cat(blocks, 2)
    return out.transpose(1, 2).contiguous(), None


def _block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor] | None,
    view: View,
    first: int,
    window: int | None,
    softcap: float | None,
    scale: float,
) -> torch.Tensor:
    rows, heads, count, size = query.shape
    kept = key.shape[1]
    scaled = query * scale
    if view.seen is not None and softcap is None and can_attend_rows(query, key, value):
        out, mass = attend_rows(query, key, value, view.seen, window, scale)
    else:
        hidden = view.hidden(first, count, key.shape[2], 0, window, query)
        out, mass = _own(scaled, key, value, hidden, softcap)
    if shared is None:
        return out
    keys, values = shared
    length = keys.shape[1]
    flat = scaled.reshape(rows, kept, -1, size).transpose(0, 1).reshape(kept, -1, size)
    scores = torch.bmm(flat, keys.transpose(1, 2)).view(kept, rows, -1, count, length)
    hides = None
    if window is not None:
        hides = view.hidden(first, count, length, length, window, query)
    weights, shared_mass = _weigh(scores, hides, softcap)
    seen = torch.bmm(weights.view(kept, -1, length), values)
    seen = seen.view(kept, rows, -1, seen.shape[-1]).transpose(0, 1)
    shared_mass = shared_mass.view(kept, rows, -1, 1).transpose(0, 1)
    part = torch.sigmoid(shared_mass - mass.view(rows, kept, -1, 1)).to(out.dtype)
    return torch.lerp(out.view(seen.shape), seen, part).view(rows, heads, count, -1)


def _own(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: torch.Tensor,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to the slots alone, [rows, heads, queries, size], and its mass."""
    rows, heads, count, size = query.shape
    kept, own = key.shape[1], key.shape[2]
    grouped = query.reshape(rows, kept, -1, size)
    scores = torch.matmul(grouped, key.transpose(-1, -2)).view(rows, kept, -1, count, own)
    weights, mass = _weigh(scores, hidden[:, :, None], softcap)
    out = torch.matmul(weights.view(rows, kept, -1, own), value)
    return out.view(rows, heads, count, -1), mass


def _weigh(
    scores: torch.Tensor, hidden: torch.Tensor | None, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over the last dimension, and the logarithm of the sum it divides by."""
    dtype = scores.dtype
    scores = scores.float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        # Not minus infinity: where a window hides all of the prefix, its weight must come out 0 and
        # not undefined.
        scores = scores.masked_fill(hidden, torch.finfo(torch.float32).min)
    weights = scores.softmax(-1)
    # The largest weight is exp(0) over the sum, which spares a second pass of exponentials.
    mass = scores.amax(-1, keepdim=True) - weights.amax(-1, keepdim=True).log()
    return weights.to(dtype), mass
