"""Instructions of the microworld: composing them from their parts, and reading them back."""

from __future__ import annotations

import functools
import random
import re
from collections import defaultdict
from typing import Literal, NamedTuple

from selfinstruct_train.microworld import (
    families_lists,
    families_numbers,
    families_sentences,
    families_stories,
    families_words,
)
from selfinstruct_train.microworld.dressing import Effect, Modifier, contexts, modifiers
from selfinstruct_train.microworld.world import Family, Problem, Slots, no_input, split_of

RESERVED_WORDINGS = 2
"""So many wordings at the end of each family's list are kept for the evaluation."""


class Composed(NamedTuple):
    """An instruction and the parts it was made of."""

    instruction: str
    family: Family
    wording: int
    """Index into the family's wordings."""
    slots: dict[str, str]
    context: int | None
    """Index into the world's contexts; None where there is none."""
    modifier: Modifier | None

    def answers(self, input_text: str) -> tuple[str, ...]:
        """Every right answer, dressed as asked; empty if the input makes no sense here."""
        plain = self.family.answers(self.slots, input_text.strip())
        return tuple(map(self.modifier.wrap, plain)) if self.modifier else plain


class Microworld:
    """The families, contexts and modifiers, indexed for composing and parsing."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        """Index the parts; building takes a fraction of a second, so build once."""
        self.families = families
        self.contexts = contexts()
        self.modifiers = modifiers()
        self._exact: dict[str, tuple[Family, int]] = {}
        self._by_first_word: dict[str, list[tuple[Family, int]]] = defaultdict(list)
        self._context_patterns: dict[str, list[tuple[int, re.Pattern[str]]]] = defaultdict(list)
        self._choices: dict[tuple[str, bool], list[Modifier]] = defaultdict(list)
        for family in families:
            for index, wording in enumerate(family.wordings):
                if "{" in wording:
                    self._by_first_word[_first_word(wording)].append((family, index))
                else:
                    self._exact[wording] = (family, index)
        for index, context in enumerate(self.contexts):
            key = _first_word(context.template)
            self._context_patterns[key].append((index, context.pattern))
        for modifier in self.modifiers:
            self._choices[modifier.effect, modifier.reserved].append(modifier)
        self._context_choices: dict[bool, list[int]] = {
            reserved: [i for i, c in enumerate(self.contexts) if c.reserved == reserved]
            for reserved in (False, True)
        }
        self._effects: tuple[Effect, ...] = tuple(
            dict.fromkeys(m.effect for m in self.modifiers if m.effect != "none")
        )
        self._marked = {family.name for family in families if _ends_in_own_mark(family)}

    def effects(self, family: Family) -> tuple[Effect, ...]:
        """The effects that do not contradict what the family itself asks for."""
        if family.name in self._marked:
            return tuple(e for e in self._effects if e not in ("stop", "exclaim"))
        return self._effects

    def compose(
        self,
        rng: random.Random,
        family: Family,
        *,
        reserved: Literal["never", "only", "any"] = "never",
        wording: int | None = None,
        slots: dict[str, str] | None = None,
        effects: tuple[Effect, ...] | None = None,
    ) -> Composed:
        """Draw an instruction of a family.

        Args:
            rng: the source of chance.
            family: what to ask for.
            reserved: whether wording, context and modifier come from the reserved ones.
            wording: index of the wording to use instead of a drawn one.
            slots: the slots to use instead of drawn ones.
            effects: the effects that a modifier may have; those that do not suit the family are
                left out.
        """
        held_back = {"never": (False,), "only": (True,), "any": (False, True)}[reserved]
        if wording is None:
            choices = range(len(family.wordings))
            split = len(choices) - RESERVED_WORDINGS
            wording = rng.choice([i for i in choices if (i >= split) in held_back])
        if slots is None:
            slots = family.sample_slots(rng)
        text = family.wordings[wording]
        if slots:
            text = text.format_map(slots)
        context, modifier = None, None
        if rng.random() >= 0.26:
            context = rng.choice(self._context_choices[rng.choice(held_back)])
            text = f"{self.contexts[context].fill(rng)} {text}"
        if (draw := rng.random()) < 0.65:
            allowed = [e for e in self.effects(family) if effects is None or e in effects]
            effect: Effect = "none" if draw < 0.3 else rng.choice(allowed)
            modifier = rng.choice(self._choices[effect, rng.choice(held_back)])
            text = f"{text} {modifier.text}"
        return Composed(text, family, wording, slots, context, modifier)

    def parse(self, instruction: str) -> Composed | None:
        """The parts of an instruction, reserved ones too; None if it is not of the microworld."""
        text = instruction.strip()
        # One modifier may end like another, so all that fit are tried.
        endings = [m for m in self.modifiers if text.endswith(" " + m.text)]
        for modifier in (*endings, None):
            rest = text if modifier is None else text[: -len(modifier.text) - 1]
            for context, core in self._beginnings(rest):
                if found := self._parse_core(core):
                    return Composed(text, *found, context, modifier)
        return None

    def _beginnings(self, text: str) -> list[tuple[int | None, str]]:
        found: list[tuple[int | None, str]] = [(None, text)]
        head, dot, tail = text.partition(". ")
        if dot:
            for key in (_first_word(head + "."), ""):
                for index, pattern in self._context_patterns.get(key, ()):
                    if pattern.fullmatch(head + "."):
                        found.append((index, tail))
        return found

    def _parse_core(self, core: str) -> tuple[Family, int, dict[str, str]] | None:
        if exact := self._exact.get(core):
            return *exact, {}
        for key in (_first_word(core), ""):
            for family, index in self._by_first_word.get(key, ()):
                if match := family.patterns[index].fullmatch(core):
                    slots = match.groupdict()
                    if all(slots[a] != slots[b] for a, b in family.distinct):
                        return family, index, slots
        return None


def families() -> tuple[Family, ...]:
    """Every family of the microworld."""
    return (
        *families_words.FAMILIES,
        *families_lists.FAMILIES,
        *families_numbers.FAMILIES,
        *families_sentences.FAMILIES,
        *families_stories.FAMILIES,
    )


@functools.cache
def world() -> Microworld:
    """The microworld, built on first use."""
    return Microworld(families())


def compose(
    rng: random.Random, family: Family, *, reserved: Literal["never", "only", "any"] = "never"
) -> Composed:
    """Draw an instruction of a family; see `Microworld.compose`."""
    return world().compose(rng, family, reserved=reserved)


def parse(instruction: str) -> Composed | None:
    """The parts of an instruction of the microworld; None if it is not one."""
    return world().parse(instruction)


def takes_input(family: Family) -> bool:
    """Whether tasks of the family come with an input."""
    return family.sample_input is not no_input


def draw_problem(
    rng: random.Random,
    family: Family,
    split: str,
    slots: dict[str, str] | None = None,
    tries: int = 120,
) -> Problem | None:
    """Draw a problem of the wanted split; None if the family seems to have none.

    Args:
        rng: the source of chance.
        family: the family.
        split: a split of `world.split_of`.
        slots: the slots to keep; by default they are drawn again.
        tries: draws before giving up.
    """
    for _ in range(tries):
        filled: Slots = family.sample_slots(rng) if slots is None else slots
        text = family.sample_input(rng, filled)
        if split_of(family.name, filled, text) == split:
            return Problem(family, dict(filled), text)
    return None


def _first_word(text: str) -> str:
    """The first word, or nothing where a slot is part of it."""
    word = text.split(" ", 1)[0]
    return "" if "{" in word else word


def _ends_in_own_mark(family: Family) -> bool:
    """Whether answers may end in a mark that a modifier must not replace."""
    rng = random.Random(0)
    for _ in range(12):
        slots = family.sample_slots(rng)
        answers = family.answers(slots, family.sample_input(rng, slots))
        if any(answer.endswith(("?", "!")) for answer in answers):
            return True
    return False
