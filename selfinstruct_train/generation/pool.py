"""The task pool: seed tasks and accepted instructions, from which demonstrations are drawn."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfinstruct_train.config.generation import DemonstrationSampling
from selfinstruct_train.records import Instruction, Neighbour, SeedTask
from selfinstruct_train.text.novelty import NoveltyIndex, SearchResult
from selfinstruct_train.text.words import TokenizerName

_FEWEST = 4
"""Demonstrations below which those of a group are filled up: of one or two a model copies."""
_ALL_SCORED = 10_000
_COST_OF_SCORES = 1_000


class Group(NamedTuple):
    """What tasks have in common by their labels; None where a task has no such label."""

    category: str | None = None
    task_type: str | None = None

    @classmethod
    def of_most(cls, entries: Sequence[Entry]) -> Group:
        """The labels that more than half of some tasks have."""
        return cls(
            _of_most([entry.group.category for entry in entries]),
            _of_most([entry.group.task_type for entry in entries]),
        )


UNLABELLED = Group()


class Entry(NamedTuple):
    """One instruction of the pool."""

    id: str
    instruction: str
    group: Group = UNLABELLED
    parent: str | None = None
    """Id of the instruction it was made of, where its answer must differ from that one's."""


class Candidate(NamedTuple):
    """An instruction that asks to join."""

    id: str
    instruction: str
    group: Group = UNLABELLED
    operation: str | None = None
    """The operation that made it of another; None where it was written in a list."""


class Admission(NamedTuple):
    """What became of a candidate."""

    accepted: bool
    nearest: Neighbour | None
    """Known of all that were rejected, and of those accepted that `is_scored` picks."""
    mean_similarity: float | None
    """Known of those accepted that `is_scored` picks."""
    nearest_seed: Neighbour | None
    """Known of all that were accepted."""


class Pool:
    """Seed tasks and machine-written instructions, with the novelty test over both.

    Args:
        seeds: the human-written tasks.
        tokenizer: compares instructions.
        threshold: highest ROUGE-L F1 that is still new, 0 to 1.
        sampling: which tasks are shown together; see `demonstrations`.
    """

    def __init__(
        self,
        seeds: Sequence[SeedTask],
        tokenizer: TokenizerName,
        threshold: float,
        sampling: DemonstrationSampling = "uniform",
    ) -> None:
        self.seeds = tuple(
            Entry(task.id, task.instruction, Group(task.category, task.task_type)) for task in seeds
        )
        self.machine: list[Entry] = []
        self._first_hand = list(self.seeds)
        self._sampling = sampling
        found = dict.fromkeys(entry.group for entry in self.seeds)
        self._groups = [group for group in found if group != UNLABELLED]
        self._sizes = Counter(entry.group for entry in self.seeds)
        self._under_way: Counter[Group] = Counter()
        self._text = {entry.id: entry.instruction for entry in self.seeds}
        self.tokenizer = tokenizer
        self._all = NoveltyIndex(threshold=threshold, tokenizer=tokenizer)
        self._seeds = NoveltyIndex(threshold=threshold, tokenizer=tokenizer)
        rows = [(entry.id, entry.instruction) for entry in self.seeds]
        self._all.extend(rows)
        self._seeds.extend(rows)

    def extend(self, instructions: Iterable[Instruction]) -> None:
        """Take in instructions that an earlier round admitted."""
        for row in instructions:
            group, operation = Group(row.category, row.task_type), row.provenance.operation
            self._join(Candidate(row.id, row.instruction, group, operation))
            self._all.add(row.id, row.instruction)

    def bar(self, shown: Iterable[tuple[str, str]]) -> None:
        """Take in texts, with names, that no instruction may copy, though none of them is a task.

        Models copy what a prompt shows them.
        """
        for name, text in shown:
            self._text[name] = text
            self._all.add(name, text)

    def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        """Resolve candidates in order; those that are new join the pool.

        The decision looks at the few entries that could bar a candidate. Scores against the whole
        pool cost time with its size, so they are made only for the entries that `is_scored` picks.
        """
        self._under_way.clear()
        joined = len(self._all)
        decisions = self._all.decide([(c.id, c.instruction) for c in candidates])
        by_seed = self._seeds.search(
            [c.instruction for c, d in zip(candidates, decisions, strict=True) if d.accepted]
        )
        scored = [p for p in range(joined, len(self._all)) if is_scored(p)]
        scores = dict(zip(scored, self._all.look_back(scored), strict=True))
        admissions = []
        seeds = iter(by_seed)
        for candidate, decision in zip(candidates, decisions, strict=True):
            if decision.accepted:
                self._join(candidate)
                found = scores.get(joined)
                admission = Admission(
                    True,
                    self._nearest(found) if found else None,
                    found.mean if found else None,
                    self._nearest(next(seeds)),
                )
                joined += 1
            else:
                assert decision.nearest is not None
                admission = Admission(False, self._neighbour(*decision.nearest), None, None)
            admissions.append(admission)
        return admissions

    def demonstrations(
        self, rng: random.Random, seeds: int, machine: int, room: int = 1
    ) -> list[Entry]:
        """Draw demonstrations in random order; seeds stand in for missing machine-written ones.

        Drawn uniformly, they are of the whole pool (the paper). Otherwise they are of one group of
        tasks with the same labels, and where it has fewer than four, of others as well. The group
        is any (``balanced``) or the one that has the fewest tasks so far (``rare_first``).

        Args:
            rng: draws.
            seeds: how many seed tasks.
            machine: how many machine-written ones.
            room: instructions that the answer has room for. Requests that are asked together do not
                know of each other's answers; each counts for so many.
        """
        group = self._group(rng, room)
        own = _of_group(self.machine, group)
        written = rng.sample(own, min(machine, len(own)))
        own = _of_group(self.seeds, group)
        shown = rng.sample(own, min(seeds + machine - len(written), len(own))) + written
        if len(shown) < (least := min(_FEWEST, seeds + machine, len(self.seeds))):
            others = [entry for entry in self.seeds if entry.group != group]
            shown += rng.sample(others, min(least - len(shown), len(others)))
        rng.shuffle(shown)
        return shown

    def parent(self, rng: random.Random) -> Entry:
        """Draw what an operation is done to: a seed task, or what was written in a list.

        What an operation made is not made into something else again, lest errors grow.
        """
        group = self._group(rng, 1)
        return rng.choice(_of_group(self._first_hand, group))

    def _group(self, rng: random.Random, room: int) -> Group | None:
        """The group whose tasks are drawn; None where they are drawn from all."""
        if self._sampling == "uniform" or not self._groups:
            return None
        if self._sampling == "balanced":
            return rng.choice(self._groups)
        # Of equally small ones the first by the seeds' order.
        rarest = min(self._groups, key=lambda group: self._sizes[group] + self._under_way[group])
        self._under_way[rarest] += room
        return rarest

    def _join(self, new: Candidate) -> None:
        entry = Entry(new.id, new.instruction, new.group)
        self.machine.append(entry)
        self._sizes[new.group] += 1
        if new.operation is None:
            self._first_hand.append(entry)
        self._text[new.id] = new.instruction

    def _nearest(self, found: SearchResult) -> Neighbour | None:
        return self._neighbour(*found.nearest[0]) if found.nearest else None

    def _neighbour(self, row_id: str, score: float) -> Neighbour:
        return Neighbour(id=row_id, instruction=self._text[row_id], score=round(score, 6))


def _of_group(entries: Sequence[Entry], group: Group | None) -> Sequence[Entry]:
    return entries if group is None else [entry for entry in entries if entry.group == group]


def _of_most(labels: Sequence[str | None]) -> str | None:
    ((label, times),) = Counter(labels).most_common(1) or [(None, 0)]
    return label if 2 * times > len(labels) else None


def is_scored(entries: int) -> bool:
    """Whether an instruction is compared with the whole pool when it joins so many entries.

    All are while the pool is below 10,000; from there on so few, evenly spread, that one costs on
    average what a pool of 1,000 would.
    """
    return entries < _ALL_SCORED or entries % (entries // _COST_OF_SCORES) == 0


def derived_rng(*parts: object) -> random.Random:
    """A random generator that follows from its parts alone, on every machine."""
    return random.Random(derived_seed(*parts))


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that follows from its parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
