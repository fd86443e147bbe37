"""A completion while it is being written: its tokens, its text, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from selfinstruct_train.engines.base import Completion, Request

_TORN = "\ufffd"


class Reader:
    """Turns tokens into text as they stand after a prompt, and knows what one token can add."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> None:
        self.ends = ends
        self._tokenizer = tokenizer
        self._letter = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._pieces: dict[int, str | None] = {}

    def text(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """Text of the tokens after ``before``: some tokenizers drop a blank that opens a text."""
        start = self._decode(before)
        whole = self._decode([*before, *tokens])
        return whole[len(start) :] if whole.startswith(start) else self._decode(tokens)

    def may_hold(self, token: int, character: str) -> bool:
        """Whether this token can have brought this character into the text."""
        if token not in self._pieces:
            start, whole = self._decode(self._letter), self._decode([*self._letter, token])
            self._pieces[token] = whole[len(start) :] if whole.startswith(start) else None
        piece = self._pieces[token]
        return piece is None or _TORN in piece or character in piece

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text


class DecodingSequence:
    """One request under way."""

    def __init__(self, request: Request, prompt: Sequence[int], room: int, reader: Reader) -> None:
        self.request = request
        self.prompt = list(prompt)
        self.tokens: list[int] = []
        self.limit = min(request.sampling.max_tokens, room)
        self._reader = reader
        self._logprob = 0.0
        self._lasts = {stop[-1] for stop in request.sampling.stop if stop}

    def restarted(self) -> DecodingSequence:
        """The same request from its beginning."""
        return DecodingSequence(self.request, self.prompt, self.limit, self._reader)

    def add(self, token: int, logprob: float) -> Completion | None:
        """Take the next token; the completion, if that ended it."""
        if token in self._reader.ends:
            return self._finish("eos", self._text())
        self.tokens.append(token)
        self._logprob += logprob
        if any(self._reader.may_hold(token, last) for last in self._lasts):
            text = self._text()
            found = [at for stop in self.request.sampling.stop if (at := text.find(stop)) >= 0]
            if found:
                return self._finish("stop", text[: min(found)])
        if len(self.tokens) >= self.limit:
            return self._finish("length", self._text())
        return None

    def _text(self) -> str:
        return self._reader.text(self.prompt[-1:], self.tokens)

    def _finish(self, reason: Literal["stop", "eos", "length"], text: str) -> Completion:
        count = len(self.tokens)
        return Completion(
            id=self.request.id,
            # A character of which only the first bytes came before the cut is not text.
            text=text if reason == "stop" else text.rstrip(_TORN),
            token_ids=tuple(self.tokens),
            finish_reason=reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=count,
            mean_logprob=self._logprob / count if count else None,
        )
