"""Settings of the filters: what may enter the pool, and what is trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfinstruct_train.bounds import Count, Fraction
from selfinstruct_train.config.section import Section

PersonalDataKind = Literal["card", "iban", "email", "phone"]
"""Personal data that show by their form."""


class ToxicityConfig(Section):
    """A small text classifier, run on the CPU beside the writer, that drops what it finds toxic."""

    model: str = Field(min_length=1)
    """Folder or Hub id of a model for sequence classification with safetensors weights; no code of
    its own is run."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    label: str = Field(min_length=1)
    """The label that stands for toxic, as the model's own config names it."""
    threshold: Fraction = 0.5
    """Highest probability of that label with which a text is kept."""


class FilterConfig(Section):
    """What may enter the pool."""

    novelty_threshold: Fraction | Literal["auto"] = "auto"
    """Highest ROUGE-L F1 against the pool that is still new; ``auto`` takes the pack's: 0.7 in
    English (paper), 0.8 in Chinese."""
    tokenizer: Literal["auto", "rouge", "unicode"] = "auto"
    """``rouge`` sees ASCII letters and digits only; ``unicode`` serves other languages; ``auto``
    takes the pack's, or where the pack names none chooses by the script of the seeds, and of each
    suite: ``rouge`` for English."""
    min_words: int = Field(default=4, ge=1)
    """Fewest words of an instruction (paper: more than 3); the pack may count characters."""
    max_words: Count = 150
    """Most words of an instruction (paper: 150); the pack may count characters."""
    allow_programs: bool = True
    """Keep instructions that begin with "Write a program" (the original scripts drop them)."""
    max_repeats: Count = 4
    """A text that says one n-gram more often than this in a row is a loop."""
    personal_data: tuple[PersonalDataKind, ...] = ()
    """Drops rows that hold such data, with right check digits where the kind has any: ``card``,
    ``iban``, ``email``, ``phone``. Off by default: models make most of them up, and tasks about
    letters, forms and extraction hold them rightly."""
    toxicity: ToxicityConfig | None = None
    """Drops instructions and instances that a classifier finds toxic; by default none is asked."""
