"""The live rows of a run: what was written, less what was pruned, left out or rolled back."""

from __future__ import annotations

from collections.abc import Iterator

from selfinstruct_train.records import GeneratedInstance, Instruction, LeftOutRow, Row
from selfinstruct_train.run.decisions import is_rolled_back
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.stores import RowStore


class Pruned(Row):
    """A line of pruned.jsonl: a row that is live no more."""

    id: str
    """Of an instruction, and then with all its instances, or of one instance."""
    reason: str = ""


class LiveRows:
    """The rows that training, the next round, reports and exports read."""

    def __init__(self, run: RunDirectory) -> None:
        """Read what was pruned.

        Raises:
            DataError: pruned.jsonl is damaged.
        """
        self._run = run
        store = RowStore(run.pruned, Pruned, writable=False)
        self.pruned = frozenset(row.id for row in store.stream())

    def instructions(self, rounds: int) -> Iterator[Instruction]:
        """Those of the first rounds, in the order in which they were written."""
        for directory in self._live(rounds):
            yield from self.instructions_of(directory)

    def instances(self, rounds: int) -> Iterator[GeneratedInstance]:
        """Those of the first rounds, in the order in which they were written."""
        for directory in self._live(rounds):
            yield from self.instances_of(directory)

    def trained_on(self, number: int) -> Iterator[GeneratedInstance]:
        """Those that a round is trained on: of live rounds before it, and always its own."""
        yield from self.instances(number)
        yield from self.instances_of(self._run.round(number))

    def last_live(self, rounds: int) -> RoundDirectory | None:
        """The last of the first rounds that is not rolled back; None where all are."""
        return next(iter([*self._live(rounds)][::-1]), None)

    def instructions_of(self, directory: RoundDirectory) -> Iterator[Instruction]:
        """Those of one round that were not pruned."""
        for row in RowStore(directory.instructions, Instruction, writable=False).stream():
            if row.id not in self.pruned:
                yield row

    def instances_of(self, directory: RoundDirectory) -> Iterator[GeneratedInstance]:
        """Those of one round that were neither pruned nor left out by the selection."""
        selection = RowStore(directory.selection, LeftOutRow, writable=False)
        left_out = {row.id for row in selection.stream()}
        for row in RowStore(directory.instances, GeneratedInstance, writable=False).stream():
            if row.id not in left_out and self.pruned.isdisjoint((row.id, row.instruction_id)):
                yield row

    def _live(self, rounds: int) -> Iterator[RoundDirectory]:
        for number in range(rounds):
            directory = self._run.round(number)
            if not is_rolled_back(directory.decision):
                yield directory
