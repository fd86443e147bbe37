"""The tokenizer of a model: its special tokens, its chat template, and whether they can be used."""

from __future__ import annotations

from datetime import datetime

from transformers import PreTrainedTokenizerBase

from selfinstruct_train.errors import EngineError

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
