"""How a question is put to a server: by endpoint, and in the server's own words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from selfinstruct_train.chat import ChatRequest
from selfinstruct_train.config import EngineConfig
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.records import Sampling

_SEEDS = 2**31
"""llama.cpp keeps 32 bits of a seed and takes the highest for "none"."""
_REPLY_BASE = 2**20
"""Bytes of a reply that depend on nothing that was asked for."""
_REPLY_PER_TOKEN = 4096
"""Bytes of a token with its likeliest alternatives, rather too many."""
_REPLY_PER_ECHOED = 512
"""Bytes of a reply for each byte of a prompt that is to be echoed with log-probabilities."""


class ServerRequest(NamedTuple):
    """One request to the endpoint."""

    model: str
    """Name that the server knows the model by."""
    prompt: str
    sampling: Sampling
    context_length: int
    """How far back a repetition penalty looks, where the server wants to be told."""
    logprobs: int | None = 1
    """Likeliest tokens to name with each token; None asks for no log-probabilities."""
    echo: bool = False
    """Ask for the log-probabilities of the prompt too."""
    tokens: tuple[int, ...] | None = None
    """The prompt's ids, for the completions endpoint; None sends its text."""


def body_of(question: ServerRequest, config: EngineConfig) -> dict[str, Any]:
    """The JSON to post.

    Settings that are not needed are left out, not null: some servers refuse a null.

    Raises:
        ConfigError: a setting is asked for that the server is not known to take.
    """
    sampling = question.sampling
    body: dict[str, Any] = {
        "model": question.model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed % _SEEDS,
        **extra_settings(config.server_dialect, sampling, question.context_length),
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if config.server_endpoint == "chat":
        body["messages"] = _messages(question.prompt)
        if question.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": question.logprobs}
        return body
    # Only a text can be sent to servers that know no ids.
    knows_ids = question.tokens is not None and config.server_dialect != "transformers"
    body["prompt"] = list(question.tokens or ()) if knows_ids else question.prompt
    if question.logprobs is not None:
        body["logprobs"] = question.logprobs
    if question.echo:
        body["echo"] = True
    return body


def _messages(prompt: str) -> list[dict[str, str]]:
    if isinstance(prompt, ChatRequest):
        return [message._asdict() for message in prompt.messages]
    return [{"role": "user", "content": prompt}]


def longest_reply(question: ServerRequest) -> int:
    """Bytes that the reply to a question cannot exceed, unless the server does not keep to it."""
    echoed = len(question.prompt.encode(errors="replace"))
    echoed *= _REPLY_PER_ECHOED if question.echo else 16
    return _REPLY_BASE + _REPLY_PER_TOKEN * question.sampling.max_tokens + echoed


def extra_settings(
    dialect: str, sampling: Sampling, context_length: int
) -> Mapping[str, float | str]:
    """The settings that the endpoint's standard lacks, in the server's own words.

    All of them are set, for servers fill what is left out from the model's folder or with habits of
    their own.

    Raises:
        ConfigError: a setting is asked for that the server is not known to take.
    """
    top_k, penalty = sampling.top_k, sampling.repetition_penalty
    match dialect:
        case "vllm":
            return {"top_k": top_k or -1, "min_p": 0.0, "repetition_penalty": penalty}
        case "llama.cpp":
            drawn = {"top_k": top_k, "min_p": 0.0, "repeat_penalty": penalty}
            return drawn | {"repeat_last_n": context_length}
        case "transformers":
            # Without do_sample it writes greedily, whatever the temperature.
            settings = {"do_sample": sampling.temperature > 0.0, "top_k": top_k}
            return {"generation_config": json.dumps(settings | {"repetition_penalty": penalty})}
    if top_k or penalty != 1.0:
        raise ConfigError(
            "generation.engine.server_dialect: 'openai' servers know no top_k and no "
            "repetition_penalty; set top_k to 0 and repetition_penalty to 1.0 in the step's "
            "settings, or server_dialect to vllm, llama.cpp or transformers if the server is one "
            "of these"
        )
    return {}
