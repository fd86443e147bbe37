"""First words and what they act on as nested rectangles, in the place of the paper's Figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from selfinstruct_train.report.drawing import INK, SERIES, WIDTH, Plot, canvas, render
from selfinstruct_train.report.tables import Opening, by_first_word
from selfinstruct_train.report.wording import shorten, visible

_HEIGHT = 420
_HEAD = 17
"""Height of the line that holds a first word."""


class Box(NamedTuple):
    """A rectangle, in units of the plot."""

    x: float
    y: float
    width: float
    height: float


def openings_plot(openings: Sequence[Opening], covered: int, total: int, key: str) -> Plot | None:
    """Draw the commonest openings.

    Args:
        openings: from `tables.openings`.
        covered: instructions that they stand for.
        total: all instructions.
        key: id on the page.
    """
    groups = sorted(by_first_word(openings), key=lambda g: -sum(o.instructions for o in g[1]))
    if not groups:
        return None
    with canvas(_HEIGHT) as (figure, (axes,)):
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(_HEIGHT, 0)
        outer = squarify(
            [sum(o.instructions for o in g) for _, g in groups], Box(0, 0, WIDTH, _HEIGHT)
        )
        for i, ((first, found), box) in enumerate(zip(groups, outer, strict=True)):
            colour = SERIES[i % len(SERIES)]
            _rectangle(axes, box, colour, 0.16)
            _label(axes, box, visible(first), bold=True)
            inside = Box(box.x, box.y + _HEAD, box.width, max(0.0, box.height - _HEAD))
            for opening, cell in zip(
                found, squarify([o.instructions for o in found], inside), strict=True
            ):
                _rectangle(axes, cell, colour, 0.14)
                _label(axes, cell, visible(opening.then), bold=False)
        caption = (
            f"The {len(groups)} commonest first words and, inside each, up to four words that "
            "most often come next once articles, pronouns and the like are passed over; outer "
            f"area is the number of instructions ({covered:,} of {total:,} are covered). No "
            "parser is at work: first and next word stand in for the verb and object of the "
            "paper’s Figure 2. Small rectangles have no label; the table names them."
        )
        return render(key, "First words of instructions and the words after them", figure, caption)


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


def _rectangle(axes: Axes, box: Box, colour: str, alpha: float) -> None:
    patch = Rectangle((box.x + 1, box.y + 1), max(0.0, box.width - 2), max(0.0, box.height - 2))
    patch.set(facecolor=colour, edgecolor=colour, linewidth=0.6, alpha=alpha)
    axes.add_patch(patch)


def _label(axes: Axes, box: Box, text: str, bold: bool) -> None:
    size = 10.5
    fits = int((box.width - 6) / (size * (0.62 if bold else 0.56)))
    if fits < 3 or box.height < size + 2:
        return
    axes.text(
        box.x + 4,
        box.y + 3,
        shorten(text, fits),
        color=INK,
        fontsize=size,
        fontweight="bold" if bold else "normal",
        va="top",
        ha="left",
        clip_on=True,
    )
