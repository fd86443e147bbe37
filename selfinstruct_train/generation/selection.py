"""Which rows of a round are worth training on: the best by their scores, none close to a better.

The rule is DEITA's (arXiv 2312.15685): rows are gone through best first, and one is passed over
whose nearest neighbour among those already taken is too close. Closeness is ROUGE-L F1 between
instructions, exactly as for novelty, or the cosine of their mean hidden states, or both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    candidates: Sequence[Candidate],
    config: SelectConfig,
    tokenizer: TokenizerName,
    meanings: NDArray[np.float32] | None = None,
) -> list[LeftOutRow]:
    """The rows that are left out, best first; all others are taken.

    Args:
        candidates: the rows of a round.
        config: weights, budget and how close two taken rows may be.
        tokenizer: of ROUGE-L.
        meanings: (candidates, hidden size) `mean_hidden_states` of the instructions, where the
            config holds them against each other.
    """
    totals = weighted(candidates, config.by)
    # Of equals the earliest, as everywhere.
    order = sorted(range(len(candidates)), key=lambda place: -totals[place])
    budget = _budget(config.keep, len(candidates))
    taken, left_out = _Taken(candidates, config, tokenizer, meanings), []
    for place in order:
        row = LeftOutRow(id=candidates[place].id, reason="over_budget", score=totals[place])
        if taken.count == budget:
            left_out.append(row)
        elif (bar := taken.take(place)) is not None:
            left_out.append(row.model_copy(update={"reason": bar.reason, "nearest": bar.nearest}))
    return left_out


class _Bar(NamedTuple):
    """Why a row may not be taken beside one that is."""

    reason: Literal["too_close", "same_meaning"]
    nearest: Neighbour


class _Taken:
    """The rows that are taken so far."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        config: SelectConfig,
        tokenizer: TokenizerName,
        meanings: NDArray[np.float32] | None,
    ) -> None:
        self._candidates, self._config = candidates, config
        self._texts: dict[str, str] = {}
        self._index = NoveltyIndex(threshold=config.diversity or 0.0, tokenizer=tokenizer)
        self._meanings = None if meanings is None else _directions(meanings)
        self._places: list[int] = []

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self._places)

    def take(self, place: int) -> _Bar | None:
        """Take a candidate, unless one that is taken bars it."""
        # Words come last, for what they let pass is in their index.
        bar = self._barred_by_meaning(place) or self._barred_by_words(place)
        if bar is None:
            candidate = self._candidates[place]
            self._texts[candidate.id] = candidate.instruction
            self._places.append(place)
        return bar

    def _barred_by_meaning(self, place: int) -> _Bar | None:
        limit = self._config.meaning
        if limit is None or self._meanings is None or not self._places:
            return None
        cosines = self._meanings[self._places] @ self._meanings[place]
        nearest = int(np.argmax(cosines))
        cosine = round(float(cosines[nearest]), _DIGITS)
        if cosine <= limit:
            return None
        other = self._candidates[self._places[nearest]]
        near = Neighbour(id=other.id, instruction=other.instruction, score=cosine)
        return _Bar("same_meaning", near)

    def _barred_by_words(self, place: int) -> _Bar | None:
        if self._config.diversity is None:
            return None
        candidate = self._candidates[place]
        (found,) = self._index.decide([(candidate.id, candidate.instruction)])
        if (near := found.nearest) is None:
            return None
        text = self._texts[near.id]
        return _Bar("too_close", Neighbour(id=near.id, instruction=text, score=near.score))


def _directions(meanings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of length 1, standardised over the rows: else a few numbers that differ most decide all."""
    wide = meanings.astype(np.float64)
    spread = wide.std(axis=0)
    apart = (wide - wide.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    directions: NDArray[np.float64] = apart / np.where(lengths > 0, lengths, 1.0)
    return directions


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
    config = context.config.generation.select
    meanings = None if config.meaning is None else _meanings(context, candidates)
    left_out = select(candidates, config, context.tokenizer, meanings)
    text = "".join(row.model_dump_json() + "\n" for row in left_out)
    write_atomically(directory.selection, text)
    reasons = Counter(row.reason for row in left_out)
    return {
        "rows": len(candidates),
        "taken": len(candidates) - len(left_out),
        "too_close": reasons["too_close"],
        **({} if meanings is None else {"same_meaning": reasons["same_meaning"]}),
        "over_budget": reasons["over_budget"],
    }


def _meanings(context: StageContext, candidates: Sequence[Candidate]) -> NDArray[np.float32]:
    """Of each candidate's instruction, which several may have."""
    assert context.meanings is not None
    places: dict[str, int] = {}
    for candidate in candidates:
        places.setdefault(candidate.instruction, len(places))
    found = context.meanings(list(places))
    return found[[places[candidate.instruction] for candidate in candidates]]


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
