"""The root verb of an instruction and the noun it acts on, read from a dependency parse.

Figure 2 of the paper (Wang et al., arXiv 2212.10560) takes the verb nearest to the root of a
constituency parse and its first direct noun object; here spaCy's dependency parse gives both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Span

MODEL = "en_core_web_sm"
"""The spaCy model; used where it is installed, never downloaded."""
_LONGEST = 2000
"""Characters of an instruction that are parsed: the request stands near its beginning."""
_SUBJECTS = frozenset(("nsubj", "nsubjpass", "csubj", "csubjpass", "expl", "nsubj:pass"))
_OBJECTS = frozenset(("dobj", "obj"))
_COMPLEMENTS = frozenset(("prep", "prt", "xcomp", "ccomp", "advcl", "dative", "iobj", "obl"))
_NOUNS = frozenset(("NOUN", "PROPN"))
_MODALS = frozenset(("can", "could", "will", "would", "shall", "should", "must", "may", "might"))


class Pair(NamedTuple):
    """A verb and what it acts on, both as lemmas in lower case."""

    verb: str
    noun: str


class Word(NamedTuple):
    """One word of a parsed sentence."""

    text: str
    lemma: str
    pos: str
    """Universal part of speech."""
    dep: str
    """Relation to the head, ``ROOT`` for the root."""
    head: int
    """Place of the head in the sentence, from 0; the root is its own."""


def load_model() -> Language | None:
    """The spaCy model without what no pair needs; None where it is not installed."""
    try:
        package = import_module(MODEL)
    except ImportError:
        return None
    model: Language = package.load(exclude=["ner"])
    return model


def parse_pairs(model: Language, instructions: Iterable[str]) -> Iterator[Pair | None]:
    """The pair of each instruction, in order; None where it has none."""
    texts = (" ".join(text[:_LONGEST].split()) for text in instructions)
    for doc in model.pipe(texts, batch_size=256, n_process=1):
        yield find_pair([_words(sentence) for sentence in doc.sents])


def find_pair(sentences: Iterable[Sequence[Word]]) -> Pair | None:
    """The verb and the noun of the first sentence that asks for something.

    Args:
        sentences: of one instruction, in order, none of them empty.

    Returns:
        None where no sentence asks for something, or where the verb of the first that does has no
        noun for its direct object.
    """
    for words in sentences:
        verb = _request(words)
        if verb is not None:
            noun = _object(words, verb)
            if noun is None:
                return None
            return Pair(words[verb].lemma.lower(), words[noun].lemma.lower())
    return None


def _words(sentence: Span) -> list[Word]:
    return [Word(t.text, t.lemma_, t.pos_, t.dep_, t.head.i - sentence.start) for t in sentence]


def _children(words: Sequence[Word], head: int) -> list[int]:
    return [i for i, word in enumerate(words) if word.head == head and i != head]


def _request(words: Sequence[Word]) -> int | None:
    """Place of the verb that the sentence asks for; None for statements and other questions."""
    root = next(i for i, word in enumerate(words) if word.head == i)
    if words[root].pos == "AUX":
        # "Your task is to write a poem": what is asked hangs on the copula.
        below = [i for i in _children(words, root) if words[i].dep == "xcomp"]
        return next((i for i in below if words[i].pos == "VERB"), None)
    below = _children(words, root)
    # Taggers take an imperative that opens a sentence ("List …") for a noun, yet a noun has no
    # direct object.
    if words[root].pos != "VERB" and not any(words[i].dep in _OBJECTS for i in below):
        return None
    subjects = [words[i].text.lower() for i in below if words[i].dep in _SUBJECTS]
    modal = any(words[i].dep == "aux" and words[i].text.lower() in _MODALS for i in below)
    if subjects:
        return root if modal and subjects == ["you"] else None
    return None if words[-1].text == "?" else root


def _object(words: Sequence[Word], verb: int) -> int | None:
    below = _children(words, verb)
    objects = [i for i in below if words[i].dep in _OBJECTS]
    if not objects and not any(words[i].dep in _COMPLEMENTS for i in below):
        # "Read and summarize the article": an object that verbs share hangs on the last of them.
        joined = (i for i in below if words[i].dep == "conj" and words[i].pos == "VERB")
        return next((noun for i in joined if (noun := _object(words, i)) is not None), None)
    return next((i for i in objects if words[i].pos in _NOUNS), None)
