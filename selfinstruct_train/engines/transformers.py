"""The engine in this process: any causal model that ``transformers`` loads, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.drafts import Draft, Reader
from selfinstruct_train.engines.models import LoadedModel, end_tokens
from selfinstruct_train.engines.sampling import Chooser
from selfinstruct_train.errors import EngineError


class TransformersEngine:
    """Writes and scores with a loaded model."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig) -> None:
        self._loaded = loaded
        self._config = config
        self._reader = Reader(loaded.tokenizer, end_tokens(loaded))

    @property
    def model_id(self) -> str:
        """Name of the base model."""
        return self._loaded.model_id

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._loaded.context_length

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a prompt, special tokens included."""
        return [len(tokens) for tokens in self._encode(texts)]

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield one completion per request, each as it is finished.

        Raises:
            EngineError: a prompt leaves no room in the context; the other requests are answered first.
        """
        refused = []
        for request, prompt in zip(
            requests, self._encode([r.prompt for r in requests]), strict=True
        ):
            if (room := self.context_length - len(prompt)) < 1:
                refused.append((request.id, len(prompt)))
            else:
                yield self._write(Draft(request, prompt, room, self._reader), adapter)
        if refused:
            raise EngineError(
                f"request {refused[0][0]}: its prompt of {refused[0][1]} tokens leaves no room in the context of "
                f"{self.context_length} tokens ({len(refused)} of {len(requests)} requests); shorten it"
            )

    @torch.no_grad()
    def _write(self, draft: Draft, adapter: Path | None) -> Completion:
        chooser = Chooser([draft.request.sampling], self._loaded.device)
        tokens, cache = draft.prompt, None
        while True:
            self._loaded.adapters.activate(adapter)
            output = self._loaded.model(
                torch.tensor([tokens], device=self._loaded.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            seen = torch.tensor([draft.prompt + draft.tokens], device=self._loaded.device)
            choice = chooser.choose(output.logits[:, -1], seen, [len(draft.tokens)])
            done = draft.add(choice.tokens[0], choice.logprobs[0])
            if done is not None:
                return done
            tokens = choice.tokens

    @torch.no_grad()
    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probability of each continuation after ``prefix + suffix``.

        Raises:
            EngineError: a prompt and its continuation do not fit the context.
        """
        rows = []
        for suffix in suffixes:
            prompt = self._encode([prefix + suffix])[0]
            wholes = self._encode([prefix + suffix + text for text in continuations])
            # A token may straddle the seam: what all share is given, the rest is scored.
            shared = min(_common(prompt, whole) for whole in wholes)
            row = []
            for whole in wholes:
                self._loaded.adapters.activate(adapter)
                ids = torch.tensor([whole], device=self._loaded.device)
                logits = self._loaded.model(ids, use_cache=False).logits[0, shared - 1 : -1]
                logprobs = torch.log_softmax(logits.float(), -1)
                row.append(float(logprobs.gather(1, ids[0, shared:, None]).sum()))
            rows.append(row)
        return rows

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        tokenizer = self._loaded.tokenizer
        encoded: list[list[int]] = tokenizer(list(texts), return_attention_mask=False)["input_ids"]
        # An empty prompt still needs one token to continue from.
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        return [tokens or [start] for tokens in encoded]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
