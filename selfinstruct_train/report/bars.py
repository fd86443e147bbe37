"""Stacked bars: shares of a whole, one bar for each system or round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_train.report.drawing import (
    BAD,
    GOOD,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    canvas,
    render,
)
from selfinstruct_train.report.wording import shorten, visible

GRADE_PARTS = (("A", GOOD), ("B", SERIES[0]), ("C", SERIES[1]), ("D", BAD))
MATCH_PARTS = (("won", GOOD), ("tied", MUTED), ("lost", BAD))
_HEIGHT = 0.56
_NARROWEST = 11.0
"""Percent of a bar that is wide enough for a figure."""


class BarInterval(NamedTuple):
    """A share in percent and its interval."""

    value: float
    low: float
    high: float


class Bar(NamedTuple):
    """One whole and its parts."""

    label: str
    parts: tuple[float, ...]
    """In percent of the whole; they sum to 100."""
    figures: tuple[str, ...]
    """What is written on each part where it is wide enough."""
    interval: BarInterval | None
    """Of the first parts together, drawn under the bar."""


def stacked_plot(
    key: str,
    title: str,
    bars: Sequence[Bar],
    parts: Sequence[tuple[str, str]],
    what: str,
    caption: str,
) -> Plot:
    """Draw the bars below one another, the first at the top.

    Args:
        key: the plot's id on the page.
        title: its heading.
        bars: at least one.
        parts: name and colour of each part.
        what: label of the axis.
        caption: what to see in it.
    """
    with canvas(112 + 44 * len(bars)) as (figure, (axes,)):
        for y, bar in enumerate(bars):
            start = 0.0
            for (name, colour), share, said in zip(parts, bar.parts, bar.figures, strict=True):
                axes.barh(
                    y, share, left=start, height=_HEIGHT, color=colour,
                    label=name if y == 0 else f"_{name}",
                )  # fmt: skip
                if share >= _NARROWEST:
                    axes.text(
                        start + share / 2, y, said, color=PAPER, fontsize=12, ha="center",
                        va="center",
                    )  # fmt: skip
                start += share
            if bar.interval:
                value, low, high = bar.interval
                axes.errorbar(
                    [value],
                    [y + _HEIGHT / 2 + 0.12],
                    xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                    color=INK,
                    marker="|",
                    markersize=7,
                    linewidth=1.6,
                    capsize=3,
                )
        axes.set_yticks(range(len(bars)), [shorten(visible(bar.label), 30) for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        figure.supxlabel(what, fontsize=13)
        figure.legend(loc="outside upper left", ncols=len(parts))
        return render(key, title, figure, caption)
