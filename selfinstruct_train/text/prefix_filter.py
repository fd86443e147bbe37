"""Which pool entries can exceed the novelty threshold? An exact filter: it drops none that does.

The longest common subsequence of two texts is no longer than their multiset overlap, so F1 above
the threshold needs an overlap of so many tokens, and lengths that are not too far apart. Two texts
of m and n tokens with overlap o share one of the m - o + 1 rarest tokens of the one and the
n - o + 1 rarest of the other (prefix filtering: Bayardo et al., "Scaling up all pairs similarity
search", 2007; Xiao et al., "Efficient similarity joins for near duplicate detection", 2008). What
shares such a token is screened by length and by a signature of token parities: texts whose
signatures differ in d bits differ in at least d tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.text.rouge import Code, f_measure, numbers

_FIRST_ORDER = 1024
_TABLES = 1024
_UNSEEN = 2**32


class OverlapFilter:
    """An inverted index of the rarest tokens of each pool entry.

    Args:
        threshold: F1 that an entry must exceed, 0 to 1.
        pool: the coded entries so far.
    """

    def __init__(self, threshold: float, pool: Iterable[Code]) -> None:
        self._needs = _Needs(threshold)
        self._codes: list[Code] = []
        self._lengths = array("i")
        self._longest = 0
        self._signatures = array("Q")
        self._postings: dict[int, array[int]] = {}
        self._rank: dict[int, int] = {}
        self._next_order = _FIRST_ORDER
        for code in pool:
            self.add(code)

    def add(self, code: Code) -> None:
        """Append an entry; its position is the number of entries before it."""
        self._codes.append(code)
        tokens = numbers(code)
        self._lengths.append(len(tokens))
        self._longest = max(self._longest, len(tokens))
        self._signatures.append(_signature(tokens))
        if len(self._codes) == self._next_order:
            self._reorder()
        else:
            self._post(len(self._codes) - 1, tokens)

    def find(self, code: Code) -> list[int]:
        """Positions, ascending, of all entries above the threshold, and of few others."""
        tokens = numbers(code)
        lists = [
            np.frombuffer(postings, np.int32)
            for token in self._prefix(tokens)
            if (postings := self._postings.get(token)) is not None
        ]
        if not lists:
            return []
        found = np.concatenate(lists)
        signatures = np.frombuffer(self._signatures, np.uint64)[found]
        differing = np.bitwise_count(signatures ^ np.uint64(_signature(tokens)))
        lengths = np.frombuffer(self._lengths, np.int32)[found]
        allowed = self._needs.differing(len(tokens), self._longest)[lengths]
        return sorted(set(found[differing <= allowed].tolist()))

    def _post(self, position: int, tokens: list[int]) -> None:
        for token in self._prefix(tokens):
            postings = self._postings.get(token)
            if postings is None:
                self._postings[token] = postings = array("i")
            postings.append(position)

    def _prefix(self, tokens: list[int]) -> set[int]:
        """The rarest tokens, so many that two texts above the threshold share one of theirs."""
        size = len(tokens) - self._needs.least(len(tokens)) + 1
        rank = self._rank
        # Tokens newer than the order count as rarest; among themselves any fixed order will do.
        rarest = sorted(tokens, key=lambda token: rank.get(token, token - _UNSEEN))
        return set(rarest[: max(size, 0)])

    def _reorder(self) -> None:
        """Rank tokens by rarity again, whenever the pool has doubled: the order only saves time."""
        counts = Counter(token for code in self._codes for token in numbers(code))
        self._rank = {token: i for i, (token, _) in enumerate(reversed(counts.most_common()))}
        self._postings = {}
        for position, code in enumerate(self._codes):
            self._post(position, numbers(code))
        self._next_order *= 2


def _signature(tokens: list[int]) -> int:
    """64 bits: is the number of tokens that fall on this bit odd?"""
    bits = 0
    for token in tokens:
        bits ^= 1 << (token & 63)
    return bits


class _Needs:
    """How many common tokens F1 above the threshold needs, by rouge_score's own floats."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._least: dict[int, int] = {}
        self._differing: dict[int, NDArray[np.int32]] = {}

    def least(self, length: int) -> int:
        """Fewest common tokens that take a text of this length above the threshold, or length + 1.

        A common subsequence counts most with an entry that holds nothing else.
        """
        least = self._least.get(length)
        if least is None:
            common = np.arange(1.0, length + 1)
            enough = f_measure(common, length, common) > self._threshold
            least = int(enough.argmax()) + 1 if enough.any() else length + 1
            self._least[length] = least
        return least

    def differing(self, length: int, longest: int) -> NDArray[np.int32]:
        """In how many tokens a text of this length may differ from entries of 0, 1, … tokens.

        The table goes to `longest` or beyond; -1 where the lengths alone keep F1 down.
        """
        table = self._differing.get(length)
        if table is None or len(table) <= longest:
            entry = np.arange(2.0 * longest + 1)
            entry_or_one = np.maximum(entry, 1.0)
            # One below the real-number bound, then up until the floats agree.
            need = np.maximum(np.floor(self._threshold * (length + entry) / 2) - 1, 1.0)
            for _ in range(4):
                need += f_measure(need, length, entry_or_one) <= self._threshold
            possible = need <= np.minimum(entry, length)
            table = np.where(possible, length + entry - 2 * need, -1).astype(np.int32)
            if len(self._differing) == _TABLES:
                self._differing.clear()
            self._differing[length] = table
        return table
