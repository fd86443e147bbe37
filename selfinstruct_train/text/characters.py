"""Characters that are none: they cannot be written as UTF-8, tokenized or shown."""

from __future__ import annotations


def without_surrogates(text: str) -> str:
    """Text with U+FFFD in the place of each lone surrogate, as tokenizers write broken bytes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
