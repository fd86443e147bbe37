"""The words of a language by which faults of machine-written text show."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FaultWords(BaseModel):
    """What `generation.faults` must know about a language; an empty list looks for nothing.

    Whole words or phrases, in lower case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    statement_openers: tuple[str, ...] = ()
    """Words that open a statement, such as pronouns and articles."""
    task_words: tuple[str, ...] = ()
    """Words one of which stands in whatever asks for something and opens like a statement."""
    placeholder_words: tuple[str, ...] = ()
    """What stands in brackets where something is still to be filled in."""
    refusals: tuple[str, ...] = ()
    """What a model says of itself when it refuses."""
    evasions: tuple[str, ...] = ()
    """How a short output opens that knows no answer, or promises one and leaves it at that."""
    hand_backs: tuple[str, ...] = ()
    """What hands the work back: with such words a longer output evades as well."""
    edit_words: tuple[str, ...] = ()
    """Words of instructions whose right answer repeats much of the input or the instruction."""
    number_words: tuple[str, ...] = ()
    """Words of instructions whose right answer may be a figure alone."""
    text_words: tuple[str, ...] = ()
    """Words of instructions that ask for more than a word or two."""
    word_words: tuple[str, ...] = ()
    """Words of instructions that a word or two may answer all the same."""
    absent_things: tuple[str, ...] = ()
    """Phrases that point at something which an instruction does not hold itself."""
    described_things: tuple[str, ...] = ()
    """Kinds of text that an input names in place of being one."""
    describing_words: tuple[str, ...] = ()
    """What follows such a name: about, of, that."""
    unfinished_words: tuple[str, ...] = ()
    """Words that end no sentence."""
