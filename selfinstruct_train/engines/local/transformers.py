"""The engine in this process: any causal model that ``transformers`` loads, on CPU or GPU.

Prompts that begin alike share the keys and values of that beginning, finished rows make room for
the next requests, and a request's text depends on its own seed alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Completion, Request, followed_by
from selfinstruct_train.engines.local.decoding import Decoder
from selfinstruct_train.engines.local.model_runner import ModelRunner
from selfinstruct_train.engines.local.prefixes import agreement, group_by_beginning, shared_length
from selfinstruct_train.engines.local.scoring import ScoringPrompt, score_together
from selfinstruct_train.engines.local.sequence import DecodingSequence, Reader
from selfinstruct_train.engines.local.sequential import score_sequentially, write_sequentially
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.load import LoadedModel, end_tokens
from selfinstruct_train.models.memory import free_memory, is_out_of_memory
from selfinstruct_train.models.tokenizer import tokenize

log = logging.getLogger(__name__)

_CAPACITY_STEP = 128
"""Slots are as long as a multiple of this many tokens, so that the next call can use them again."""


class TransformersEngine:
    """Writes and scores with a loaded model."""

    independent_requests = False

    def __init__(
        self, loaded: LoadedModel, config: EngineConfig, say: Callable[[str], None] = log.warning
    ) -> None:
        """Take a loaded model.

        Args:
            loaded: the model.
            config: how many requests at once, and how much memory.
            say: told when memory runs short.
        """
        self._loaded = loaded
        self._config = config
        self._say = say
        self._reader = Reader(loaded.tokenizer, end_tokens(loaded))
        self._runner = ModelRunner(loaded)
        self._together: bool | None = None

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

        The same requests in the same order give the same completions to the bit, whatever was asked
        before.

        Raises:
            EngineError: a request does not fit the context or the memory; the others are answered
            first.
        """
        refused: list[str] = []
        sequences: list[DecodingSequence] = []
        prompts = self._encode([request.prompt for request in requests])
        for request, prompt in zip(requests, prompts, strict=True):
            if (room := self.context_length - len(prompt)) < 1:
                refused.append(
                    f"request {request.id}: its prompt of {len(prompt)} tokens leaves no room in "
                    f"the context of {self.context_length} tokens; shorten it"
                )
            else:
                sequences.append(DecodingSequence(request, prompt, room, self._reader))
        if sequences and (most := self._most_at_once()):
            for group in group_by_beginning([sequence.prompt for sequence in sequences]):
                yield from self._write([sequences[i] for i in group], adapter, most, refused)
        else:
            for sequence in sequences:
                self._loaded.adapters.activate(adapter)
                try:
                    completion = write_sequentially(self._loaded, sequence)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    refused.append(f"request {sequence.request.id}: out of memory; shorten it")
                else:
                    yield completion
        if refused:
            more = f" ({len(refused)} of {len(requests)} requests do not fit)"
            raise EngineError(refused[0] + (more if len(refused) > 1 else ""))

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probability of each continuation after ``prefix + suffix``.

        Where a token straddles the end of the prompt, the tokens from there on are scored, for all
        continuations.

        Raises:
            EngineError: a prompt and its continuation do not fit the context.
        """
        questions = [
            question
            for suffix in suffixes
            for question in self._questions(prefix + suffix if prefix else suffix, continuations)
        ]
        name = self._loaded.adapters.activate(adapter)
        if questions and self._most_at_once():
            rows = self._score(questions, name)
        else:
            rows = [score_sequentially(self._loaded, q.given, q.scored) for q in questions]
        width = len(continuations)
        return [rows[i * width : (i + 1) * width] for i in range(len(suffixes))]

    def close(self) -> None:
        """Drop the cached keys and values; the model stays, for it is what gets trained."""
        self._runner.forget()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()

    def _write(
        self,
        sequences: Sequence[DecodingSequence],
        adapter: Path | None,
        most: int,
        refused: list[str],
    ) -> Iterator[Completion]:
        name = self._loaded.adapters.activate(adapter)
        shared = shared_length([sequence.prompt for sequence in sequences])
        free = free_memory(self._loaded.device) + self._runner.kept_bytes
        budget = int(free * self._config.memory_fraction) // self._runner.token_bytes - shared
        waiting = []
        for sequence in sequences:
            if (need := _places(sequence) - shared) > budget:
                refused.append(
                    f"request {sequence.request.id}: its {need} tokens need more memory than is "
                    "free; shorten it, lower max_tokens or raise "
                    "generation.engine.memory_fraction"
                )
            else:
                waiting.append(sequence)
        if not waiting:
            return
        capacity = max(map(_places, waiting)) - shared
        capacity = min(-(-capacity // _CAPACITY_STEP) * _CAPACITY_STEP, budget)
        slots = min(most, len(waiting), budget // capacity)
        while waiting:
            finished: set[str] = set()
            try:
                prefix = self._runner.prefix(sequences[0].prompt[:shared], name)
                for completion in Decoder(self._runner, prefix, slots, capacity).write(waiting):
                    finished.add(completion.id)
                    yield completion
                    self._loaded.adapters.activate(adapter)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            waiting = [
                sequence.restarted() for sequence in waiting if sequence.request.id not in finished
            ]
            if slots == 1:
                refused.append(f"request {waiting[0].request.id}: out of memory; shorten it")
                waiting = waiting[1:]
            slots = self._shrink(slots)

    def _shrink(self, size: int) -> int:
        # Called outside of `except`: the error's traceback would keep the failed tensors alive.
        self._runner.forget()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        smaller = max(1, size // 2)
        self._say(
            f"out of memory: going on with {smaller} in place of {size} at once; the next batch "
            "tries the full size again"
        )
        return smaller

    def _score(self, questions: Sequence[ScoringPrompt], name: str | None) -> list[float]:
        tokens = self._runner.fill_tokens
        while True:
            try:
                return score_together(self._runner, questions, name, tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or tokens == 1:
                    raise
            tokens = self._shrink(tokens)

    def _questions(self, prompt: str, continuations: Sequence[str]) -> list[ScoringPrompt]:
        texts = [followed_by(prompt, text) for text in continuations]
        given, *wholes = self._encode([prompt, *texts])
        shared = min([agreement(given, whole) for whole in wholes], default=0)
        if (longest := max(map(len, wholes), default=0)) > self.context_length:
            raise EngineError(
                f"a prompt and its continuation take {longest} tokens, the context has "
                f"{self.context_length}: shorten the prompt that ends in {prompt[-60:]!r}"
            )
        for whole, text in zip(wholes, continuations, strict=True):
            if len(whole) <= shared or not shared:
                raise EngineError(f"continuation {text!r} adds no token to the prompt; use another")
        return [ScoringPrompt(whole[:shared], whole[shared:]) for whole in wholes]

    def _most_at_once(self) -> int:
        """Most requests to answer together, 0 where this model takes one at a time.

        Decided by trying. Memory that is short at the moment halves the number for this call, and
        decides nothing about the next.
        """
        most = self._config.max_batch_size
        while self._together is None and most:
            try:
                self._together = self._runner.works()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if self._together is None:
                most = self._shrink(most) if most > 1 else 0
        return most if self._together else 0

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        tokenizer = self._loaded.tokenizer
        encoded = tokenize(tokenizer, texts)
        # An empty prompt still needs one token to continue from.
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        return [tokens or [start] for tokens in encoded]


def _places(sequence: DecodingSequence) -> int:
    return len(sequence.prompt) + sequence.limit
