"""Forward passes over rows that share a prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from selfinstruct_train.engines.local.attention import Prefix, View, shared_attention
from selfinstruct_train.engines.local.cache import Slots
from selfinstruct_train.engines.local.prefixes import agreement
from selfinstruct_train.models.load import LoadedModel, cache_argument
from selfinstruct_train.models.memory import is_out_of_memory
from selfinstruct_train.models.tokenizer import tokenize

log = logging.getLogger(__name__)

_CHUNK = 512
"""Tokens of a prefix computed at once.

The borders never move, so neither do the values that later calls reuse.
"""
_TRIAL = "The cat sat on the mat, looked at the rain and slept."
_PREFIXES = 4
"""Prefixes kept from call to call."""
_FILL_TOKENS_CPU = 1024
_FILL_TOKENS_GPU = 8192
"""Most tokens, padding included, computed at once: as many as keep a GPU busy, or fit a CPU's
caches."""


class ModelRunner:
    """The model as the decoder and the scorer use it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.device = loaded.device
        self._loaded = loaded
        self._model = loaded.model
        self._cache_argument = cache_argument(loaded.model) or "past_key_values"
        self._prefixes: dict[str | None, list[Prefix]] = {}
        self.layers = 0
        self._windows: set[int | None] = set()
        self._slots: Slots | None = None
        self.fill_tokens = _FILL_TOKENS_CPU if self.device.type == "cpu" else _FILL_TOKENS_GPU
        """Most tokens, padding included, to compute at once."""
        self.token_bytes = 0
        """Bytes of keys and values that one token takes."""

    @torch.inference_mode()
    def works(self) -> bool:
        """Whether this model's logits survive being computed in parts, tried on a few tokens.

        Raises:
            RuntimeError, MemoryError: memory is short, which says nothing about the model.
        """
        # Of plain text: tokens that were never trained on make some models blow up rounding errors.
        (text,) = tokenize(self._loaded.tokenizer, [_TRIAL])
        tokens = (text * 9)[:9]
        self._prefixes.clear()
        self._model.eval()
        try:
            whole = self._model(torch.tensor([tokens], device=self.device), use_cache=False).logits
            cache = DynamicCache()
            prefix = Prefix((), [])
            self._compute(tokens[:2], None, cache)
            prefix = _extended(prefix, tokens[:2], cache)
            self.layers = len(cache.layers)
            self.token_bytes = sum(
                2 * keys.shape[0] * keys.shape[2] * keys.element_size() for keys, _ in prefix.layers
            )
            slots = Slots(2, len(tokens), self.layers)
            parts = [self.fill(slots, 0, prefix, [tokens[2:6], tokens[2:5]])[0]]
            for i in (6, 7):
                lengths = torch.tensor([i - 2, 3], device=self.device)
                ids = torch.tensor([tokens[i], tokens[5]], device=self.device)
                parts.append(self.step(slots, prefix, ids, lengths, i - 2)[0])
        except Exception as error:  # whatever it is that an unknown architecture trips over
            if is_out_of_memory(error):
                raise
            return self._refuse(f"{type(error).__name__}: {error}")
        if _has_windows(self._model) != any(self._windows - {None}):
            return self._refuse("some layers hide their attention window")
        expected = whole[0, [5, 6, 7]].float()
        found = torch.stack(parts).float()
        apart = (found - expected).abs()
        # With 8 bits a single logit of a vocabulary may be far off, all of them are not.
        if self._loaded.dtype == torch.float32:
            difference, tolerance = float(apart.max()), 1e-3
        else:
            difference, tolerance = float(apart.pow(2).mean().sqrt()), 0.1
        if not difference <= tolerance * float(expected.std()):
            return self._refuse(f"logits in parts differ by {difference:.2g}")
        return True

    def _refuse(self, reason: str) -> bool:
        log.warning(
            "%s is asked one request at a time, which is slower: %s",
            type(self._model).__name__,
            reason[:200],
        )
        return False

    @torch.inference_mode()
    def prefix(self, tokens: Sequence[int], adapter: str | None) -> Prefix | None:
        """Keys and values of a shared prefix, from memory as far as a kept one agrees with it.

        Only whole chunks are reused, so that the values do not depend on what was asked before.
        """
        if not tokens:
            return None
        # Of adapters, only the one in force will be asked for again soon.
        self._prefixes = {name: self._prefixes.get(name, []) for name in (None, adapter)}
        kept = self._prefixes[adapter]
        wanted = tuple(tokens)
        best = Prefix((), [])
        for known in kept:
            if known.tokens == wanted:
                return known
            shared = agreement(known.tokens, wanted) // _CHUNK * _CHUNK
            if shared > len(best.tokens):
                layers = [(keys[:, :shared], values[:, :shared]) for keys, values in known.layers]
                best = Prefix(wanted[:shared], layers)
        for start in range(len(best.tokens), len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            cache = DynamicCache()
            self._compute(chunk, best if best.tokens else None, cache)
            best = _extended(best, chunk, cache)
        kept.append(best)
        del kept[:-_PREFIXES]
        return best

    def take_slots(self, count: int, capacity: int) -> Slots:
        """Slots for at least ``count`` rows, which the caller gives back with `keep_slots`.

        They are those of the last call where they fit: fresh memory costs many page faults.
        """
        kept, self._slots = self._slots, None
        if kept is not None and kept.fits(count, capacity):
            return kept
        del kept
        return Slots(count, capacity, self.layers)

    def keep_slots(self, slots: Slots) -> None:
        """Have these slots ready for the next call."""
        self._slots = slots

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept slots, which the next call takes over or frees."""
        return self._slots.count * self._slots.capacity * self.token_bytes if self._slots else 0

    def forget(self) -> None:
        """Free what is kept from call to call."""
        self._prefixes.clear()
        self._slots = None

    def fill(
        self, slots: Slots, first: int, prefix: Prefix | None, suffixes: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Put suffixes into empty slots from ``first`` on; logits [rows, vocabulary] after each."""
        slots.first, slots.lengths = first, None
        ends = [[len(suffix) - 1] for suffix in suffixes]
        return self.logits(prefix, suffixes, ends, slots)[:, 0]

    @torch.inference_mode()
    def logits(
        self,
        prefix: Prefix | None,
        suffixes: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Logits [rows, places, vocabulary] at the given places of each suffix."""
        longest = max(map(len, suffixes))
        # Padding stands on the right, where the tokens before it cannot see it.
        padded = [[*suffix, *[suffix[-1]] * (longest - len(suffix))] for suffix in suffixes]
        ids = torch.tensor(padded, device=self.device)
        picks = torch.tensor(places, device=self.device)
        view = View(prefix, None, longest - 1)
        # An empty cache is false.
        cache = DynamicCache() if cache is None else cache
        return self._run(ids, _positions(ids, prefix), view, cache, picks)

    @torch.inference_mode()
    def step(
        self,
        slots: Slots,
        prefix: Prefix | None,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        """Add one token to each busy slot; logits [rows, vocabulary] after it.

        Args:
            slots: where the rows stand.
            prefix: what they share.
            tokens: [rows], the tokens to add.
            lengths: [rows], tokens in each slot so far.
            longest: the largest of ``lengths``.
        """
        slots.lengths, slots.width = lengths, longest + 1
        slots.rows = torch.arange(len(tokens), device=self.device)
        ids = tokens[:, None]
        positions = _positions(ids, prefix) + lengths[:, None]
        return self._run(ids, positions, View(prefix, lengths, longest), slots, None)[:, 0]

    def _compute(self, tokens: Sequence[int], prefix: Prefix | None, cache: Cache) -> None:
        self.logits(prefix, [tokens], [[0]], cache)

    def _run(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        view: View,
        cache: Cache,
        picks: torch.Tensor | None,
    ) -> torch.Tensor:
        if self._model.training:
            self._model.eval()

        head = self._model.get_output_embeddings()
        hook = None
        if picks is not None:
            # Logits of every prompt token would fill the memory at large vocabularies.
            hook = head.register_forward_pre_hook(partial(_pick, picks))
        try:
            with shared_attention(self._model):
                logits: torch.Tensor = self._model(
                    input_ids=ids,
                    position_ids=positions,
                    use_cache=True,
                    view=view,
                    **{self._cache_argument: cache},
                ).logits
        finally:
            if hook is not None:
                hook.remove()
        self._windows |= view.windows
        return logits


def _has_windows(model: PreTrainedModel) -> bool | None:
    """Whether the config gives layers a sliding window; None for layers of an unknown kind."""
    config = model.config.get_text_config()
    if kinds := set(getattr(config, "layer_types", None) or ()):
        known = kinds <= {"full_attention", "sliding_attention"}
        return "sliding_attention" in kinds if known else None
    used = getattr(config, "use_sliding_window", True)
    return bool(used) and getattr(config, "sliding_window", None) is not None


def _pick(
    places: torch.Tensor, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    index = places[..., None].expand(-1, -1, inputs[0].shape[-1])
    return (inputs[0].gather(1, index), *inputs[1:])


def _positions(ids: torch.Tensor, prefix: Prefix | None) -> torch.Tensor:
    start = len(prefix.tokens) if prefix else 0
    return torch.arange(start, start + ids.shape[1], device=ids.device).expand_as(ids)


def _extended(prefix: Prefix, tokens: Sequence[int], cache: Cache) -> Prefix:
    new = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
    if prefix.tokens:
        new = [
            (torch.cat([old[0], keys], 1), torch.cat([old[1], values], 1))
            for old, (keys, values) in zip(prefix.layers, new, strict=True)
        ]
    return Prefix((*prefix.tokens, *tokens), new)
