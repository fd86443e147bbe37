"""A run beside published models: one ranking, and what its intervals allow to be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from selfinstruct_train.config import Config
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.published import (
    PUBLISHED_SUITE,
    Standing,
    Standings,
    compare_with_published,
    published_files,
)
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import PairedComparison
from selfinstruct_train.report.answers import system_label
from selfinstruct_train.report.drawing import INK, MUTED, SERIES, Plot, canvas, render
from selfinstruct_train.report.headline import outcome
from selfinstruct_train.report.suite_facts import SuiteFacts
from selfinstruct_train.report.wording import number, shorten, signed, visible

_OWN = "this run"


class Baselines(NamedTuple):
    """What the page says of the published models."""

    standings: Standings | None
    sentences: tuple[str, ...]
    """What can be told, and what cannot; why there is nothing, where standings is None."""
    plot: Plot | None


def read_baselines(facts: SuiteFacts, config: Config, key: str) -> Baselines | None:
    """Compare the best round's answers with the published ones, where there are any.

    Args:
        facts: the suite.
        config: the run's settings.
        key: id of the plot on the page.

    Returns:
        None where the suite has no published answers, or none are on this machine. What is wrong
        with files that are there is said on the page: a report must not fail for a side table.
    """
    if facts.name != PUBLISHED_SUITE or not facts.answers:
        return None
    try:
        files = published_files(config.evaluation.published)
        if not files:
            return None
        suite = load_suite(facts.source)
        whole = {s: rows for s, rows in facts.answers.items() if len(rows) == len(suite.items)}
        standings = compare_with_published(
            whole,
            files,
            suite,
            config.evaluation,
            config.seed,
            load_answers(config.generation.prompts),
        )
    except DataError as error:
        return Baselines(None, (f"The published answers cannot be shown: {error}.",), None)
    return Baselines(standings, tuple(_sentences(standings)), _plot(standings, key))


def standing_label(standing: Standing) -> str:
    """A system's name, and whose it is where it is the run's."""
    return standing.name if standing.is_published else f"{system_label(standing.name)} ({_OWN})"


def _sentences(standings: Standings) -> list[str]:
    systems = {s.name: s for s in standings.systems}
    published = [s for s in standings.systems if s.is_published]
    said = []
    if tuned := systems.get("tuned"):
        said += _against(tuned, published, standings)
    for better, worse in zip(published, published[1:], strict=False):
        pair = standings.pair(better.name, worse.name)
        said.append(
            f"{better.name} and {worse.name} cannot be told apart by ROUGE-L: {_figures(pair)}."
            if outcome(pair.ci_low, pair.ci_high) == "unclear"
            else f"{better.name} scores higher than {worse.name}: {_figures(pair)}."
        )
    return said


def _against(tuned: Standing, published: Sequence[Standing], standings: Standings) -> list[str]:
    found: dict[str, list[str]] = {"helped": [], "unclear": [], "hurt": []}
    for other in published:
        pair = standings.pair(tuned.name, other.name)
        sign = 1.0 if pair.b == tuned.name else -1.0
        low, high = sorted((sign * pair.ci_low, sign * pair.ci_high))
        found[outcome(low, high)].append(other.name)
    said = {
        "helped": "The tuned model scores higher than",
        "unclear": "The tuned model cannot be told apart from",
        "hurt": "The tuned model scores lower than",
    }
    return [f"{said[fate]} {', '.join(names)}." for fate, names in found.items() if names]


def _figures(pair: PairedComparison) -> str:
    return f"{signed(pair.delta)} ({number(pair.ci_low)} to {number(pair.ci_high)})"


def _plot(standings: Standings, key: str) -> Plot:
    shown = standings.systems[::-1]
    with canvas(110 + 25 * len(shown)) as (figure, (axes,)):
        for y, standing in enumerate(shown):
            middle, low, high = standing.interval
            colour = SERIES[0] if standing.is_published else SERIES[1]
            axes.errorbar(
                [middle],
                [y],
                # A bootstrap interval may leave its mean outside by a rounding.
                xerr=[[max(0.0, middle - low)], [max(0.0, high - middle)]],
                color=colour,
                marker="o" if standing.is_published else "D",
                markersize=6.5,
                linewidth=1.6,
                capsize=3,
                label=_only_once("published" if standing.is_published else _OWN, axes),
            )
            axes.plot(
                [standing.raw.rouge_l],
                [y],
                color=MUTED,
                marker="|",
                markersize=11,
                linestyle="none",
                label=_only_once("as written, not cut", axes),
            )
        labels = [shorten(visible(standing_label(s)), 36) for s in shown]
        axes.set_yticks(range(len(shown)), labels, color=INK)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlim(left=0)
        figure.supxlabel("ROUGE-L × 100, stop-controlled", fontsize=13)
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=3)
        caption = (
            f"Bars are {100 * standings.confidence:g} % intervals of each mean over the tasks. "
            "Two systems answered the same tasks, so their paired difference is surer than "
            "overlapping bars suggest: the table below has it for every two. A tick far left of "
            "its dot is a model that does not stop by itself."
        )
        return render(key, "This run beside published models", figure, caption)


def _only_once(label: str, axes: Axes) -> str:
    # matplotlib leaves out of the legend what begins with an underscore.
    known = axes.get_legend_handles_labels()[1]
    return f"_{label}" if label in known else label
