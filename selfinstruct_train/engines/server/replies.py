"""What an OpenAI-compatible server replies, read into one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

from selfinstruct_train.records import Sampling


class _Reply(BaseModel):
    # Every server adds fields of its own.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alternative(_Reply):
    """A token that might have come."""

    token: str
    logprob: float


class ContentToken(Alternative):
    """A token as llama-server and chat endpoints report it."""

    top_logprobs: tuple[Alternative, ...] = ()


class Logprobs(_Reply):
    """Log-probabilities: parallel lists (completions) or one list of tokens (chat)."""

    tokens: tuple[str, ...] | None = None
    token_logprobs: tuple[float | None, ...] | None = None
    """None for the first token of an echoed prompt."""
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None
    content: tuple[ContentToken, ...] | None = None


class Choice(_Reply):
    """A completion."""

    text: Annotated[str, BeforeValidator(lambda text: text or "")] = Field(
        validation_alias=AliasChoices("text", AliasPath("message", "content"))
    )
    """A chat's message may be null."""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """vLLM: the stop string or token that matched, None for the end token."""
    matched_stop: str | int | None = None
    """SGLang: the stop string or token that matched."""
    logprobs: Logprobs | None = None


class Usage(_Reply):
    """Tokens as the server counts them."""

    prompt_tokens: int
    completion_tokens: int = 0


class Reply(_Reply):
    """The body of a reply."""

    choices: tuple[Choice, ...] = Field(min_length=1)
    usage: Usage | None = None


class Token(NamedTuple):
    """A token of a reply."""

    text: str
    logprob: float | None
    top: Mapping[str, float]
    """The likeliest tokens in its place and their log-probabilities."""


class Ending(NamedTuple):
    """A completion's text and why it ends there."""

    text: str
    reason: Literal["stop", "eos", "length"]


def tokens_of(choice: Choice) -> tuple[Token, ...]:
    """The tokens of a choice; none where the server offers no log-probabilities."""
    given = choice.logprobs
    if given is None:
        return ()
    if given.content is not None:
        return tuple(
            Token(t.token, t.logprob, {a.token: a.logprob for a in t.top_logprobs})
            for t in given.content
        )
    texts, logprobs = given.tokens or (), given.token_logprobs or ()
    tops = given.top_logprobs or (None,) * len(texts)
    return tuple(
        Token(text, logprob, top or {})
        for text, logprob, top in zip(texts, logprobs, tops, strict=False)
    )


def echoed_tokens(reply: Reply) -> tuple[Token, ...]:
    """The prompt's tokens, less the one that every server writes after them."""
    tokens = tokens_of(reply.choices[0])
    return tokens[: reply.usage.prompt_tokens if reply.usage else len(tokens) - 1]


def is_greedy(reply: Reply) -> bool:
    """Whether the written token is the likeliest in its place.

    llama-cpp-python echoes too, but with the log-probabilities of the next place.
    """
    tokens = tokens_of(reply.choices[0])
    if len(tokens) <= len(echoed_tokens(reply)) or (found := tokens[-1].logprob) is None:
        return False
    return found >= max(tokens[-1].top.values(), default=found)


def stripped(top: Mapping[str, float]) -> dict[str, float]:
    """Log-probabilities of the tokens less their blanks."""
    sums: dict[str, float] = {}
    for token, value in top.items():
        sums[token.strip()] = sums.get(token.strip(), 0.0) + math.exp(value)
    return {token: math.log(max(total, 1e-38)) for token, total in sums.items()}


def mean_logprob(tokens: Sequence[Token]) -> float | None:
    """Mean log-probability of the tokens; None where not offered."""
    known = [token.logprob for token in tokens if token.logprob is not None]
    return sum(known) / len(known) if known else None


def ending(choice: Choice, sampling: Sampling) -> Ending:
    """What ended a completion.

    Most servers say "stop" for a stop string and for the model's end token alike. vLLM, SGLang and
    TGI tell them apart; elsewhere "stop" means the end token if no stop string was asked for, and a
    stop string otherwise. Any other reason, such as a content filter, counts as a cut.
    """
    found = [at for stop in sampling.stop if (at := choice.text.find(stop)) >= 0]
    if found:  # some servers leave the stop string in the text
        return Ending(choice.text[: min(found)], "stop")
    match choice.finish_reason:
        case "eos_token":
            reason: Literal["stop", "eos", "length"] = "eos"
        case "stop_sequence":
            reason = "stop"
        case "stop":
            told = {"stop_reason", "matched_stop"} & choice.model_fields_set
            by_string = isinstance(choice.stop_reason or choice.matched_stop, str)
            reason = "stop" if (by_string if told else sampling.stop) else "eos"
        case _:
            reason = "length"
    return Ending(choice.text, reason)
