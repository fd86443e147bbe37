"""Is a text in the pack's language? By the script of its words and by its function words."""

from __future__ import annotations

import functools

import regex
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from selfinstruct_train.text.words import whole_words, words

_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Latin}")
_LEAST_IN_SCRIPT = 0.5
"""Share of the words of an instruction that its language's scripts must write."""
_LONG = 8
"""Words from which a text has function words, and from which an answer is more than a name."""
_SHORT_FOREIGN_SHARE = 0.2
"""Share from which one function word alone tells: ``List the rivers``, not ``sites on demand``."""
_FOREIGN_SHARE = 0.1
"""Share of function words from which an answer counts as prose: English has a third of this list
or more, code and lists of terms next to none."""


class LanguageRules(BaseModel):
    """What tells the pack's language from those that a model falls into."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scripts: tuple[str, ...] = Field(min_length=1)
    """Unicode scripts that write it, such as ``Latin``, or ``Han``, ``Hiragana``, ``Katakana``."""
    function_words: tuple[str, ...] = ()
    """Words that nearly every sentence has and its neighbours lack; none where the script says
    enough."""
    foreign_words: tuple[str, ...] = ()
    """Function words of the languages that models fall into, none of them a word of this one or a
    keyword of a programming language."""
    other_languages: tuple[str, ...] = ()
    """Words by which a task asks for another language: what it quotes and its answers may be in
    one."""

    @field_validator("scripts")
    @classmethod
    def _exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            require_script(name)
        return names

    @model_validator(mode="after")
    def _kept_apart(self) -> LanguageRules:
        both = sorted(set(self.function_words) & set(self.foreign_words))
        if both:
            raise ValueError(
                f"foreign_words holds words of the language itself: {', '.join(both)}; leave "
                "them out"
            )
        return self


def require_script(name: str) -> None:
    """Check the name of a Unicode script.

    Raises:
        ValueError: there is no such script.
    """
    try:
        regex.compile(rf"\p{{Script={name}}}")
    except regex.error:
        raise ValueError(f"'{name}' is no Unicode script; use one such as Latin or Han") from None


class LanguageTest:
    """Finds what is not in the language, and says what it saw.

    It is made to miss rather than to drop what is right: names, code, formulas, terms and short
    answers pass in any language, and so does all of a task that asks for another one.
    """

    def __init__(self, rules: LanguageRules) -> None:
        self._names = ", ".join(rules.scripts)
        self._script = regex.compile("|".join(rf"\p{{Script={name}}}" for name in rules.scripts))
        self._own = frozenset(word.casefold() for word in rules.function_words)
        self._foreign = frozenset(word.casefold() for word in rules.foreign_words)
        self._asks_for_another = whole_words(rules.other_languages)

    def foreign_instruction(self, text: str) -> str | None:
        """Why an instruction is not in the language; None if it is."""
        found = _letter_words(text)
        if not found or self._exempts(text):
            return None
        share = self.script_share(text)
        if share < _LEAST_IN_SCRIPT:
            return f"{share:.0%} of the words are in {self._names}"
        own = sum(word in self._own for word in found)
        foreign = [word for word in found if word in self._foreign]
        many = len(foreign) > 1 or len(foreign) > _SHORT_FOREIGN_SHARE * len(found)
        if self._own and many and len(foreign) > own:
            return _quoted(foreign)
        if self._own and not own and len(found) >= _LONG:
            return f"none of {len(found)} words is a function word of the language"
        return None

    def script_share(self, text: str) -> float:
        """Share of a text's words that the language's scripts write, 0 to 1."""
        found = _letter_words(text)
        return sum(self._is_own_script(word) for word in found) / len(found) if found else 0.0

    def has_function_words(self, text: str) -> bool:
        """Whether a text has a function word of the language."""
        return any(word in self._own for word in _letter_words(text))

    def foreign_answer(self, instruction: str, text: str) -> str | None:
        """Why an input or an answer is not in the language; None if it is, or may be in another."""
        found = _letter_words(text)
        if len(found) < _LONG or self._exempts(instruction):
            return None
        in_script = [word for word in found if self._is_own_script(word)]
        strange = sum(not self._is_own_script(word) and not _LATIN.match(word) for word in found)
        if strange > _LEAST_IN_SCRIPT * len(found):
            return f"{strange} of {len(found)} words are in another script than {self._names}"
        own = sum(word in self._own for word in found) if self._own else len(in_script)
        foreign = [word for word in found if word in self._foreign]
        prose = len(set(foreign)) > 1 and len(foreign) >= _FOREIGN_SHARE * len(found)
        if prose and len(foreign) > own:
            return _quoted(foreign)
        return None

    def _exempts(self, instruction: str) -> bool:
        names = self._asks_for_another
        return names is not None and names.search(instruction) is not None

    def _is_own_script(self, word: str) -> bool:
        letter = _LETTER.search(word)
        return letter is not None and self._script.match(letter.group()) is not None


@functools.cache
def language_test(rules: LanguageRules | None) -> LanguageTest | None:
    """The test of a pack; None where the pack has no rules for one."""
    return None if rules is None else LanguageTest(rules)


def _letter_words(text: str) -> list[str]:
    return [word for word in words(text, "unicode") if _LETTER.search(word)]


def _quoted(foreign: list[str]) -> str:
    return "function words of another language: " + ", ".join(foreign[:8])
