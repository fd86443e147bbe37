"""Own rows as rows to train on, and how many of each kind a training is given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from string import Formatter

from selfinstruct_train.config import MixConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.packs.pack import AnswerFormat
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.sources.lenient import OwnRow

_KINDS = {"own": "own", "seed": "seeds", "generated": "generated"}
"""Source of a row -> its name in ``training.mix``."""


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
    weights = {kind: getattr(mix, name) for kind, name in _KINDS.items()}
    counts = {kind: sum(row.source == kind for row in rows) for kind in _KINDS}
    for kind, weight in weights.items():
        if weight and not counts[kind]:
            raise DataError(
                f"training.mix.{_KINDS[kind]} is {weight:g}, but there is no such row to train on; "
                "set it to 0"
            )
    unit = min(counts[kind] / weight for kind, weight in weights.items() if weight)
    kept: set[str] = set()
    for kind, weight in weights.items():
        ids = sorted((row.id for row in rows if row.source == kind), key=lambda i: _rank(seed, i))
        kept.update(ids[: max(1, round(unit * weight)) if weight else 0])
    return [row for row in rows if row.id in kept]


def _rank(seed: int, row_id: str) -> str:
    return hashlib.sha256(f"{seed}:{row_id}".encode()).hexdigest()


def _pattern(template: str) -> str:
    # Labels of an official prompt stand as they do in the templates, line ends aside.
    return "".join(
        re.escape(text) + (f"(?P<{field}>.+?)" if field is not None else "")
        for text, field, _, _ in Formatter().parse(template)
    )
