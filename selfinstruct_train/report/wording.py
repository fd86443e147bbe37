"""How the page puts numbers and foreign text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TypeVar

from selfinstruct_train.records import LeftOutRow

T = TypeVar("T")

# Joiners shape emoji and Indic letters; without them honest text would fall apart.
_KEPT = frozenset("\n\t\u200c\u200d")
_UNSEEN = frozenset(("Cc", "Cf", "Zl", "Zp", "Cs"))


def visible(text: str) -> str:
    """Text with every control and direction mark spelled out, such as ``⟨U+202E⟩``.

    A model may write marks that reorder or hide what stands beside them; spelled out, they are as
    plain as they were to the model.
    """
    if text.isprintable():  # no such mark is
        return text
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in _UNSEEN and c not in _KEPT else c
        for c in text
    )


def clip(text: str, longest: int) -> str:
    """Text of at most so many characters, and how many were left out."""
    if len(text) <= longest:
        return text
    return f"{text[:longest].rstrip()} … ({len(text) - longest:,} more characters)"


def shorten(text: str, longest: int) -> str:
    """A label of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def number(value: float | int | None, digits: int = 1) -> str:
    """A number with thousands separators and a true minus sign; a dash where there is none."""
    if value is None or value != value:
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    # A loss of 0.04 is no "-0.0".
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign, ``+`` too."""
    text = number(value, digits)
    return text if text.startswith("−") or not text.strip("0.") else f"+{text}"


def share(part: int, whole: int) -> str:
    """A part in percent; a dash where the whole is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def left_out_words(row: LeftOutRow) -> str:
    """Why the selection left a row out."""
    match row.reason:
        case "over_budget":
            why = "as many better rows as wanted were taken"
        case "too_close":
            near = f"{row.nearest.id} (ROUGE-L {row.nearest.score:.2f})" if row.nearest else "one"
            why = f"too close to {near}, which scores higher and was taken"
        case "same_meaning":
            near = f"{row.nearest.id} (cosine {row.nearest.score:.2f})" if row.nearest else "one"
            why = f"means nearly what {near} means, which scores higher and was taken"
    return f"left out by the selection: {why}; weighted score {row.score:+.2f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def spread(rows: Sequence[T], most: int) -> tuple[T, ...]:
    """At most so many rows, evenly spaced from the first to the last."""
    if len(rows) <= most:
        return tuple(rows)
    return tuple(rows[round(i * (len(rows) - 1) / max(1, most - 1))] for i in range(most))
