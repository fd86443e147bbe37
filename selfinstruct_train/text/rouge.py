"""ROUGE-L over many texts at once, in the floats of rouge_score: tokens, their codes, F1.

A token becomes a number and a text a string of one character a token, so that rapidfuzz finds
longest common subsequences with bit-parallel arithmetic, many texts at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from selfinstruct_train.text.words import TokenizerName, words

Code = str | list[int]
"""A text with one character for each token, or its numbers where they are no characters."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

_SURROGATES_FROM, _SURROGATES = 0xD800, 0x800
_LAST_CHARACTER = 0x10FFFF
_TINY = np.finfo(np.float64).tiny


class Vocabulary:
    """Numbers tokens as they first appear, and writes a text as one number a token."""

    def __init__(self, tokenizer: TokenizerName) -> None:
        self.tokenizer = tokenizer
        self._number: dict[str, int] = {}

    def encode(self, text: str) -> Code:
        """The text with a character for each token, equal where tokens are and nowhere else."""
        number = self._number
        codes = [number.get(word) or self._enter(word) for word in words(text, self.tokenizer)]
        if codes and max(codes) > _LAST_CHARACTER:
            return codes
        return "".join(map(chr, codes))

    def _enter(self, word: str) -> int:
        # From 1 on, so that `get(...) or` tells a known word; surrogates are no characters.
        code = len(self._number) + 1
        if code >= _SURROGATES_FROM:
            code += _SURROGATES
        self._number[word] = code
        return code


def numbers(code: Code) -> list[int]:
    """The numbers of the tokens of a coded text."""
    return list(map(ord, code)) if isinstance(code, str) else code


def common_lengths(block: Sequence[Code], pool: Sequence[Code]) -> Integers:
    """Lengths of longest common subsequences: rows as the block, columns as the pool."""
    if not pool:
        return np.empty((len(block), 0), np.int32)
    return process.cdist(block, pool, scorer=LCSseq.similarity, dtype=np.int32, workers=1)


def f_measure(
    lcs: Integers | Floats,
    target: float,
    prediction: Floats,
    buffers: Floats | None = None,
) -> Floats:
    """ROUGE-L F1 from subsequence lengths, in the float operations and their order of rouge_score.

    Args:
        lcs: length of the longest common subsequence, in tokens.
        target: length of the target (the candidate), at least 1 even where it has no token.
        prediction: lengths of the predictions (the pool entries), at least 1 as well, shape as lcs.
        buffers: room for three rows as wide as lcs or wider; the result is a view into it, good
            until the next call. Fresh pages for a wide row cost more than the arithmetic.

    Texts without tokens have lcs 0 and so score 0.
    """
    if buffers is None:
        buffers = np.empty((3, len(lcs)))
    rows: list[Floats] = [row[: len(lcs)] for row in buffers]
    precision, recall, total = rows
    np.divide(lcs, prediction, out=precision)
    np.divide(lcs, target, out=recall)
    np.add(precision, recall, out=total)
    # 0 / tiny is the 0 that rouge_score returns where nothing is shared; no other sum is as small.
    np.maximum(total, _TINY, out=total)
    precision *= 2.0
    precision *= recall
    precision /= total
    return precision
