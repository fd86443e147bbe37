"""The tokenizer of a model: its special tokens, its chat template, and whether they can be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from selfinstruct_train.errors import EngineError
from selfinstruct_train.templates import ChatPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NEW_PAD_TOKEN = "<|pad|>"
_DIRECTIVES = "aAbBcdHIjmMpSUwWxXyYzZ"
"""What strftime knows on every platform."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """See that prompts can be put to the model and answers can end.

    Args:
        tokenizer: the model's.
        rows: tokens that the model's embedding knows.
        name: the model's, for errors.

    Raises:
        EngineError: there is no end token, the model does not know it, or every prompt is followed
            by a token that the tokenizer adds.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise EngineError(
            f"model.name_or_path: the tokenizer of '{name}' has no end token, so no answer could "
            "ever end; add eos_token to its tokenizer_config.json"
        )
    if end >= rows:
        raise EngineError(
            f"model.name_or_path: the end token {tokenizer.eos_token!r} of '{name}' is number "
            f"{end}, but the model knows {rows} tokens; the tokenizer belongs to another model, or "
            "the embedding was never enlarged: correct eos_token in tokenizer_config.json"
        )
    asked = tokenizer("Name a colour.")["input_ids"]
    own = tokenizer("Name a colour.", add_special_tokens=False)["input_ids"]
    if own and asked[-1] != own[-1]:
        added = tokenizer.convert_ids_to_tokens(asked[-1])
        raise EngineError(
            f"model.name_or_path: the tokenizer of '{name}' ends every prompt in {added!r}, so the "
            "model would take it for finished; set add_eos_token to false in "
            "tokenizer_config.json, and take the token out of post_processor in tokenizer.json"
        )


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, start: bool = True
) -> list[list[int]]:
    """Token ids of texts in which the name of a control token is text like any other.

    Left to itself a tokenizer reads ``<|endoftext|>`` in a seed task, an answer or a web page as
    the end of everything. Only what a chat template set around the data is read so here.

    Args:
        tokenizer: the model's.
        texts: plain ones are data from end to end; a `ChatPrompt` knows which part of it is.
        start: whether the tokenizer puts its start token before each.

    Returns:
        For each text its ids; those of a text that names no control token are the tokenizer's own.
    """
    if not texts:
        return []
    control = _control_tokens(tokenizer)
    names = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
    encoded: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=start, return_attention_mask=False
    )["input_ids"]
    for place, text in enumerate(texts):
        found = [match.span() for match in names.finditer(text)]
        markers = [span for span in found if isinstance(text, ChatPrompt) and text.is_marker(*span)]
        if len(markers) < len(found):
            ids = _around_markers(tokenizer, text, markers, names, control)
            encoded[place] = (_own_start(tokenizer) if start else []) + ids
    return encoded


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Texts of the tokens that steer a model, and their ids."""
    added = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {text: i for text, i in (*added.items(), *named) if text}


def _own_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text."""
    whole: list[int] = tokenizer("a")["input_ids"]
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    return whole[: len(whole) - len(text)]


def _around_markers(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    markers: Sequence[tuple[int, int]],
    names: re.Pattern[str],
    control: dict[str, int],
) -> list[int]:
    """Ids of a text in which some names of control tokens are meant and others are not."""
    strips = {t.content: t for t in tokenizer.added_tokens_decoder.values()}
    ids: list[int] = []
    end = 0
    strip_left = False
    for first, last in (*markers, (len(text), len(text))):
        marker = text[first:last]
        between = str(text[end:first])
        between = between.lstrip() if strip_left else between
        if marker in strips and strips[marker].lstrip:
            between = between.rstrip()
        ids += _as_text(tokenizer, between, names, control)
        ids += [control[marker]] if marker else []
        strip_left = marker in strips and strips[marker].rstrip
        end = last
    return ids


def _as_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    names: re.Pattern[str],
    control: dict[str, int],
) -> list[int]:
    """Ids of a text that is data alone."""
    if not text:
        return []
    forbidden = set(control.values()) - {tokenizer.unk_token_id}
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    if forbidden.isdisjoint(ids):
        return ids
    # Some vocabularies hold the name as a word too, and cannot spell it otherwise.
    broken = names.sub(lambda match: f"{match[0][:1]} {match[0][1:]}", text)
    ids = tokenizer(broken, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [token for token in ids if token not in forbidden]


def freeze_clock(tokenizer: PreTrainedTokenizerBase, moment: datetime) -> None:
    """Let a chat template that asks for the date always see this one.

    Prompts then stay the same from day to day, so that a run can be resumed on the next.
    """
    template = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template:
        fixed = "".join(f"|replace('%{d}', '{moment.strftime(f'%{d}')}')" for d in _DIRECTIVES)
        # A macro hides the function of the same name that transformers offers to templates. The
        # empty text keeps a line end at the template's start from being taken for the macro's.
        head = "{% macro strftime_now(format) %}{{ format" + fixed + " }}{% endmacro %}{{ '' }}"
        tokenizer.chat_template = head + template


def set_pad_token(tokenizer: PreTrainedTokenizerBase, rows: int) -> str:
    """Give the tokenizer a pad token that is not an end token, in the embedding as it is.

    Args:
        tokenizer: the model's.
        rows: tokens that the model's embedding knows.

    Returns:
        What was decided, in one line.
    """
    ends = {tokenizer.eos_token_id}
    pad = tokenizer.pad_token_id
    if pad is not None and pad not in ends and pad < rows:
        return f"pad token: {tokenizer.pad_token!r}"
    special = sorted(
        (i, token.content)
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special and i not in ends and i < rows
    )
    named = [content for _, content in special if "pad" in content.lower()]
    spare = rows > len(tokenizer) and _NEW_PAD_TOKEN not in tokenizer.get_vocab()
    unknown = [content for _, content in special if content == tokenizer.unk_token]
    others = [content for _, content in special]
    if named or not spare:
        # An ordinary token serves too: padding is masked by position, never by what it is.
        last = next(i for i in range(min(rows, len(tokenizer)) - 1, -1, -1) if i not in ends)
        chosen = (named or unknown or others or [tokenizer.convert_ids_to_tokens(last)])[0]
        tokenizer.pad_token = chosen
    else:
        chosen = _NEW_PAD_TOKEN
        tokenizer.add_special_tokens({"pad_token": chosen})
    assert tokenizer.pad_token_id not in ends and tokenizer.pad_token_id < rows
    lack = (
        "its own is beyond its embedding"
        if pad is not None and pad >= rows
        else ("the model has none apart from its end token")
    )
    return f"pad token: {chosen!r} ({lack})"
