"""The task pool: seed tasks and accepted instructions, from which demonstrations are drawn."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfinstruct_train.records import Instruction, Neighbour, SeedTask
from selfinstruct_train.text.novelty import NoveltyIndex, SearchResult
from selfinstruct_train.text.words import TokenizerName

_ALL_SCORED = 10_000
_COST_OF_SCORES = 1_000


class Entry(NamedTuple):
    """One instruction of the pool."""

    id: str
    instruction: str


class Candidate(NamedTuple):
    """An instruction that asks to join."""

    id: str
    instruction: str
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
    """

    def __init__(
        self, seeds: Sequence[SeedTask], tokenizer: TokenizerName, threshold: float
    ) -> None:
        self.seeds = tuple(Entry(task.id, task.instruction) for task in seeds)
        self.machine: list[Entry] = []
        self.first_hand = list(self.seeds)
        """Seed tasks and what was written in lists: what operations are done to."""
        self._text = {entry.id: entry.instruction for entry in self.seeds}
        self.tokenizer = tokenizer
        self._all = NoveltyIndex(threshold=threshold, tokenizer=tokenizer)
        self._seeds = NoveltyIndex(threshold=threshold, tokenizer=tokenizer)
        self._all.extend(self.seeds)
        self._seeds.extend(self.seeds)

    def extend(self, instructions: Iterable[Instruction]) -> None:
        """Take in instructions that an earlier round admitted."""
        for row in instructions:
            self._join(Candidate(row.id, row.instruction, row.provenance.operation))
            self._all.add(row.id, row.instruction)

    def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        """Resolve candidates in order; those that are new join the pool.

        The decision looks at the few entries that could bar a candidate. Scores against the whole
        pool cost time with its size, so they are made only for the entries that `is_scored` picks.
        """
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

    def demonstrations(self, rng: random.Random, seeds: int, machine: int) -> list[Entry]:
        """Draw demonstrations in random order; seeds stand in for missing machine-written ones."""
        written = rng.sample(self.machine, min(machine, len(self.machine)))
        missing = machine - len(written)
        shown = rng.sample(self.seeds, min(seeds + missing, len(self.seeds))) + written
        rng.shuffle(shown)
        return shown

    def _join(self, new: Candidate) -> None:
        entry = Entry(new.id, new.instruction)
        self.machine.append(entry)
        if new.operation is None:
            self.first_hand.append(entry)
        self._text[new.id] = new.instruction

    def _nearest(self, found: SearchResult) -> Neighbour | None:
        return self._neighbour(*found.nearest[0]) if found.nearest else None

    def _neighbour(self, row_id: str, score: float) -> Neighbour:
        return Neighbour(id=row_id, instruction=self._text[row_id], score=round(score, 6))


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
