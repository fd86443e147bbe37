"""From a matplotlib figure to an SVG that takes its colours from the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selfinstruct_train.report.wording import visible

# matplotlib knows no style sheets: it draws in these colours, and each becomes a variable of the
# page, which light and dark fill.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
GOOD, BAD = "#040404", "#050505"
SERIES = ("#060606", "#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b")
PAPER = "#0c0c0c"
"""For writing on a coloured bar."""
MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, 1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 13,
    # A dollar sign in a model's word is a dollar sign.
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 12,
}
_POINTS_PER_INCH = 72
WIDTH = 480
"""Width of every figure in SVG units, small enough to be read on a phone."""


class Plot(NamedTuple):
    """A figure of the page."""

    key: str
    """Its id on the page."""
    title: str
    svg: Markup
    caption: str
    """What to see in it."""


@contextmanager
def canvas(height: float, rows: int = 1) -> Iterator[tuple[Figure, tuple[Axes, ...]]]:
    """A figure with one column of axes, in the page's style.

    Args:
        height: in SVG units; the width is `WIDTH`.
        rows: axes below one another.
    """
    with matplotlib.rc_context(_STYLE):
        size = (WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, 1, squeeze=False)
        yield figure, tuple(axes[:, 0])


def render(key: str, title: str, figure: Figure, caption: str) -> Plot:
    """Turn a figure into inline SVG; call it inside `canvas`.

    Raises:
        ValueError: matplotlib wrote no SVG element.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The letters are the browser's: that matplotlib's own font lacks some says nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The style element would reach over the whole page, and so would ids that two figures share.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'href="#', f'href="#{key}-', text)
    text = text.replace("url(#", f"url(#{key}-")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    opening = f'<svg role="img" aria-labelledby="{key}-title" viewBox="\\1" xmlns="http://www.w3.org/2000/svg">'
    text = re.sub(r'<svg\b[^>]*viewBox="([^"]*)"[^>]*>', opening, text, count=1)
    text = text.replace(">", f'><title id="{key}-title">{escape(visible(title))}</title>', 1)
    return Plot(key, title, Markup(text), caption)
