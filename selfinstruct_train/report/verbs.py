"""What instructions ask for: the commonest verbs and the nouns they act on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfinstruct_train.report.parse import Pair, load_model, parse_pairs


class NounCount(NamedTuple):
    """How many instructions put a verb to one noun."""

    noun: str
    instructions: int


class VerbCount(NamedTuple):
    """A verb and the nouns that it acts on most often."""

    verb: str
    nouns: tuple[NounCount, ...]
    """The commonest first."""

    @property
    def instructions(self) -> int:
        """Instructions that the nouns stand for."""
        return sum(count.instructions for count in self.nouns)


class Verbs(NamedTuple):
    """The commonest verbs of a run, as far as they are shown."""

    shown: tuple[VerbCount, ...]
    """The one that stands for most instructions first."""
    paired: int
    """Instructions with a verb and a noun, shown or not."""
    total: int
    """All instructions."""
    model: str | None
    """Name and version of the parser; None where first and next word stand in for a parse."""

    @property
    def covered(self) -> int:
        """Instructions that are shown."""
        return sum(count.instructions for count in self.shown)


def find_verbs(instructions: Sequence[str]) -> Verbs:
    """The commonest verbs, parsed where the parser's model is installed, else guessed."""
    if not instructions or (model := load_model()) is None:
        return count_verbs(map(guess_pair, instructions), None)
    name = f"{model.meta['lang']}_{model.meta['name']} {model.meta['version']}"
    return count_verbs(parse_pairs(model, instructions), name)


def count_verbs(
    pairs: Iterable[Pair | None], model: str | None, verbs: int = 20, nouns: int = 4
) -> Verbs:
    """The commonest verbs and their commonest nouns.

    Args:
        pairs: one for each instruction; None where it has none.
        model: what found them.
        verbs: most verbs shown; 20 as Figure 2 of the paper.
        nouns: most nouns of a verb shown; 4 as there.
    """
    pairs = tuple(pairs)
    counts = Counter(pair for pair in pairs if pair)
    totals: Counter[str] = Counter()
    for pair, count in counts.items():
        totals[pair.verb] += count
    shown = []
    for verb, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:verbs]:
        own = [NounCount(pair.noun, count) for pair, count in counts.items() if pair.verb == verb]
        own.sort(key=lambda count: (-count.instructions, count.noun))
        shown.append(VerbCount(verb, tuple(own[:nouns])))
    shown.sort(key=lambda count: -count.instructions)
    return Verbs(tuple(shown), counts.total(), len(pairs), model)


# Words between a verb and what it acts on.
_PASSED_OVER = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "some",
        "any",
        "all",
        "each",
        "every",
        "both",
        "two",
        "three",
        "four",
        "five",
        "several",
        "many",
        "more",
        "one",
        "ones",
        "next",
        "my",
        "your",
        "our",
        "their",
        "his",
        "her",
        "its",
        "me",
        "us",
        "you",
        "them",
        "him",
        "it",
        "out",
        "up",
        "down",
        "of",
        "for",
        "to",
        "in",
        "on",
        "at",
        "from",
        "with",
        "by",
        "as",
        "into",
        "about",
        "and",
        "or",
        "if",
        "whether",
        "not",
        "no",
        "so",
        "then",
        "there",
        "here",
        "how",
        "what",
        "which",
        "who",
        "whose",
        "why",
        "when",
        "where",
        "is",
        "are",
        "was",
        "were",
        "be",
        "do",
        "does",
        "did",
        "can",
        "could",
        "should",
        "will",
        "would",
        "given",
        "following",
        "below",
        "above",
        "first",
        "last",
        "new",
        "good",
        "short",
        "long",
        "simple",
        "different",
        "possible",
    ]
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def guess_pair(instruction: str) -> Pair | None:
    """The first word and the next one that is no function word, in the place of a parse."""
    words = [word.lower() for word in _WORD.findall(instruction)]
    content = [word for word in words[1:] if word not in _PASSED_OVER]
    return Pair(words[0], content[0]) if content else None
