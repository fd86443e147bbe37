"""The engine behind an address: any OpenAI-compatible server."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from os.path import commonprefix
from pathlib import Path

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Completion, Request, followed_by
from selfinstruct_train.engines.server.batches import BatchClient
from selfinstruct_train.engines.server.client import CompletionsClient, RefusedError
from selfinstruct_train.engines.server.dialects import ServerRequest, extra_settings
from selfinstruct_train.engines.server.replies import (
    Reply,
    Token,
    echoed_tokens,
    ending,
    is_greedy,
    mean_logprob,
    stripped,
    tokens_of,
)
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.records import Sampling
from selfinstruct_train.templates import ChatPrompt

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Texts -> the token ids of each as a prompt, special tokens included."""

_BYTES_PER_TOKEN = 3
"""Rather too few, so that an estimated prompt fits: English text has about 4."""
_WIDTHS = (20, 5)
"""Likeliest tokens to ask for: what vLLM allows, then what OpenAI allows."""

_ONE = Sampling(max_tokens=1)


class ServerEngine:
    """Writes and scores over HTTP; every request is answered, kept and resumed on its own."""

    independent_requests = True

    def __init__(
        self,
        config: EngineConfig,
        model_id: str,
        context_length: int,
        encode: Encode | None = None,
        batches: Path = Path("batches"),
        say: Callable[[str], None] = log.warning,
    ) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            config: address, name of the model there, concurrency, patience.
            model_id: name of the base model, for provenance and, by default, for the server.
            context_length: most tokens of prompt and completion together.
            encode: tokenizer of the served model; without it tokens are estimated from the bytes.
            batches: folder of the jobs, where the server is asked in batches.
            say: told what becomes of them.

        Raises:
            ConfigError: the key, or a proxy that the environment names, cannot be used.
        """
        self._config = config
        self.model_id = model_id
        self.context_length = context_length
        self._encode = encode
        in_batches = config.server_mode == "batch"
        self._client: CompletionsClient | BatchClient = (
            BatchClient(config, batches, say) if in_batches else CompletionsClient(config)
        )
        self._where = " and ".join(config.addresses)
        self._chats = config.server_endpoint == "chat"
        # Trying out what a server offers would take a job, which may take a day.
        self._echoes: bool | None = False if in_batches else None
        self._widths: tuple[int, ...] = _WIDTHS[not self._chats :] if in_batches else _WIDTHS

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text: exact with a tokenizer, else a third of its UTF-8 bytes."""
        if self._encode is not None:
            return [max(1, len(tokens)) for tokens in self._encode(texts)] if texts else []
        return [1 + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN for text in texts]

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield one completion per request, each as it arrives.

        Raises:
            ConfigError: a setting or an adapter is asked for that the server is not known to have.
            EngineError: a prompt leaves no room in the context, or the server failed; what it still
                answered is yielded first.
        """
        model = self._served_name(adapter)
        for request in requests:
            extra_settings(self._config.server_dialect, request.sampling, self.context_length)
        lengths = self.count_tokens([request.prompt for request in requests])
        refused: list[str] = []
        asked: list[Request] = []
        questions: list[ServerRequest] = []
        for request, length in zip(requests, lengths, strict=True):
            if self._encode is not None and length >= self.context_length:
                refused.append(
                    f"request {request.id}: its prompt of {length} tokens leaves no room in the "
                    f"context of {self.context_length} tokens; shorten it"
                )
                continue
            room = max(1, self.context_length - length)
            limit = min(room, request.sampling.max_tokens)
            sampling = request.sampling.model_copy(update={"max_tokens": limit})
            asked.append(request)
            # Few chat endpoints offer log-probabilities, and some refuse whoever asks for them.
            logprobs = None if self._chats else 1
            questions.append(self._question(model, request.prompt, sampling, logprobs))
        for position, reply in self._client.ask_all(questions):
            yield self._completion(asked[position], reply)
        if refused:
            raise EngineError(refused[0])

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probability of each continuation after ``prefix + suffix``.

        Where the server echoes prompts with log-probabilities, all tokens of a continuation are
        scored. Elsewhere the first token is, from the likeliest tokens that the server names; one
        that is not among them gets the most that it can have.

        Raises:
            ConfigError: the server is not known to have the adapter.
            EngineError: a prompt does not fit the context, or the server offers no
                log-probabilities.
        """
        if not suffixes or not continuations:
            return [[] for _ in suffixes]
        model = self._served_name(adapter)
        prompts = [prefix + suffix if prefix else suffix for suffix in suffixes]
        self._require_room([followed_by(p, c) for p in prompts for c in continuations])
        if isinstance(prompts[0], ChatPrompt):
            # An echo leaves out what the template wrote, so nobody knows where the answer begins.
            return self._score_by_first_token(model, prompts, continuations)
        if self._echoes is None:
            self._echoes = self._is_echoing(model, prompts[0] + continuations[0])
        if self._echoes:
            return self._score_by_echo(model, prompts, continuations)
        return self._score_by_first_token(model, prompts, continuations)

    def close(self) -> None:
        """Do nothing: the memory is the server's."""

    def _question(
        self,
        model: str,
        prompt: str,
        sampling: Sampling,
        logprobs: int | None = 1,
        echo: bool = False,
    ) -> ServerRequest:
        tokens: tuple[int, ...] | None = None
        if isinstance(prompt, ChatPrompt) and self._encode is not None and not self._chats:
            # As a text, what stands in the data would be read as part of the template.
            tokens = tuple(self._encode([prompt])[0])
        return ServerRequest(model, prompt, sampling, self.context_length, logprobs, echo, tokens)

    def _served_name(self, adapter: Path | None) -> str:
        if adapter is None:
            return self._config.server_model or self.model_id
        name = "/".join(adapter.parts[-2:])
        if name not in self._config.server_adapters:
            raise ConfigError(
                f"generation.engine.kind: 'server' cannot write with the adapter {name}; load it "
                "into the server and name it in generation.engine.server_adapters, or set kind to "
                "transformers"
            )
        return self._config.server_adapters[name]

    def _completion(self, request: Request, reply: Reply) -> Completion:
        choice = reply.choices[0]
        text, reason = ending(choice, request.sampling)
        usage = reply.usage
        prompt_tokens = usage.prompt_tokens if usage else None
        completion_tokens = usage.completion_tokens if usage else None
        if prompt_tokens is None:
            (prompt_tokens,) = self.count_tokens([request.prompt])
        if completion_tokens is None:
            (completion_tokens,) = self.count_tokens([text])
        return Completion(
            id=request.id,
            text=text,
            token_ids=(),
            finish_reason=reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            mean_logprob=mean_logprob(tokens_of(choice)),
        )

    def _require_room(self, texts: Sequence[str]) -> None:
        longest = max(self.count_tokens(texts))
        # One token is always written, and needs its place.
        if self._encode is not None and longest >= self.context_length:
            raise EngineError(
                f"a prompt and its continuation take {longest} tokens, the context has "
                f"{self.context_length}: shorten the prompt"
            )

    def _is_echoing(self, model: str, text: str) -> bool:
        """Whether the server gives log-probabilities of a prompt; decided by asking once."""
        if not self._chats:
            question = self._question(model, text, _ONE, echo=True)
            with suppress(RefusedError):
                reply = next(self._client.ask_all([question])).reply
                if reply.choices[0].text.startswith(text) and is_greedy(reply):
                    return True
        log.warning(
            "%s gives no log-probabilities of a prompt: continuations are compared by their first "
            "token",
            self._where,
        )
        return False

    def _score_by_echo(
        self, model: str, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[list[float]]:
        questions = [
            self._question(model, prompt + continuation, _ONE, echo=True)
            for prompt in prompts
            for continuation in continuations
        ]
        tokens: list[tuple[Token, ...]] = [()] * len(questions)
        for position, reply in self._client.ask_all(questions):
            tokens[position] = echoed_tokens(reply)
        width = len(continuations)
        return [
            self._sums(prompt, continuations, tokens[i * width : (i + 1) * width])
            for i, prompt in enumerate(prompts)
        ]

    def _sums(
        self, prompt: str, continuations: Sequence[str], echoed: Sequence[tuple[Token, ...]]
    ) -> list[float]:
        """Log-probabilities from where the continuations part with the prompt."""
        shared = self._shared_tokens(prompt, continuations, [len(tokens) for tokens in echoed])
        if shared is None:
            texts = [[token.text for token in tokens] for tokens in echoed]
            starts = [_start(text, c) for text, c in zip(texts, continuations, strict=True)]
            shared = min(len(commonprefix(texts)), *starts)
        sums = []
        for tokens, continuation in zip(echoed, continuations, strict=True):
            logprobs = [token.logprob for token in tokens[shared:]]
            if not logprobs or None in logprobs:
                raise EngineError(
                    f"{self._where}: gives no log-probability for the continuation "
                    f"{continuation!r}; use another server, or generation.engine.kind transformers"
                )
            sums.append(math.fsum(value for value in logprobs if value is not None))
        return sums

    def _shared_tokens(
        self, prompt: str, continuations: Sequence[str], counts: Sequence[int]
    ) -> int | None:
        """By the tokenizer, if it counts as the server does: texts of tokens mislead."""
        if self._encode is None:
            return None
        given, *wholes = self._encode([prompt, *(prompt + c for c in continuations)])
        if [len(whole) for whole in wholes] != list(counts):
            return None
        return len(commonprefix([given, *wholes]))

    def _score_by_first_token(
        self, model: str, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[list[float]]:
        tops = self._likeliest(model, prompts)
        return [self._first_tokens(top, continuations) for top in tops]

    def _likeliest(self, model: str, prompts: Sequence[str]) -> list[Mapping[str, float]]:
        tops: list[Mapping[str, float]] = [{}] * len(prompts)
        questions = [self._question(model, p, _ONE, self._widths[0]) for p in prompts]
        try:
            for position, reply in self._client.ask_all(questions):
                tokens = tokens_of(reply.choices[0])
                tops[position] = tokens[0].top if tokens else {}
        except RefusedError:
            if len(self._widths) == 1:
                raise
            self._widths = self._widths[1:]
            return self._likeliest(model, prompts)
        return tops

    def _first_tokens(self, top: Mapping[str, float], continuations: Sequence[str]) -> list[float]:
        if not top:
            raise EngineError(
                f"{self._where}: offers no log-probabilities, which deciding about "
                "classification tasks needs; serve the model with vLLM or llama.cpp, or set "
                "generation.engine.kind to transformers"
            )
        if self._chats:
            # A reply begins again: its first word has no blank before it, or may have.
            continuations = [continuation.strip() for continuation in continuations]
            top = stripped(top)
        named = [
            max((token for token in top if token and c.startswith(token)), key=len, default=None)
            for c in continuations
        ]
        known = [token for token in named if token is not None]
        if len(set(known)) < len(known):
            raise EngineError(
                f"{self._where}: names only the first token of a continuation, and "
                f"{list(continuations)} begin alike; change these words in the pack, or use "
                "a server that echoes prompts"
            )
        left = 1.0 - math.fsum(math.exp(value) for value in top.values())
        most = min(min(top.values()), math.log(max(left, 1e-12)))
        return [most if token is None else top[token] for token in named]


def _start(tokens: Sequence[str], continuation: str) -> int:
    """Index of the token that a continuation begins in, found from the end."""
    tail = ""
    for i in range(len(tokens) - 1, -1, -1):
        tail = tokens[i] + tail
        if len(tail) >= len(continuation):
            if tail.endswith(continuation):
                return i
            break
    raise EngineError(
        f"the server's tokens do not spell the continuation {continuation!r}; set "
        "generation.engine.kind to transformers, or serve the very model that model.name_or_path "
        "names"
    )
