"""What an OpenAI-compatible server replies, read into one shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)

from selfinstruct_train.records import Sampling
from selfinstruct_train.text.characters import without_surrogates


def _if_readable(value: Any, read: Any) -> Any:
    # Servers fill fields that nobody needs with nulls, empty lists and text.
    try:
        return read(value)
    except ValidationError:
        return None


def _first(choices: Any) -> Any:
    return choices[:1] if isinstance(choices, list) else choices


T = TypeVar("T")
IfReadable = Annotated[T | None, WrapValidator(_if_readable)]
"""A figure that is unknown where it cannot be read: it never costs the text beside it."""
Figure = IfReadable[Annotated[float, Field(allow_inf_nan=False)]]
TokenCount = IfReadable[Annotated[int, Field(ge=0)]]


class _Reply(BaseModel):
    # Every server adds fields of its own.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alternative(_Reply):
    """A token that might have come."""

    token: str
    logprob: Figure = None


class ContentToken(Alternative):
    """A token as llama-server and chat endpoints report it."""

    top_logprobs: IfReadable[tuple[Alternative, ...]] = None


class Logprobs(_Reply):
    """Log-probabilities: parallel lists (completions) or one list of tokens (chat)."""

    tokens: IfReadable[tuple[str, ...]] = None
    token_logprobs: IfReadable[tuple[Figure, ...]] = None
    """None for the first token of an echoed prompt."""
    top_logprobs: IfReadable[tuple[IfReadable[dict[str, Figure]], ...]] = None
    content: IfReadable[tuple[ContentToken, ...]] = None


class ReplyChoice(_Reply):
    """A completion."""

    text: str
    """From ``text`` or ``message.content``, which may be null or a list of parts."""
    finish_reason: IfReadable[str] = None
    stop_reason: IfReadable[str | int] = None
    """vLLM: the stop string or token that matched, None for the end token."""
    matched_stop: IfReadable[str | int] = None
    """SGLang: the stop string or token that matched."""
    logprobs: IfReadable[Logprobs] = None

    @model_validator(mode="before")
    @classmethod
    def _find_text(cls, choice: Any) -> Any:
        if not isinstance(choice, Mapping):
            return choice
        message = choice.get("message")
        if "text" in choice:
            text = _text_of(choice["text"])
        elif isinstance(message, Mapping):
            text = _text_of(message.get("content"))
        else:
            return choice
        if not text and choice.get("error"):
            raise ValueError("gateways put the error of the server behind them here")
        return {**choice, "text": text}


class Usage(_Reply):
    """Tokens as the server counts them."""

    prompt_tokens: TokenCount = None
    completion_tokens: TokenCount = None


class Reply(_Reply):
    """The body of a reply."""

    choices: Annotated[tuple[ReplyChoice, ...], BeforeValidator(_first)] = Field(min_length=1)
    """One: no more are asked for."""
    usage: IfReadable[Usage] = None


class ErrorBody(NamedTuple):
    """An error as servers put it into a body."""

    message: str
    status: int
    """The HTTP status that it names, 500 where it names none."""


class NoReply(NamedTuple):
    """A body that is not a completion."""

    incomplete: bool
    """Empty or cut off, so that another try may bring the rest."""
    error: ErrorBody | None = None


def read_reply(text: str) -> Reply | NoReply:
    """Read the body of a reply."""
    text = text.strip("\ufeff \t\r\n\0")
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        # What begins as JSON was cut; a web page, say, is whole and will come again.
        return NoReply(incomplete=not text or text[0] in "{[")
    if not isinstance(data, Mapping):
        return NoReply(incomplete=data is None)
    try:
        return Reply.model_validate(data)
    except ValidationError:
        error = _error_of(data)
        return NoReply(incomplete="choices" in data, error=error)


def _error_of(data: Mapping[str, Any]) -> ErrorBody | None:
    error = data.get("error") or _error_of_choice(data)
    if not error and data.get("object") != "error":
        return None
    said = error if isinstance(error, Mapping) else data
    message = said.get("message") or (error if isinstance(error, str) else json.dumps(said))
    codes = (said.get("code"), said.get("status"), data.get("code"), data.get("status"))
    known = [code for code in codes if isinstance(code, int) and 400 <= code < 600]
    return ErrorBody(without_surrogates(str(message)), known[0] if known else 500)


def _error_of_choice(data: Mapping[str, Any]) -> Any:
    first = _first(data.get("choices"))
    choice = first[0] if isinstance(first, list) and first else None
    return choice.get("error") if isinstance(choice, Mapping) else None


def _text_of(content: Any) -> Any:
    """The text of a content, which may come in parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(_text_of(part) for part in content if isinstance(part, str | Mapping))
    if isinstance(content, Mapping):
        text = content.get("text")
        return _text_of(text) if isinstance(text, str) else ""
    return without_surrogates(content) if isinstance(content, str) else content


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


def tokens_of(choice: ReplyChoice) -> tuple[Token, ...]:
    """The tokens of a choice; none where the server offers no log-probabilities."""
    given = choice.logprobs
    if given is None:
        return ()
    if given.content is not None:
        return tuple(
            Token(t.token, t.logprob, _known({a.token: a.logprob for a in t.top_logprobs or ()}))
            for t in given.content
        )
    logprobs = given.token_logprobs or ()
    texts = given.tokens or ("",) * len(logprobs)
    tops = given.top_logprobs or (None,) * len(texts)
    return tuple(
        Token(text, logprob, _known(top or {}))
        for text, logprob, top in zip(texts, logprobs, tops, strict=False)
    )


def _known(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {token: value for token, value in figures.items() if value is not None}


def echoed_tokens(reply: Reply) -> tuple[Token, ...]:
    """The prompt's tokens, less the one that every server writes after them."""
    tokens = tokens_of(reply.choices[0])
    counted = reply.usage.prompt_tokens if reply.usage else None
    return tokens[: len(tokens) - 1 if counted is None else counted]


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


def ending(choice: ReplyChoice, sampling: Sampling) -> Ending:
    """What ended a completion.

    Most servers say "stop" for a stop string and for the model's end token alike. vLLM, SGLang and
    TGI tell them apart; elsewhere "stop" means the end token if no stop string was asked for, and a
    stop string otherwise. Any other reason, such as a content filter, counts as a cut.
    """
    found = [at for stop in sampling.stop if (at := choice.text.find(stop)) >= 0]
    if found:  # some servers leave the stop string in the text
        return Ending(choice.text[: min(found)], "stop")
    match (choice.finish_reason or "").lower():
        case "eos_token" | "eos" | "end_turn":
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
