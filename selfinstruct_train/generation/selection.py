"""Which rows of a round are worth training on: the best by their scores, none close to a better.

The rule is DEITA's (arXiv 2312.15685): rows are gone through best first, and one is passed over
whose nearest neighbour among those already taken is too close. Closeness is ROUGE-L F1 between
instructions, exactly as for novelty.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from selfinstruct_train.config import ScoreWeights, SelectConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.generation.context import StageContext
from selfinstruct_train.records import GeneratedInstance, LeftOutRow, Neighbour, RowScores
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import TokenizerName

_DIGITS = 6


class Candidate(NamedTuple):
    """A row that may be taken."""

    id: str
    instruction: str
    scores: RowScores


def select_rows(context: StageContext) -> None:
    """List the rows of the round that are not to be trained on in ``selection.jsonl``.

    Raises:
        DataError: a row of the round is damaged.
    """
    directory, began = context.directory, time.monotonic()
    figures = directory.world.on_main(lambda: _select(context))
    directory.finish("selection", time.monotonic() - began, **figures)


def select(
    candidates: Sequence[Candidate], config: SelectConfig, tokenizer: TokenizerName
) -> list[LeftOutRow]:
    """The rows that are left out, best first; all others are taken.

    Args:
        candidates: the rows of a round.
        config: weights, budget and how close two taken rows may be.
        tokenizer: of ROUGE-L.
    """
    totals = weighted(candidates, config.by)
    # Of equals the earliest, as everywhere.
    order = sorted(range(len(candidates)), key=lambda place: -totals[place])
    budget = _budget(config.keep, len(candidates))
    taken, left_out = 0, []
    index = NoveltyIndex(threshold=config.diversity or 0.0, tokenizer=tokenizer)
    texts: dict[str, str] = {}
    for place in order:
        candidate, score = candidates[place], totals[place]
        if taken == budget:
            left_out.append(LeftOutRow(id=candidate.id, reason="over_budget", score=score))
            continue
        if config.diversity is not None:
            (found,) = index.decide([(candidate.id, candidate.instruction)])
            if found.nearest is not None:
                near = found.nearest
                left_out.append(
                    LeftOutRow(
                        id=candidate.id,
                        reason="too_close",
                        score=score,
                        nearest=Neighbour(id=near.id, instruction=texts[near.id], score=near.score),
                    )
                )
                continue
            texts[candidate.id] = candidate.instruction
        taken += 1
    return left_out


def weighted(candidates: Sequence[Candidate], weights: ScoreWeights) -> list[float]:
    """Weighted sum of each row's standardised scores; one that is missing counts as the mean."""
    total = np.zeros(len(candidates))
    for name in weights.asked:
        found = [getattr(candidate.scores, name) for candidate in candidates]
        values = np.array([np.nan if score is None else score for score in found], dtype=float)
        known = ~np.isnan(values)
        if not known.any() or not (spread := values[known].std()) > 0:
            continue
        standardised = (values - values[known].mean()) / spread
        total += getattr(weights, name) * np.where(known, standardised, 0.0)
    return [round(float(score), _DIGITS) for score in total]


def _budget(keep: int | float | None, rows: int) -> int:
    match keep:
        case None:
            return rows
        case float():
            # A float may fall short of the whole number that it stands for.
            return max(1, int(keep * rows + 1e-9))
        case _:
            return keep


def _select(context: StageContext) -> dict[str, int]:
    directory = context.directory
    instances = directory.store(directory.instances, GeneratedInstance).stream()
    scores = directory.store(directory.scores, RowScores).stream()
    candidates = list(_candidates(context, instances, scores))
    left_out = select(candidates, context.config.generation.select, context.tokenizer)
    text = "".join(row.model_dump_json() + "\n" for row in left_out)
    write_atomically(directory.selection, text)
    reasons = Counter(row.reason for row in left_out)
    return {
        "rows": len(candidates),
        "taken": len(candidates) - len(left_out),
        "too_close": reasons["too_close"],
        "over_budget": reasons["over_budget"],
    }


def _candidates(
    context: StageContext, instances: Iterable[GeneratedInstance], scores: Iterable[RowScores]
) -> Iterable[Candidate]:
    for row, scored in zip(instances, scores, strict=True):
        if row.id != scored.id:
            raise DataError(
                f"{context.directory.scores}: has '{scored.id}' in place of '{row.id}'; make it "
                "again by adding --redo scores to the command"
            )
        yield Candidate(row.id, row.instruction, scored)
