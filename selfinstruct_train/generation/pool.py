"""The task pool: seed tasks and accepted instructions, from which demonstrations are drawn."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_train.config import FilterConfig
from selfinstruct_train.records import Instruction, Neighbour, SeedTask
from selfinstruct_train.text.novelty import NoveltyIndex


class Entry(NamedTuple):
    """One instruction of the pool."""

    id: str
    instruction: str


class Candidate(NamedTuple):
    """An instruction that asks to join."""

    id: str
    instruction: str


class Admission(NamedTuple):
    """What became of a candidate."""

    accepted: bool
    nearest: Neighbour | None
    mean_similarity: float
    nearest_seed: Neighbour | None


class Pool:
    """Seed tasks and machine-written instructions, with the novelty test over both."""

    def __init__(self, seeds: Sequence[SeedTask], config: FilterConfig) -> None:
        self.seeds = tuple(Entry(task.id, task.instruction) for task in seeds)
        self.machine: list[Entry] = []
        self._text = {entry.id: entry.instruction for entry in self.seeds}
        self._all = NoveltyIndex(threshold=config.novelty_threshold, tokenizer=config.tokenizer)
        self._seeds = NoveltyIndex(threshold=config.novelty_threshold, tokenizer=config.tokenizer)
        self._all.extend(self.seeds)
        self._seeds.extend(self.seeds)

    def extend(self, instructions: Sequence[Instruction]) -> None:
        """Take in instructions that an earlier round admitted."""
        for row in instructions:
            self._join(row.id, row.instruction)
            self._all.add(row.id, row.instruction)

    def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        """Resolve candidates in order; those that are new join the pool."""
        verdicts = self._all.admit(candidates)
        by_seed = self._seeds.search([c.instruction for c in candidates], k=1)
        admissions = []
        for candidate, verdict, seed in zip(candidates, verdicts, by_seed, strict=True):
            if verdict.accepted:
                self._join(candidate.id, candidate.instruction)
            nearest_seed = seed.nearest[0] if seed.nearest else None
            admissions.append(
                Admission(
                    verdict.accepted,
                    self._neighbour(verdict.nearest_id, verdict.score),
                    verdict.mean,
                    self._neighbour(nearest_seed.id, nearest_seed.score) if nearest_seed else None,
                )
            )
        return admissions

    def demonstrations(self, rng: random.Random, seeds: int, machine: int) -> list[Entry]:
        """Draw demonstrations in random order; seeds stand in for missing machine-written ones."""
        written = rng.sample(self.machine, min(machine, len(self.machine)))
        missing = machine - len(written)
        shown = rng.sample(self.seeds, min(seeds + missing, len(self.seeds))) + written
        rng.shuffle(shown)
        return shown

    def _join(self, row_id: str, instruction: str) -> None:
        self.machine.append(Entry(row_id, instruction))
        self._text[row_id] = instruction

    def _neighbour(self, row_id: str | None, score: float) -> Neighbour | None:
        if row_id is None:
            return None
        return Neighbour(id=row_id, instruction=self._text[row_id], score=round(score, 6))


def derived_rng(*parts: object) -> random.Random:
    """A random generator that follows from its parts alone, on every machine."""
    return random.Random(derived_seed(*parts))


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that follows from its parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
