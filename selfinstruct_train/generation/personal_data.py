"""Personal data by their form: numbers of cards and accounts by their check digits, and addresses.

What is found need not be of a real person: models make up most of what looks so. Card numbers are
checked by Luhn's algorithm (ISO/IEC 7812-1), account numbers by ISO 7064 mod 97-10 (ISO 13616),
which one in ten and one in 97 of random numbers pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import regex

from selfinstruct_train.config import PersonalDataKind

_CARD = regex.compile(r"(?<![\p{N}.,])\d(?:[ -]?\d){12,18}(?![\p{N}]|[.,]\d)")
_IBAN = regex.compile(r"(?<![\p{L}\p{N}])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}(?![\p{L}\p{N}])")
_EMAIL = regex.compile(
    r"(?<![\p{L}\p{N}._%+-])[\p{L}\p{N}._%+-]{1,64}@((?:[\p{L}\p{N}-]+\.)+\p{L}{2,})"
)
_PHONE = regex.compile(
    r"(?<![\p{Latin}\p{N}+.,/-])"
    r"(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # international
    r"|\(\d{2,4}\)[ ]?\d{3,5}[ .-]\d{4}"  # (555) 555-0123, (11) 98765-4321
    r"|\d{3}[.-]\d{3}[.-]\d{4}"  # 555-555-0123
    r"|1[3-9]\d[ -]?\d{4}[ -]?\d{4})"  # mobile, mainland China
    r"(?![\p{N}]|[.,/-]\d)"
)
_RESERVED = ("example.com", "example.org", "example.net", ".example", ".test", ".invalid")
"""Nobody's by RFC 2606: addresses there belong to examples."""
_PHONE_DIGITS = range(8, 16)


class PersonalDatum(NamedTuple):
    """What was found, most of it hidden."""

    kind: PersonalDataKind
    shown: str


def find_personal_data(text: str, kinds: Sequence[PersonalDataKind]) -> PersonalDatum | None:
    """The first personal datum of some kinds in a text, kinds in their order; None without one."""
    for kind in kinds:
        if (found := next(_FIND[kind](text), None)) is not None:
            return PersonalDatum(kind, _hidden(found))
    return None


def passes_luhn(digits: str) -> bool:
    """Whether the last of some digits is right by Luhn's algorithm."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def passes_mod_97(account: str) -> bool:
    """Whether the check digits of an IBAN without blanks are right."""
    moved = account[4:] + account[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _cards(text: str) -> Iterator[str]:
    for match in _CARD.finditer(text):
        digits = regex.sub(r"\D", "", match.group())
        # Every repeated digit that passes, and rows of zeros above all, is a placeholder.
        if len(set(digits)) > 1 and passes_luhn(digits):
            yield match.group()


def _accounts(text: str) -> Iterator[str]:
    for match in _IBAN.finditer(text):
        words = match.group().split(" ")
        # What follows may look like more of it: every beginning of whole groups is tried.
        for count in range(len(words), 0, -1):
            account = "".join(words[:count])
            if 15 <= len(account) <= 34 and passes_mod_97(account):
                yield " ".join(words[:count])
                break


def _addresses(text: str) -> Iterator[str]:
    for match in _EMAIL.finditer(text):
        if not f".{match.group(1).lower()}".endswith(tuple(f".{r.lstrip('.')}" for r in _RESERVED)):
            yield match.group()


def _phones(text: str) -> Iterator[str]:
    for match in _PHONE.finditer(text):
        if len(regex.sub(r"\D", "", match.group())) in _PHONE_DIGITS:
            yield match.group()


_FIND: dict[PersonalDataKind, Callable[[str], Iterator[str]]] = {
    "card": _cards,
    "iban": _accounts,
    "email": _addresses,
    "phone": _phones,
}


def _hidden(found: str) -> str:
    return f"{found[:2]}…{found[-2:]} ({len(found)} characters)"
