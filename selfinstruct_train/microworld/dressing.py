"""What may stand around the core of an instruction: a context before it, a modifier after it.

A context says for whom or why and changes nothing; a modifier may say how to dress the answer. The
reserved ones never occur in pretraining or among the seeds.
"""

from __future__ import annotations

import random
import re
from typing import Literal, NamedTuple

from selfinstruct_train.microworld.lexicon import (
    ANIMALS,
    DAYS,
    DRINKS,
    FOODS,
    JOBS,
    MONTHS,
    NAMES,
    PLACES,
    TOYS,
)

Effect = Literal["none", "stop", "brackets", "quotes", "answer", "star", "thanks", "exclaim"]

_RELATIVES = ("sister", "brother", "mother", "father", "aunt", "uncle", "cousin", "friend")
_SUBJECTS = ("English", "science", "history", "maths", "art", "reading", "writing", "sports")
_WORDS = {
    "name": NAMES, "name2": NAMES, "relative": _RELATIVES, "subject": _SUBJECTS, "day": DAYS,
    "place": PLACES,
    "month": MONTHS, "job": JOBS, "animal": ANIMALS, "food": FOODS, "drink": DRINKS, "toy": TOYS,
}  # fmt: skip

_OPEN_CONTEXTS = (
    "This is for {name}'s {subject} test.",
    "My {relative} asked {name} and me for help.",
    "{name} and {name2} are playing a word game.",
    "We do this every {day} at the {place}.",
    "I am a {job} and need your help.",
    "Help {name} with the {subject} homework.",
    "{name} wants to know before {day}.",
    "You are a kind {job} at the {place}.",
    "The {job} {name} sent me this note.",
    "It is {day} and the class is bored.",
    "Our {subject} teacher wrote this on the board.",
    "Imagine that you talk to a young {job}.",
    "{name} bet {name2} some {food} on it.",
    "Here comes question one of the {month} quiz.",
    "A {job} called {name} is stuck.",
    "Let us learn something while the {food} cooks.",
    "While waiting at the {place}, {name} got curious.",
    "{name}'s {relative} could not do it.",
    "In {month} we start a new {subject} course.",
    "Pretend the {animal} in this story can read.",
    "Someone left a puzzle near the {place}.",
    "The {animal} club meets on {day}.",
    "Please teach {name} how this works.",
    "I promised my {relative} a good reply by {day}.",
    "{name2} thinks {name} knows it already.",
    "This card belongs to the {toy} game.",
    "Two children at the {place} ask you this.",
    "There is {food} for the winner.",
    "{name} must finish the {subject} page tonight.",
    "Grandma reads the {month} paper and wonders.",
    "For my {relative}'s birthday I make a quiz.",
    "The {place} needs a helper like you.",
    "Every new {job} has to learn this.",
    "On {day}, {name} will ask the whole class.",
    "I found this in an old {subject} book.",
    "{name}, {name2} and I share one desk.",
    "After a cup of {drink} we play school.",
    "No {job} I met could tell me.",
    "Write to {name}, who lives by the {place}.",
    "Think like a clever {animal}.",
    "It rained all {month}, so we do tasks.",
    "A parrot told {name} to try this.",
    "Next comes an easy one for {name}.",
    "My homework for {day} says the following.",
    "Both {name} and the {job} gave up.",
    "Your {relative} would love this exercise.",
    "Once more, because {name} was not listening.",
    "The {toy} goes to whoever gets it right.",
)
_RESERVED_CONTEXTS = (
    "{name} is learning this with an older {relative}.",
    "I need this for the {place} on {day}.",
    "The {subject} exam in {month} has this question.",
    "Even a tired {job} should manage this.",
    "{name} lost a {toy} and wants some fun.",
    "At the {place} a {job} wrote this down.",
    "Show {name2} and {name} that you are smart.",
    "Before we drink {drink}, one small thing.",
    "One {subject} fan named {name} is asking.",
)

_MODIFIERS: tuple[tuple[Effect, tuple[str, ...], int], ...] = (
    (
        "none",
        (
            "Give only the answer.", "Keep it short.", "No explanation is needed.", "Be brief.",
            "Do not explain your answer.", "Take your time.", "Think carefully first.",
            "One short reply is enough.",
            "Write nothing else.", "Please be careful.", "Check your work.",
            "Reply on a single line.",
            "Do your best.", "This should be easy.", "Skip any greeting.", "Use no extra words.",
            "Leave out any comments.", "A brief reply will do.",
        ),
        2,
    ),
    (
        "stop",
        (
            "End with a full stop.", "Put a full stop at the end.",
            "Close your answer with a full stop.",
            "A full stop must come last.", "Finish with a full stop.",
        ),
        1,
    ),
    (
        "brackets",
        (
            "Put the answer in brackets.", "Write your reply inside brackets.",
            "Use brackets around it.",
            "Brackets must surround the answer.", "Place what you say in brackets.",
        ),
        1,
    ),
    (
        "quotes",
        (
            "Put the answer in double quotes.", "Use quotes around your reply.",
            "Quote the result.",
            "Double quotes must surround it.", "Write what you say inside double quotes.",
        ),
        1,
    ),
    (
        "answer",
        (
            "Begin with the word Answer.", "Start your reply with Answer and a colon.",
            "The word Answer should come first.", "Write Answer in front.",
            "Open your reply with the word Answer.",
        ),
        1,
    ),
    (
        "star",
        (
            "Put a star in front.", "Begin the line with a star.", "A star should come first.",
            "Mark your answer with a star.", "Start it with a star.",
        ),
        1,
    ),
    (
        "thanks",
        (
            "Say thanks at the end.", "Thank me afterwards.", "Close with thanks.",
            "Be polite and add your thanks.", "Finish by saying thanks.",
        ),
        1,
    ),
    (
        "exclaim",
        (
            "End with an exclamation mark.", "Put an exclamation mark last.",
            "Shout it with an exclamation mark.",
            "An exclamation mark should follow.", "Finish with an exclamation mark.",
        ),
        1,
    ),
)  # fmt: skip


class Context(NamedTuple):
    """A sentence before the core, with slots; it has no bearing on the answer."""

    template: str
    slots: tuple[str, ...]
    reserved: bool

    def fill(self, rng: random.Random) -> str:
        """The sentence with its slots filled; two people never share a name."""
        words = {slot: rng.choice(_WORDS[slot]) for slot in self.slots}
        while "name2" in words and words["name2"] == words["name"]:
            words["name2"] = rng.choice(NAMES)
        return self.template.format_map(words)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches every filling of the template."""
        parts = re.split(r"\{(\w+)\}", self.template)
        slots = ("(?:" + "|".join(_WORDS[slot]) + ")" for slot in parts[1::2])
        literals = map(re.escape, parts[::2])
        return re.compile(
            next(literals)
            + "".join(slot + literal for slot, literal in zip(slots, literals, strict=True))
        )


class Modifier(NamedTuple):
    """A sentence after the core that may say how to dress the answer."""

    text: str
    effect: Effect
    reserved: bool

    def wrap(self, answer: str) -> str:
        """The answer as this modifier wants it."""
        return wrap(self.effect, answer)


def wrap(effect: Effect, answer: str) -> str:
    """Dress an answer. A mark at the end takes the place of the mark that is there."""
    match effect:
        case "none":
            return answer
        case "stop":
            return (answer.rstrip(".!?") or answer) + "."
        case "exclaim":
            return (answer.rstrip(".!?") or answer) + "!"
        case "brackets":
            return f"({answer})"
        case "quotes":
            return f'"{answer}"'
        case "answer":
            return f"Answer: {answer}"
        case "star":
            return f"* {answer}"
        case "thanks":
            return f"{answer} Thanks!"


def contexts() -> tuple[Context, ...]:
    """Every context, the reserved ones last."""
    groups = ((_OPEN_CONTEXTS, False), (_RESERVED_CONTEXTS, True))
    return tuple(
        Context(template, tuple(re.findall(r"\{(\w+)\}", template)), reserved)
        for templates, reserved in groups
        for template in templates
    )


def modifiers() -> tuple[Modifier, ...]:
    """Every modifier, by effect."""
    return tuple(
        Modifier(text, effect, index >= len(texts) - held_back)
        for effect, texts, held_back in _MODIFIERS
        for index, text in enumerate(texts)
    )
