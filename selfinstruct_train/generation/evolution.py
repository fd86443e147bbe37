"""Does what was made of an instruction ask for anything else? By its answers (arXiv 2304.12244).

Where an operation of the pack is to change the answer, an instance whose answer to the same input
is one of the parent's shows that it did not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from selfinstruct_train.generation.filters import FilterResult
from selfinstruct_train.packs.operations import Operations
from selfinstruct_train.records import GeneratedInstance, Instance, Provenance, SeedTask
from selfinstruct_train.text.words import normalised


def evolved_from(made: Provenance, operations: Operations) -> str | None:
    """Id of the instruction that an answer must differ from; None where it need not."""
    name = (made.operation or "").partition(":")[0]
    changes = name in operations and operations[name].answer_changes
    return made.demonstrations[0] if changes else None


class ParentAnswers:
    """The answers of everything that an instruction may have been made of.

    Args:
        seeds: the human-written tasks.
        instances: of earlier rounds.
    """

    def __init__(
        self, seeds: Sequence[SeedTask], instances: Iterable[GeneratedInstance] = ()
    ) -> None:
        # Hashes, for the texts of a large run would fill the memory.
        self._answers: defaultdict[str, set[int]] = defaultdict(set)
        for task in seeds:
            self._answers[task.id].update(map(_said, task.instances))
        self.learn(instances)

    def learn(self, instances: Iterable[GeneratedInstance]) -> None:
        """Take in instances that were kept."""
        for row in instances:
            said = _said(Instance(input=row.input, output=row.output))
            self._answers[row.instruction_id].add(said)

    def fault(self, parent: str, instance: Instance) -> FilterResult | None:
        """Whether an instance of an evolved instruction has the parent's answer."""
        if _said(instance) not in self._answers.get(parent, ()):
            return None
        return FilterResult("answer_unchanged", f"{parent} has the same answer to this input")


def _said(instance: Instance) -> int:
    return hash((normalised(instance.input), normalised(instance.output)))
