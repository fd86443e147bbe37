"""Which prompts are worth computing together: those that begin alike."""

from __future__ import annotations

from collections.abc import Sequence

_WORTHWHILE = 32
"""Fewest shared tokens that pay for a second matrix product in each layer."""
_COMPANY = 4
"""Fewest prompts that make a group of their own."""


def agreement(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, 0 where too few; each keeps its last token to itself.

    Tokens of the whole prompts are compared, never a text's, so that no token straddles the seam.
    """
    low, high = min(prompts, key=list), max(prompts, key=list)
    length = min(agreement(low, high), min(map(len, prompts)) - 1)
    return length if length >= _WORTHWHILE and len(prompts) > 1 else 0


def group_by_beginning(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of the prompts, those that begin alike together.

    Few strays do not cost the others their prefix.
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    shared = [agreement(prompts[a], prompts[b]) for a, b in zip(order, order[1:], strict=False)]
    floor = max(shared, default=0) / 2
    if floor < _WORTHWHILE / 2:
        return [sorted(order)]
    groups = [order[:1]]
    for i, length in zip(order[1:], shared, strict=True):
        if length < floor:
            groups.append([])
        groups[-1].append(i)
    strays = sorted(i for group in groups if len(group) < _COMPANY for i in group)
    kept = [sorted(group) for group in groups if len(group) >= _COMPANY]
    return sorted([*kept, strays] if strays else kept)
