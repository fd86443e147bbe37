"""Verbs and what they act on as nested rectangles: the paper's Figure 2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from selfinstruct_train.report.drawing import INK, SERIES, WIDTH, Plot, canvas, render
from selfinstruct_train.report.parse import MODEL
from selfinstruct_train.report.verbs import Verbs
from selfinstruct_train.report.wording import share, shorten, visible

_HEIGHT = 600
_VERB_SIZE, _NOUN_SIZE = 13, 12
"""Letters in units of the plot; a phone shows them at three quarters."""
_MARGIN = 3
_FEWEST = 5
"""Fewest characters of a label that is cut short; fewer name nothing."""
_HEAD = 20
"""Height of the line that holds a verb."""


class Box(NamedTuple):
    """A rectangle, in units of the plot."""

    x: float
    y: float
    width: float
    height: float


class Label(NamedTuple):
    """What is written into a rectangle."""

    text: str
    upwards: bool


def verbs_plot(verbs: Verbs, key: str) -> Plot | None:
    """Draw the commonest verbs and their nouns.

    Args:
        verbs: from `verbs.find_verbs`.
        key: id on the page.
    """
    if not verbs.shown:
        return None
    with canvas(_HEIGHT) as (figure, (axes,)):
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(_HEIGHT, 0)
        outer = squarify([v.instructions for v in verbs.shown], Box(0, 0, WIDTH, _HEIGHT))
        for i, (verb, box) in enumerate(zip(verbs.shown, outer, strict=True)):
            colour = SERIES[i % len(SERIES)]
            _label(axes, _rectangle(axes, box, colour, 0.16), visible(verb.verb), "bold")
            inside = Box(box.x, box.y + _HEAD, box.width, max(0.0, box.height - _HEAD))
            cells = squarify([count.instructions for count in verb.nouns], inside)
            for count, cell in zip(verb.nouns, cells, strict=True):
                patch = _rectangle(axes, cell, colour, 0.14)
                _label(axes, patch, visible(count.noun), "normal")
        title = (
            "Root verbs of instructions and their direct objects"
            if verbs.model
            else "First words of instructions and the words after them"
        )
        return render(key, title, figure, _caption(verbs))


def _caption(verbs: Verbs) -> str:
    many = len(verbs.shown)
    drawn = (
        f"Area is the number of instructions: {verbs.covered:,} of {verbs.total:,} "
        f"({share(verbs.covered, verbs.total)}) are drawn"
    )
    table = "Small rectangles have no label; the table names them."
    if verbs.model is None:
        return (
            f"The {many} commonest first words and, inside each, up to four words that most often "
            f"come next once articles, pronouns and the like are passed over. {drawn}. No parser "
            "is at work: first and next word stand in for the root verb and direct object of the "
            "paper’s Figure 2, so shares do not compare with the paper’s. For a parse, install "
            f"selfinstruct-train[figures], run “python -m spacy download {MODEL}” and write the "
            f"report again. {table}"
        )
    return (
        f"The {many} commonest root verbs and, inside each, up to four nouns that are most often "
        f"their direct objects, as Figure 2 of the paper. {drawn} (paper: 14 %), and "
        f"{share(verbs.paired, verbs.total)} have a verb with a noun for its object at all (paper: "
        f"50.6 %); most others are questions or take a clause, such as “decide whether”. Parsed "
        f"by spaCy’s {verbs.model}; the paper used another parser. {table}"
    )


def squarify(sizes: Sequence[int], box: Box) -> list[Box]:
    """Cut a rectangle into parts of the given sizes, as square as may be, in order.

    Squarified treemap of Bruls, Huizing and van Wijk (2000): rows are filled along the
    shorter side for as long as that makes their worst part squarer.

    Args:
        sizes: positive, in falling order.
        box: what is cut.
    """
    found: list[Box] = []
    left = list(sizes)
    while left:
        scale = box.width * box.height / sum(left)
        side = min(box.width, box.height)
        taken = 1
        while taken < len(left) and _worst(left[: taken + 1], side, scale) <= _worst(
            left[:taken], side, scale
        ):
            taken += 1
        row, left = left[:taken], left[taken:]
        thick = sum(row) * scale / side if side else 0.0
        place = 0.0
        for size in row:
            length = size * scale / thick if thick else 0.0
            if box.width >= box.height:
                found.append(Box(box.x, box.y + place, thick, length))
            else:
                found.append(Box(box.x + place, box.y, length, thick))
            place += length
        if box.width >= box.height:
            box = Box(box.x + thick, box.y, max(0.0, box.width - thick), box.height)
        else:
            box = Box(box.x, box.y + thick, box.width, max(0.0, box.height - thick))
    return found


def _worst(row: Sequence[int], side: float, scale: float) -> float:
    """The aspect ratio of the least square part of a row."""
    thick = sum(row) * scale / side if side else 0.0
    if not thick:
        return 1.0
    lengths = (size * scale / thick for size in row)
    return max(max(thick / length, length / thick) for length in lengths)


def _rectangle(axes: Axes, box: Box, colour: str, alpha: float) -> Rectangle:
    patch = Rectangle((box.x + 1, box.y + 1), max(0.0, box.width - 2), max(0.0, box.height - 2))
    patch.set(facecolor=colour, edgecolor=colour, linewidth=0.6, alpha=alpha)
    axes.add_patch(patch)
    return patch


def _label(axes: Axes, inside: Rectangle, text: str, weight: str) -> None:
    width, height = inside.get_width() - 2 * _MARGIN, inside.get_height() - 2 * _MARGIN
    size = _VERB_SIZE if weight == "bold" else _NOUN_SIZE
    # The room of a verb is the line above its nouns.
    label = fit_label(text, width, size if weight == "bold" else height, size, weight)
    if label is None or height < size:
        return
    drawn = axes.text(
        inside.get_x() + _MARGIN,
        inside.get_y() + _MARGIN,
        label.text,
        color=INK,
        fontsize=size,
        fontweight=weight,
        rotation=90 if label.upwards else 0,
        va="top",
        ha="left",
        clip_on=True,
    )
    # The reader's font may be wider than the one measured.
    drawn.set_clip_path(inside)


def fit_label(
    text: str, width: float, height: float, size: float, weight: str = "normal"
) -> Label | None:
    """A label for a place of the given size: across, else upwards, else cut short, else none."""
    if min(width, height) < size:
        return None
    wide = text_width(text, size, weight)
    if wide <= width or wide <= height:
        return Label(text, upwards=wide > width)
    for length in range(len(text) - 1, _FEWEST - 1, -1):
        cut = shorten(text, length)
        if len(cut) >= _FEWEST and text_width(cut, size, weight) <= width:
            return Label(cut, upwards=False)
    return None


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line in matplotlib's own font, in units of the plot.

    Whatever is not ASCII counts as a wide letter: that font may not have it.
    """
    font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
    letters = re.sub(r"[^ -~]", "W", text)
    width: float = text_to_path.get_text_width_height_descent(letters, font, ismath=False)[0]
    return width
