"""Exact ROUGE-L novelty test (plain version)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rouge_score import tokenize


class Near(NamedTuple):
    id: str
    score: float


class SearchResult(NamedTuple):
    score: float
    nearest: tuple[Near, ...]
    mean: float


class Verdict(NamedTuple):
    id: str
    accepted: bool
    score: float
    nearest_id: str | None
    mean: float


class NoveltyIndex:
    def __init__(self, *, threshold: float = 0.7, tokenizer: Literal["rouge", "unicode"] = "rouge"):
        self.threshold = threshold
        self._ids: list[str] = []
        self._codes: list[str] = []
        self._vocab: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def _encode(self, text: str) -> str:
        out = []
        for t in tokenize.tokenize(text, None):
            n = self._vocab.setdefault(t, len(self._vocab))
            out.append(chr(n if n < 0xD800 else n + 0x800))
        return "".join(out)

    def add(self, id: str, text: str) -> None:
        self._ids.append(id)
        self._codes.append(self._encode(text))

    def extend(self, rows: Iterable[tuple[str, str]]) -> None:
        for id, text in rows:
            self.add(id, text)

    def _scores(self, code: str) -> np.ndarray:
        if not self._codes:
            return np.zeros(0)
        lcs = process.cdist([code], self._codes, scorer=LCSseq.similarity)[0].astype(float)
        n = np.array([len(c) for c in self._codes], dtype=float)
        with np.errstate(all="ignore"):
            p, r = lcs / n, lcs / len(code) if code else lcs * 0
            return np.nan_to_num(2 * p * r / (p + r))

    def search(self, texts: Sequence[str], k: int = 1) -> list[SearchResult]:
        out = []
        for t in texts:
            s = self._scores(self._encode(t))
            if not len(s):
                out.append(SearchResult(0.0, (), 0.0))
                continue
            i = int(s.argmax())
            out.append(SearchResult(float(s[i]), (Near(self._ids[i], float(s[i])),), float(s.mean())))
        return out

    def admit(self, batch: Sequence[tuple[str, str]]) -> list[Verdict]:
        out = []
        for id, text in batch:
            r = self.search([text])[0]
            ok = not r.score > self.threshold
            if ok:
                self.add(id, text)
            out.append(Verdict(id, ok, r.score, r.nearest[0].id if r.nearest else None, r.mean))
        return out
