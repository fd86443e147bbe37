"""Log-probabilities of continuations, many prompts at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from selfinstruct_train.engines.local.model_runner import ModelRunner
from selfinstruct_train.engines.local.prefixes import shared_length


class ScoringPrompt(NamedTuple):
    """How likely is it that one run of tokens follows another?"""

    given: list[int]
    """At least one token."""
    scored: list[int]


def score_together(
    runner: ModelRunner, questions: Sequence[ScoringPrompt], adapter: str | None, tokens: int
) -> list[float]:
    """Summed natural log-probability of each question's tokens.

    Continuations of one token share one row, since the same logits answer them all.

    Args:
        runner: the model, with the adapter in force.
        questions: what to score.
        adapter: name of the adapter in force.
        tokens: most tokens, padding included, of one pass.
    """
    asked: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        asked[(*question.given, *question.scored[:-1])].append(i)
    shared = min(shared_length(list(asked)), min(len(q.given) for q in questions) - 1)
    prefix = runner.prefix(questions[0].given[:shared], adapter)
    answers = [0.0] * len(questions)
    for rows in _fitting(sorted(asked, key=len), shared, tokens):
        starts = [min(len(questions[i].given) for i in asked[row]) - 1 for row in rows]
        width = max(len(row) - start for row, start in zip(rows, starts, strict=True))
        places = [
            [min(start + t, len(row) - 1) - shared for t in range(width)]
            for row, start in zip(rows, starts, strict=True)
        ]
        logits = runner.logits(prefix, [row[shared:] for row in rows], places)
        logprobs = torch.log_softmax(logits.float(), -1)
        for row, start, table in zip(rows, starts, logprobs, strict=True):
            for i in asked[row]:
                given, scored = questions[i]
                at = range(len(given) - 1 - start, len(given) - 1 - start + len(scored))
                answers[i] = float(table[list(at), scored].double().sum())
    return answers


def _fitting(
    rows: Sequence[tuple[int, ...]], shared: int, tokens: int
) -> Iterator[list[tuple[int, ...]]]:
    batch: list[tuple[int, ...]] = []
    for row in rows:
        if batch and (len(row) - shared) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch
