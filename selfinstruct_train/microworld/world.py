"""The grammar of the microworld: families of tasks, their wordings, contexts and answer modifiers.

An instruction of the microworld is ``[context ]core[ modifier]``. The core is a wording of one
family with its slots filled; the context says for whom or why; the modifier says how to dress the
answer. Every part can be parsed back, so that an oracle can judge an answer to any instruction of
the world.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

Slots = Mapping[str, str]


def no_input(rng: random.Random, slots: Slots) -> str:
    """The input sampler of a family whose instruction says it all."""
    return ""


@dataclass(frozen=True)
class Family:
    """One kind of task that the microworld knows."""

    name: str
    """Unique, snake_case."""
    group: str
    """Theme of the family: the application under which an evaluation reports it."""
    wordings: tuple[str, ...]
    """Ways to ask for it, with ``{slot}`` fields. The last two are reserved: never in
    pretraining."""
    answers: Callable[[Slots, str], tuple[str, ...]]
    """(slots, input) -> every right answer, the best first; empty if the input makes no sense
    here."""
    sample_input: Callable[[random.Random, Slots], str] = no_input
    """Draws an input for the given slots; an empty string where the family takes none."""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Slot name -> the words that may fill it."""
    labels: Callable[[Slots], tuple[str, ...]] | None = None
    """For a classification family, the finite label set, given the slots; None otherwise."""
    sentences: Callable[[random.Random, Slots, str, str], str] | None = None
    """(rng, slots, input, answer) -> a plain sentence or drill line that states the fact or shows
    the skill."""
    distinct: tuple[tuple[str, str], ...] = ()
    """Pairs of slots that must not be filled with the same word."""
    reserved: bool = False
    """Never asked in pretraining or seeds; met only by the evaluation and the model's own wit."""
    weight: float = 1.0
    """How often pretraining shows it relative to the others (hard skills need more)."""

    @property
    def is_classification(self) -> bool:
        """Whether the answers form a small closed set of labels."""
        return self.labels is not None

    def sample_slots(self, rng: random.Random) -> dict[str, str]:
        """Fill every slot, keeping the pairs in ``distinct`` apart."""
        while True:
            slots = {name: rng.choice(words) for name, words in self.slots.items()}
            if all(slots[a] != slots[b] for a, b in self.distinct):
                return slots

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """One pattern per wording, with a named group per slot."""
        return tuple(_wording_pattern(wording, self.slots) for wording in self.wordings)

    def parse_core(self, core: str) -> tuple[int, dict[str, str]] | None:
        """Index of the wording that ``core`` is, and its slots; None if not of this family."""
        for index, pattern in enumerate(self.patterns):
            if match := pattern.fullmatch(core):
                slots = match.groupdict()
                if all(slots[a] != slots[b] for a, b in self.distinct):
                    return index, slots
        return None


class Problem(NamedTuple):
    """One concrete question: a family, its slots and an input."""

    family: Family
    slots: dict[str, str]
    input: str


def _wording_pattern(wording: str, slots: Mapping[str, tuple[str, ...]]) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", wording)
    out = [re.escape(parts[0])]
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        words = "|".join(re.escape(w) for w in sorted(slots[name], key=len, reverse=True))
        out.append(f"(?P<{name}>{words})" + re.escape(literal))
    return re.compile("".join(out))


def split_of(family: str, slots: Slots, input_text: str) -> str:
    """The split of a problem, by a hash of its content: test, dev, seed or pretraining.

    Wording, context and modifier play no part: a problem of the test split is never seen in
    pretraining in any dress.
    """
    key = "\x1f".join(
        [family, *(f"{k}={slots[k]}" for k in sorted(slots)), input_text.strip().lower()]
    )
    bucket = hashlib.sha256(key.encode()).digest()[0] % 16
    return {0: "test", 1: "test", 2: "dev", 3: "dev", 4: "seed"}.get(bucket, "pretraining")
