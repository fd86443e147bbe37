"""Own rows as rows to train on, and how many of each kind a training is given."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from string import Formatter
from typing import TypeVar

from selfinstruct_train.config import MixConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.sources.lenient import OwnRow
from selfinstruct_train.text.words import count_words

_KINDS = {"own": "own", "seed": "seeds", "generated": "generated"}
"""Source of a row that is mixed -> its name in ``training.mix``; replay is made to measure."""
ItemT = TypeVar("ItemT")


def own_training_rows(rows: Iterable[OwnRow], answers: AnswerFormat) -> list[TrainingRow]:
    """Own rows as rows to train on.

    A prompt that is worded as one of the pack's templates is taken apart, so that it is not put
    into a template twice.
    """
    patterns = [
        re.compile(_pattern(template), re.DOTALL)
        for encoding in answers.encodings
        for template in (encoding.with_input, encoding.without_input)
    ]
    found = []
    for number, row in enumerate(rows, 1):
        instruction, input = row.instruction, row.input
        if row.is_prompt:
            matches = (pattern.fullmatch(instruction) for pattern in patterns)
            if (match := next((m for m in matches if m), None)) is not None:
                parts = match.groupdict()
                instruction, input = parts["instruction"], parts.get("input", "")
        found.append(
            TrainingRow(
                id=f"own-{number}",
                source="own",
                instruction=instruction,
                input=input,
                output=row.output,
                is_classification=row.is_classification,
            )
        )
    return found


def mix_rows(rows: Sequence[TrainingRow], mix: MixConfig | None, seed: int) -> list[TrainingRow]:
    """As many rows as there are in the ratio that is asked for; none stands twice.

    Args:
        rows: all rows.
        mix: the ratio of the kinds; None takes all rows.
        seed: chooses which rows of a kind that has too many.

    Raises:
        DataError: a kind that is to be in it has no row.
    """
    if mix is None:
        return list(rows)
    unit = _unit(rows, mix)
    kept: set[str] = set()
    for kind, name in _KINDS.items():
        weight: float = getattr(mix, name)
        ids = ranked([row.id for row in rows if row.source == kind], seed, str)
        kept.update(ids[: max(1, round(unit * weight)) if weight else 0])
    return [row for row in rows if row.id in kept]


def replay_count(rows: Sequence[TrainingRow], mix: MixConfig | None) -> int:
    """Rows of replay that are wanted beside these, of which none is replay.

    Raises:
        DataError: as `mix_rows`.
    """
    return 0 if mix is None or not mix.replay else max(1, round(_unit(rows, mix) * mix.replay))


def ranked(items: Iterable[ItemT], seed: int, name: Callable[[ItemT], str]) -> list[ItemT]:
    """Items in an order that the seed shuffles and that a name keeps its place in."""
    return sorted(items, key=lambda item: _rank(seed, name(item)))


def _unit(rows: Sequence[TrainingRow], mix: MixConfig) -> float:
    """Rows of a kind with weight 1."""
    counts = {kind: sum(row.source == kind for row in rows) for kind in _KINDS}
    weights: dict[str, float] = {kind: getattr(mix, name) for kind, name in _KINDS.items()}
    for kind, weight in weights.items():
        if weight and not counts[kind]:
            raise DataError(
                f"training.mix.{_KINDS[kind]} is {weight:g}, but there is no such row to train on; "
                "set it to 0"
            )
    return min(counts[kind] / weight for kind, weight in weights.items() if weight)


def too_many_short(rows: Iterable[TrainingRow], share: float, seed: int) -> frozenset[int]:
    """Places of the rows of one word that are to be left out.

    Args:
        rows: all rows.
        share: largest share of the kept rows that may have an answer of one word; 1 keeps all.
        seed: chooses which.

    Raises:
        DataError: no row has a longer answer.
    """
    if share == 1.0:
        return frozenset()
    short: list[tuple[str, int]] = []
    longer = 0
    for place, row in enumerate(rows):
        if count_words(row.output) > 1:
            longer += 1
        else:
            short.append((_rank(seed, row.id), place))
    if not longer:
        raise DataError(
            f"training.short_answers is {share:g}, but every answer that could be trained on is "
            "one word; set it to 1"
        )
    room = math.floor(longer * share / (1.0 - share))
    return frozenset(place for _, place in sorted(short)[room:])


def _rank(seed: int, row_id: str) -> str:
    return hashlib.sha256(f"{seed}:{row_id}".encode()).hexdigest()


def _pattern(template: str) -> str:
    # Labels of an official prompt stand as they do in the templates, line ends aside.
    return "".join(
        re.escape(text) + (f"(?P<{field}>.+?)" if field is not None else "")
        for text, field, _, _ in Formatter().parse(template)
    )
