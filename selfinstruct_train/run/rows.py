"""The live rows of a run: what was written, less what was pruned or rolled back."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from selfinstruct_train.records import GeneratedInstance, Instruction, Row
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.stores import RowStore, read_json


class Pruned(Row):
    """A line of pruned.jsonl: a row that is live no more."""

    id: str
    """Of an instruction, and then with all its instances, or of one instance."""
    reason: str = ""


class _Decision(BaseModel):
    """What is read here of a round's decision.json."""

    model_config = ConfigDict(extra="ignore")

    rolled_back: bool = False


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

    def instructions_of(self, directory: RoundDirectory) -> Iterator[Instruction]:
        """Those of one round that were not pruned."""
        for row in RowStore(directory.instructions, Instruction, writable=False).stream():
            if row.id not in self.pruned:
                yield row

    def instances_of(self, directory: RoundDirectory) -> Iterator[GeneratedInstance]:
        """Those of one round that were not pruned."""
        for row in RowStore(directory.instances, GeneratedInstance, writable=False).stream():
            if self.pruned.isdisjoint((row.id, row.instruction_id)):
                yield row

    def _live(self, rounds: int) -> Iterator[RoundDirectory]:
        for number in range(rounds):
            directory = self._run.round(number)
            if not _is_rolled_back(directory):
                yield directory


def _is_rolled_back(directory: RoundDirectory) -> bool:
    if not directory.decision.exists():
        return False
    return read_json(directory.decision, _Decision, "restore the file").rolled_back
