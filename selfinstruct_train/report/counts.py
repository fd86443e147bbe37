"""What is counted over all rows of a round as they stream by: no large run is held whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfinstruct_train.records import (
    Classified,
    GeneratedInstance,
    Instruction,
    Labelled,
    LeftOutRow,
    Provenance,
    Rejection,
)
from selfinstruct_train.text.words import Units, length

_PER_REASON = 20


class DropReason(NamedTuple):
    """Why a stage dropped rows."""

    stage: str
    reason: str


class Trait(NamedTuple):
    """Something that tells requests of step 1 apart."""

    name: str
    """Of an attribute, or ``operation``."""
    value: str


class TraitYield(NamedTuple):
    """What came of the requests with a trait."""

    trait: Trait
    candidates: int
    """Instructions that they wrote."""
    kept: int


class RoundCounts:
    """Counts over all rows of one round; each method passes on the rows that the report shows.

    Args:
        stride: one row in so many is shown.
        units: what lengths are counted in.
    """

    def __init__(self, stride: int, units: Units) -> None:
        self.stride = stride
        self._units = units
        self.instructions = 0
        self.instances = 0
        self.classified = 0
        self.classification = 0
        """Instructions that were found to be classification tasks."""
        self.empty_inputs = 0
        """Instances without an input."""
        self.of_texts = 0
        """Instances that were written for passages of the user's own texts."""
        self.instruction_length = 0
        self.input_length = 0
        self.output_length = 0
        self.candidates: Counter[str] = Counter()
        """Instruction candidates by the request that wrote them."""
        self.accepted: Counter[str] = Counter()
        """Those that joined the pool."""
        self.dropped: Counter[DropReason] = Counter()
        self.written_by: Counter[Trait] = Counter()
        """Instruction candidates by operation and attribute of their requests."""
        self.kept_by: Counter[Trait] = Counter()
        """Those that joined the pool."""
        self.labels: Counter[Trait] = Counter()
        """Instructions by category and by task type, and by those that the model says."""

    def count_instructions(self, rows: Iterable[Instruction]) -> Iterator[Instruction]:
        """Count accepted instructions."""
        for row in rows:
            if self.instructions % self.stride == 0:
                yield row
            self.instructions += 1
            self.instruction_length += length(row.instruction, self._units)
            self.candidates[row.provenance.request] += 1
            self.accepted[row.provenance.request] += 1
            self._count_labels(row, "")
            found = _traits(row.provenance)
            self.written_by.update(found)
            self.kept_by.update(found)

    def count_rejections(self, rows: Iterable[Rejection]) -> Iterator[Rejection]:
        """Count what was dropped; the first rows of each reason are shown whatever the stride."""
        for number, row in enumerate(rows):
            reason = DropReason(row.stage, row.reason)
            self.dropped[reason] += 1
            if number % self.stride == 0 or self.dropped[reason] <= _PER_REASON:
                yield row
            if row.stage == "instruction" and row.provenance is not None:
                self.candidates[row.provenance.request] += 1
                self.written_by.update(_traits(row.provenance))

    def count_classified(self, rows: Iterable[Classified]) -> None:
        """Count the kinds of tasks."""
        for row in rows:
            self.classified += 1
            self.classification += row.is_classification

    def count_left_out(self, rows: Iterable[LeftOutRow]) -> None:
        """Count what the selection left out."""
        self.dropped.update(DropReason("selection", row.reason) for row in rows)

    def count_labelled(self, rows: Iterable[Labelled]) -> None:
        """Count the model's own labels."""
        for row in rows:
            self._count_labels(row, ", by the model")

    def _count_labels(self, row: Instruction | Labelled, source: str) -> None:
        for name, value in (("category", row.category), ("task type", row.task_type)):
            if value is not None:
                self.labels[Trait(name + source, value)] += 1

    def count_instances(self, rows: Iterable[GeneratedInstance]) -> Iterator[GeneratedInstance]:
        """Count kept instances."""
        for row in rows:
            if self.instances % self.stride == 0:
                yield row
            self.instances += 1
            self.empty_inputs += not row.input.strip()
            self.of_texts += row.provenance.passage is not None
            self.input_length += length(row.input, self._units)
            self.output_length += length(row.output, self._units)


def trait_yields(rounds: Iterable[RoundCounts]) -> list[TraitYield]:
    """Yield by operation and attribute, as far as requests differ in it; most candidates first."""
    written: Counter[Trait] = Counter()
    kept: Counter[Trait] = Counter()
    for counts in rounds:
        written += counts.written_by
        kept += counts.kept_by
    values = Counter(trait.name for trait in written)
    found = sorted(written.items(), key=lambda item: (item[0].name, -item[1], item[0].value))
    return [TraitYield(trait, n, kept[trait]) for trait, n in found if values[trait.name] > 1]


def _traits(made: Provenance) -> list[Trait]:
    found = [Trait(one.name, one.value) for one in made.attributes]
    return [*found, Trait("operation", made.operation or "none: continues a list")]
