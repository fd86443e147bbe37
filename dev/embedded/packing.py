"""From documents to rows of tokens: whole documents side by side in blocks of one length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dev.embedded.corpus import documents
from selfinstruct_train.packs.parts import Wording

IGNORED = -100
"""Target of a position that counts for nothing."""
ANSWER_WEIGHT = 3.0
"""Weight in the loss of the tokens of an output: the skills are there, much else is chance."""
_CHARACTERS_A_TOKEN = 3.7
_FILLERS = 0.35
"""Share of the documents that are kept to fill up rows."""


class Batch(NamedTuple):
    """Rows of one length."""

    inputs: Tensor
    """(rows, length) token ids."""
    targets: Tensor
    """(rows, length) the next token, or `IGNORED`."""
    weights: Tensor
    """(rows, length) float32 weight of each target, 0 where it is ignored."""


class StreamPlace(NamedTuple):
    """Where a stream of batches stands: enough to go on from there."""

    chunk: int
    """Number of the chunk of documents."""
    length: int
    """Block length in tokens, which a chunk keeps to its end."""
    used: int
    """Batches of the chunk that were taken."""


class Packer(NamedTuple):
    """Writes, tokenizes and packs chunks of documents; each chunk is a stream of its own."""

    tokenizer: PreTrainedTokenizerFast
    wording: Wording
    seed: int
    batch_tokens: int
    """Tokens of a batch."""
    chunk_tokens: int
    """About so many tokens are written and packed at a time."""

    def chunk(self, number: int, length: int) -> list[Batch]:
        """The batches of a chunk, always the same ones for the same arguments."""
        texts: list[str] = []
        wanted = self.chunk_tokens * _CHARACTERS_A_TOKEN
        # Long documents alone leave their blocks half empty, so short ones come along to fill up.
        shares = ((True, 0.65), (False, 0.35)) if length >= 1024 else ((False, 1.0),)
        for long, share in shares:
            texts += _take(
                documents(self.seed * 1_000_000 + number, self.wording, long), wanted * share
            )
        end = self.tokenizer.eos_token_id
        rng = random.Random(f"{self.seed} {number}")
        encoded = [ids + [end] for ids in self.tokenizer(texts)["input_ids"]]
        rng.shuffle(encoded)
        fillers = encoded[: int(len(encoded) * _FILLERS)]
        rows = pack(encoded[len(fillers) :], fillers, length + 1)
        rng.shuffle(rows)
        size = self.batch_tokens // length
        return [
            self._batch(rows[i : i + size], length) for i in range(0, len(rows) - size + 1, size)
        ]

    def batches(self, place: StreamPlace) -> Iterator[Batch]:
        """The batches of the chunk from the place on."""
        return islice(self.chunk(place.chunk, place.length), place.used, None)

    def rows_of_each(self, texts: Sequence[str], length: int) -> list[Batch]:
        """The given documents, each in a row of its own, so that none sees another."""
        end = self.tokenizer.eos_token_id
        rows = [(ids + [end])[: length + 1] for ids in self.tokenizer(list(texts))["input_ids"]]
        size = self.batch_tokens // length
        # The last batch is filled up with empty rows: compiled code is made for one shape.
        rows += [[] for _ in range(-len(rows) % size)]
        return [self._batch(rows[i : i + size], length) for i in range(0, len(rows), size)]

    def _batch(self, rows: Sequence[list[int]], length: int) -> Batch:
        ids = torch.full((len(rows), length + 1), int(self.tokenizer.pad_token_id))
        weights = torch.zeros(len(rows), length + 1)
        heads = (
            self.tokenizer.convert_tokens_to_ids("Output"),
            self.tokenizer.convert_tokens_to_ids(":"),
            self.tokenizer.convert_tokens_to_ids("Ċ"),
        )
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, : len(row)] = torch.tensor(answer_weights(row, *heads))
        targets = ids[:, 1:].masked_fill(weights[:, 1:] == 0, IGNORED)
        return Batch(ids[:, :-1].contiguous(), targets.contiguous(), weights[:, 1:].contiguous())


def pack(
    documents: Sequence[list[int]], fillers: Sequence[list[int]], size: int
) -> list[list[int]]:
    """Put whole documents into rows of ``size`` tokens, best fit, longest first.

    What room is left in a row takes the beginning of a filler, whose rest is thrown away: text
    costs nothing, and a row that is cut at its end teaches nothing false. Fillers that are
    not needed are left out, and where they run out, rows stay short.
    """
    rows: list[list[int]] = []
    by_room: list[list[list[int]]] = [[] for _ in range(size + 1)]
    for ids in sorted(documents, key=len, reverse=True):
        ids = ids[:size]
        room = next((r for r in range(len(ids), size + 1) if by_room[r]), None)
        if room is None:
            row: list[int] = []
            rows.append(row)
            room = size
        else:
            row = by_room[room].pop()
        row.extend(ids)
        by_room[room - len(ids)].append(row)
    left = iter(fillers)
    for row in rows:
        while len(row) < size and (ids := next(left, [])):
            row.extend(ids[: size - len(row)])
    return rows


def answer_weights(ids: Sequence[int], output: int, colon: int, newline: int) -> list[float]:
    """1 for each token, `ANSWER_WEIGHT` from after ``Output:`` to the end of its line.

    Args:
        ids: a row of tokens.
        output: id of the token ``Output``.
        colon: id of the colon.
        newline: id of the line break, which still counts as part of the answer.
    """
    weights, inside, previous = [], False, -1
    for token in ids:
        weights.append(ANSWER_WEIGHT if inside else 1.0)
        if inside:
            inside = token != newline
        elif token == colon and previous == output:
            inside = True
        previous = token
    return weights


def _take(stream: Iterator[str], characters: float) -> list[str]:
    taken, size = [], 0
    while size < characters:
        taken.append(next(stream))
        size += len(taken[-1])
    return taken
