"""The novelty test of Self-Instruct: is ROUGE-L F1 with every pool entry at most 0.7?

Scores are the floats of rouge_score to the last bit. The paper's scripts ask
``scorer.score(candidate, entry)["rougeL"].fmeasure`` of a ``RougeScorer(["rougeL"])``, no stemmer:
the candidate is the target, the pool entry the prediction. With l the length of the longest common
subsequence, precision = l / len(entry), recall = l / len(candidate) and
F1 = 2 * precision * recall / (precision + recall), in this order of float64 operations. The order
matters: where F1 is exactly 7/10 its float exceeds 0.7 for about half of the pairs of lengths, so
comparing fractions would decide otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.text.prefix_filter import OverlapFilter
from selfinstruct_train.text.rouge import (
    Code,
    Floats,
    Integers,
    Vocabulary,
    common_lengths,
    f_measure,
)
from selfinstruct_train.text.words import TokenizerName

_BLOCK_ROWS = 256
_BLOCK_CELLS = 2**22


class Near(NamedTuple):
    """A pool entry and its ROUGE-L F1 with the text asked about."""

    id: str
    score: float


class SearchResult(NamedTuple):
    """What the pool holds that resembles a text."""

    score: float
    """Highest ROUGE-L F1, 0 to 1; 0 where the pool is empty."""
    nearest: tuple[Near, ...]
    """The k nearest entries, nearest first; of equals the earliest."""
    mean: float
    """Mean ROUGE-L F1 over the pool; 0 where it is empty."""


class NoveltyResult(NamedTuple):
    """Whether a candidate joined the pool, with its full scores at that moment."""

    id: str
    accepted: bool
    score: float
    """Highest ROUGE-L F1, 0 to 1; 0 where the pool was empty."""
    nearest_id: str | None
    """Of equals the earliest; None where the pool was empty."""
    mean: float
    """Mean ROUGE-L F1 over the pool; 0 where it was empty."""


class NoveltyDecision(NamedTuple):
    """Whether a candidate joined the pool."""

    id: str
    accepted: bool
    nearest: Near | None
    """What a rejected candidate resembles most, of equals the earliest; None where accepted."""


class NoveltyIndex:
    """The pool of instructions, coded for exact ROUGE-L against all of it.

    The index keeps ids and coded tokens, not the texts. Decisions and scores do not depend on how a
    stream of candidates is cut into batches.

    Args:
        threshold: highest ROUGE-L F1 that is still new, 0 to 1 (paper: 0.7).
        tokenizer: ``rouge`` (ASCII, as the paper) or ``unicode`` (any script); see `words.words`.

    Raises:
        ConfigError: the threshold is not between 0 and 1.
    """

    def __init__(self, *, threshold: float = 0.7, tokenizer: TokenizerName = "rouge") -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"novelty threshold {threshold}: choose a number from 0 to 1")
        self.threshold = threshold
        self._vocabulary = Vocabulary(tokenizer)
        self._ids: list[str] = []
        self._codes: list[Code] = []
        self._divisors: Floats = np.empty(_BLOCK_ROWS)
        self._buffers: Floats = np.empty((3, _BLOCK_ROWS))
        self._filter: OverlapFilter | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str, text: str) -> None:
        """Put a text into the pool without asking whether it is new."""
        self._join(id, self._vocabulary.encode(text))

    def extend(self, rows: Iterable[tuple[str, str]]) -> None:
        """Put (id, text) rows into the pool without asking whether they are new."""
        for row_id, text in rows:
            self.add(row_id, text)

    def search(self, texts: Sequence[str], k: int = 1) -> list[SearchResult]:
        """Score texts against the whole pool, which stays as it is.

        Args:
            texts: any texts; one result each, in order.
            k: how many of the nearest entries to name; fewer where the pool is smaller.
        """
        results = []
        for block in self._blocks([self._vocabulary.encode(text) for text in texts]):
            lcs = common_lengths(block, self._codes)
            for code, row in zip(block, lcs, strict=True):
                results.append(self._result(self._scores(code, row), k))
        return results

    def admit(self, batch: Sequence[tuple[str, str]]) -> list[NoveltyResult]:
        """Resolve (id, text) candidates in order: one that is new joins the pool before the next.

        A candidate is rejected if and only if its highest F1 exceeds the threshold.
        """
        ids = iter([row_id for row_id, _ in batch])
        verdicts = []
        for block in self._blocks([self._vocabulary.encode(text) for _, text in batch]):
            outer, inner = common_lengths(block, self._codes), common_lengths(block, block)
            joined: list[int] = []
            for position, (code, row_id) in enumerate(zip(block, ids, strict=False)):
                lcs = np.concatenate((outer[position], inner[position, joined]))
                score, nearest, mean = self._result(self._scores(code, lcs), 1)
                accepted = not score > self.threshold
                nearest_id = nearest[0].id if nearest else None
                verdicts.append(NoveltyResult(row_id, accepted, score, nearest_id, mean))
                if accepted:
                    joined.append(position)
                    self._join(row_id, code)
        return verdicts

    def decide(self, batch: Sequence[tuple[str, str]]) -> list[NoveltyDecision]:
        """The decisions of `admit` without the scores of those that join: faster on a large pool.

        The first call makes an index beside the pool, which grows with it from then on.
        """
        if self._filter is None:
            self._filter = OverlapFilter(self.threshold, self._codes)
        decisions = []
        for row_id, text in batch:
            code = self._vocabulary.encode(text)
            near = self._barrier(code, self._filter.find(code))
            decisions.append(NoveltyDecision(row_id, near is None, near))
            if near is None:
                self._join(row_id, code)
        return decisions

    def look_back(self, positions: Sequence[int]) -> list[SearchResult]:
        """What entries resembled when they joined: `search` with k=1 in the pool before each.

        Entries never leave, so this can be asked at any later time, and of as few as one likes.

        Args:
            positions: number of entries before the entry that is asked about, ascending.
        """
        results = []
        waiting = iter(positions)
        for block in self._blocks([self._codes[position] for position in positions]):
            places = list(islice(waiting, len(block)))
            lcs = common_lengths(block, self._codes[: places[-1]])
            for code, row, place in zip(block, lcs, places, strict=True):
                results.append(self._result(self._scores(code, row[:place]), 1))
        return results

    def _barrier(self, code: Code, positions: list[int]) -> Near | None:
        """The nearest of some entries if its F1 exceeds the threshold."""
        if not positions:
            return None
        lcs = common_lengths([code], [self._codes[i] for i in positions])[0]
        scores = f_measure(lcs, max(len(code), 1.0), self._divisors[positions])
        best = int(scores.argmax())
        if not scores[best] > self.threshold:
            return None
        return Near(self._ids[positions[best]], float(scores[best]))

    def _join(self, row_id: str, code: Code) -> None:
        if len(self) == len(self._divisors):
            self._divisors = np.concatenate((self._divisors, np.empty_like(self._divisors)))
            self._buffers = np.empty((3, len(self._divisors)))
        self._divisors[len(self)] = max(len(code), 1)
        self._ids.append(row_id)
        self._codes.append(code)
        if self._filter is not None:
            self._filter.add(code)

    def _blocks(self, codes: list[Code]) -> Iterator[list[Code]]:
        """Cut codes so that a block's table against the pool of the moment stays small."""
        start = 0
        while start < len(codes):
            rows = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // (len(self) + 1)))
            yield codes[start : start + rows]
            start += rows

    def _scores(self, code: Code, lcs: Integers) -> Floats:
        return f_measure(lcs, max(len(code), 1.0), self._divisors[: len(lcs)], self._buffers)

    def _result(self, scores: Floats, k: int) -> SearchResult:
        if not len(scores):
            return SearchResult(0.0, (), 0.0)
        best = int(scores.argmax())
        order = [best] if k == 1 else _highest(scores, k)
        nearest = tuple(Near(self._ids[i], float(scores[i])) for i in order)
        return SearchResult(float(scores[best]), nearest, float(scores.mean()))


def _highest(scores: Floats, k: int) -> list[int]:
    """Positions of the k highest, highest first, of equals the earliest."""
    k = min(k, len(scores))
    if k < 1:
        return []
    least = np.partition(scores, -k)[-k]
    able = np.flatnonzero(scores >= least)
    return [int(i) for i in able[np.argsort(-scores[able], kind="stable")][:k]]
