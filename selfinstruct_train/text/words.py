"""Words and tokens of any script: what novelty, contamination, metrics and filters count.

Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without blanks. There each character
counts as a word; elsewhere a word is what stands between blanks.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

import regex

TokenizerName = Literal["rouge", "unicode"]
TokenizerChoice = Literal["auto", "rouge", "unicode"]
Units = Literal["words", "characters"]

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_CHARACTER = rf"[{_UNSPACED}&&[\p{{L}}\p{{N}}]]"
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_ANY_WORD = regex.compile(
    rf"{_CHARACTER}\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]+", regex.VERSION1
)
# Marks that touch a character of an unspaced script are no words of their own.
_PIECE = regex.compile(
    rf"\p{{P}}*({_CHARACTER}\p{{M}}*)\p{{P}}*|(\S+?)(?=\p{{P}}*{_CHARACTER}|\s|$)", regex.VERSION1
)
_UNSPACED_CHARACTER = regex.compile(_CHARACTER, regex.VERSION1)
_IN_WORD = rf"[\w--{_UNSPACED}]"
# What may open a sentence: brackets and quotes before an unspaced script, and Spanish ¿ and ¡.
_OPENING = regex.compile(rf"[\p{{Ps}}\p{{Pi}}]+(?={_CHARACTER})|[¿¡]+", regex.VERSION1)
# The official rule of exact match knows ASCII marks, some of which Unicode calls symbols.
_PUNCTUATION = regex.compile(rf"[{regex.escape(string.punctuation)}\p{{P}}]")
_LETTER = regex.compile(r"\p{L}")
_LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
_ASCII_LETTER = re.compile(r"[A-Za-z]")

_MOST_FOREIGN = 0.01
"""Share of letters outside ASCII up to which a language counts as written in ASCII: English texts
of the published suites have 0.0003, Portuguese, French and German 0.02 and more."""


class RougeTokenizer(NamedTuple):
    """A tokenizer as rouge_score takes one."""

    name: TokenizerName

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return words(text, self.name)


def words(text: str, tokenizer: TokenizerName) -> list[str]:
    """Split a text into the tokens that are compared.

    ``rouge`` gives the tokens of rouge_score's default tokenizer without stemmer: lower case, runs
    of ASCII letters and digits, everything else a separator. It is blind to other scripts.

    ``unicode`` gives runs of letters, digits and their marks of any script, casefolded and in NFC;
    in scripts written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar) each letter with its
    marks is a token. Punctuation, symbols and emoji are separators.
    """
    if tokenizer == "rouge":
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFD", text).casefold()
    found: list[str] = _ANY_WORD.findall(unicodedata.normalize("NFC", folded))
    return found


def choose_tokenizer(choice: TokenizerChoice, texts: Iterable[str]) -> TokenizerName:
    """The tokenizer that texts of this kind need.

    Args:
        choice: what the user asked for; only ``auto`` looks at the texts.
        texts: seeds, or the references of a suite. ``rouge`` where at most 1 % of their letters
            are outside ASCII, else ``unicode``.
    """
    if choice != "auto":
        return choice
    letters = ascii_letters = 0
    for text in texts:
        letters += len(_LETTER.findall(text))
        ascii_letters += len(_ASCII_LETTER.findall(text))
    return "unicode" if letters - ascii_letters > _MOST_FOREIGN * letters else "rouge"


def split_words(text: str) -> list[str]:
    """Words between blanks, and each character of a script written without blanks.

    Marks beside such a character are left out, so that a loop shows whatever its commas are.
    """
    if not _UNSPACED_CHARACTER.search(text):
        return text.split()
    return [match.group(1) or match.group(2) for match in _PIECE.finditer(text)]


def is_unspaced(word: str) -> bool:
    """Whether a token begins in a script that is written without blanks."""
    return _UNSPACED_CHARACTER.match(word) is not None


def count_words(text: str) -> int:
    """Words of a text; each character of a script written without blanks counts as one."""
    return len(split_words(text))


def normalised(text: str) -> str:
    """The text in lower case, without punctuation, its words parted by single blanks.

    Two answers that are equal so are one answer, in exact match and in a vote alike.
    """
    return " ".join(_PUNCTUATION.sub("", text.lower()).split())


def length(text: str, units: Units) -> int:
    """Length of a text in words, as `count_words` counts, or in letters and digits."""
    return count_words(text) if units == "words" else len(_LETTER_OR_DIGIT.findall(text))


def whole_words(phrases: Iterable[str]) -> regex.Pattern[str] | None:
    """A pattern that finds any of the phrases as whole words, in any case; None for no phrases.

    A script written without blanks has no word boundaries: there a phrase is found anywhere.
    """
    found = "|".join(
        ("" if _UNSPACED_CHARACTER.match(phrase[0]) else rf"(?<!{_IN_WORD})")
        + regex.escape(phrase)
        + ("" if _UNSPACED_CHARACTER.match(phrase[-1]) else rf"(?!{_IN_WORD})")
        for phrase in phrases
        if phrase
    )
    return regex.compile(found, regex.IGNORECASE | regex.VERSION1) if found else None


def without_opening_marks(text: str) -> str:
    """The text less marks that rightly open a sentence in its script, such as 《, 「 and ¿."""
    return _OPENING.sub("", text, count=1) if _OPENING.match(text) else text


def ends_with_colon(text: str) -> bool:
    """Whether the last character is a colon, a full-width or small one included."""
    return unicodedata.normalize("NFKC", text[-1:]) == ":"
