"""What is counted over all rows of a round as they stream by: no large run is held whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfinstruct_train.records import Classified, GeneratedInstance, Instruction, Rejection
from selfinstruct_train.text.words import Units, length

_PER_REASON = 20


class DropReason(NamedTuple):
    """Why a stage dropped rows."""

    stage: str
    reason: str


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
        self.instruction_length = 0
        self.input_length = 0
        self.output_length = 0
        self.candidates: Counter[str] = Counter()
        """Instruction candidates by the request that wrote them."""
        self.accepted: Counter[str] = Counter()
        """Those that joined the pool."""
        self.dropped: Counter[DropReason] = Counter()

    def count_instructions(self, rows: Iterable[Instruction]) -> Iterator[Instruction]:
        """Count accepted instructions."""
        for row in rows:
            if self.instructions % self.stride == 0:
                yield row
            self.instructions += 1
            self.instruction_length += length(row.instruction, self._units)
            self.candidates[row.provenance.request] += 1
            self.accepted[row.provenance.request] += 1

    def count_rejections(self, rows: Iterable[Rejection]) -> Iterator[Rejection]:
        """Count what was dropped; the first rows of each reason are shown whatever the stride."""
        for number, row in enumerate(rows):
            reason = DropReason(row.stage, row.reason)
            self.dropped[reason] += 1
            if number % self.stride == 0 or self.dropped[reason] <= _PER_REASON:
                yield row
            if row.stage == "instruction" and row.provenance is not None:
                self.candidates[row.provenance.request] += 1

    def count_classified(self, rows: Iterable[Classified]) -> None:
        """Count the kinds of tasks."""
        for row in rows:
            self.classified += 1
            self.classification += row.is_classification

    def count_instances(self, rows: Iterable[GeneratedInstance]) -> Iterator[GeneratedInstance]:
        """Count kept instances."""
        for row in rows:
            if self.instances % self.stride == 0:
                yield row
            self.instances += 1
            self.empty_inputs += not row.input.strip()
            self.input_length += length(row.input, self._units)
            self.output_length += length(row.output, self._units)
