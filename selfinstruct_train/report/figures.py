"""The plots of the page. Each says in its caption what to see in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from selfinstruct_train.records import PairedComparison, TrainingStep
from selfinstruct_train.report.drawing import (
    BAD,
    GOOD,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Plot,
    canvas,
    render,
)
from selfinstruct_train.report.headline import BASELINE, outcome
from selfinstruct_train.report.suite_facts import SuiteFacts
from selfinstruct_train.report.tables import Acceptance, YieldRow
from selfinstruct_train.report.wording import number, shorten, visible
from selfinstruct_train.text.words import Units

UNITS = {
    "rouge_l": "ROUGE-L × 100",
    "accuracy": "% right by answers and constraints",
    "oracle_accuracy": "% right by the oracle",
}
_RIVALS = {BASELINE: "over the stop-controlled base", "seeds-only": "over the seeds-only model"}
_MOST_GROUPS = 40


def rounds_plot(suite: SuiteFacts, metric: str, key: str) -> Plot | None:
    """Gain of each round's tuned model, with intervals."""
    if not any(result.pair(BASELINE, metric) for result in suite.results):
        return None
    with canvas(300) as (figure, (axes,)):
        axes.axhline(0, color=INK, linewidth=1)
        for i, (rival, label) in enumerate(_RIVALS.items()):
            pairs = [(r.round, p) for r in suite.results if (p := r.pair(rival, metric))]
            if not pairs:
                continue
            # Side by side, so that one interval does not hide the other.
            x = [number + 0.06 * i for number, _ in pairs]
            axes.errorbar(
                x,
                [p.delta for _, p in pairs],
                yerr=_errors([p for _, p in pairs]),
                color=SERIES[i],
                marker=MARKERS[i],
                markersize=7,
                linewidth=1.8,
                linestyle="-" if i == 0 else "--",
                capsize=4,
                label=label,
            )
        axes.set_xlabel("round")
        # By what a thing is right stands in the title; here it would run into the legend.
        axes.set_ylabel(f"gain, {UNITS[metric].partition(' by ')[0]}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(suite.results[0].round - 0.5, suite.results[-1].round + 0.5)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper left")
        confidence = f"{100 * suite.best.comparison.confidence:g} %"
        caption = (
            f"Bars are paired bootstrap intervals ({confidence}). A bar that stays above the "
            "line at 0 is a sure gain. Where the seeds-only series lies above 0, the data that "
            "the model wrote add something that tuning on the seed tasks alone does not."
        )
        title = f"Gain of the tuned model by round on {suite.name}, {UNITS[metric]}"
        return render(key, title, figure, caption)


def groups_plot(
    pairs: Sequence[PairedComparison],
    metric: str,
    confidence: float,
    key: str,
    rival: str = _RIVALS[BASELINE],
) -> Plot | None:
    """Gain per application as dots with intervals, largest first."""
    if not pairs:
        return None
    largest = sorted(pairs, key=lambda p: (-p.n, p.group))[:_MOST_GROUPS]
    shown = sorted(largest, key=lambda p: (p.delta, p.group))
    with canvas(90 + 23 * len(shown)) as (figure, (axes,)):
        axes.axvline(0, color=INK, linewidth=1)
        for y, pair in enumerate(shown):
            colour = {"helped": GOOD, "hurt": BAD, "unclear": MUTED}[
                outcome(pair.ci_low, pair.ci_high)
            ]
            axes.errorbar(
                [pair.delta],
                [y],
                xerr=_errors([pair]),
                color=colour,
                marker="o",
                markersize=6.5,
                markerfacecolor=colour if colour != MUTED else "none",
                linewidth=1.6,
                capsize=3,
            )
        labels = [f"{shorten(visible(p.group), 24)} ({p.n})" for p in shown]
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        # Long names leave the axes narrower than this label.
        figure.supxlabel(f"gain {shorten(visible(rival), 40)}, {UNITS[metric]}", fontsize=13)
        axes.grid(axis="y", visible=False)
        sure = sum(outcome(p.ci_low, p.ci_high) == "helped" for p in pairs)
        worse = sum(outcome(p.ci_low, p.ci_high) == "hurt" for p in pairs)
        left_out = f" The {_MOST_GROUPS} largest are drawn." if len(pairs) > _MOST_GROUPS else ""
        caption = (
            f"Filled dots have a {100 * confidence:g} % interval clear of 0: {sure} of "
            f"{len(pairs)} gained, {worse} lost; hollow ones cannot be told apart from no "
            "change. In brackets: items. The intervals are not corrected for their number, so "
            "some miss by chance, and with fewer than ten items they are narrower than they "
            f"should be.{left_out}"
        )
        return render(key, f"Gain per application, {UNITS[metric]}", figure, caption)


def yield_plot(rows: Sequence[YieldRow], what: str, key: str) -> Plot | None:
    """What became of the candidates: one bar for each fate."""
    if not rows:
        return None
    with canvas(76 + 25 * len(rows)) as (figure, (axes,)):
        y = range(len(rows))
        colours = [GOOD if row.fate == "kept" else BAD if row.is_fault else MUTED for row in rows]
        bars = axes.barh(y, [row.rows for row in rows], color=colours, height=0.66)
        axes.bar_label(
            bars, [f"{row.rows:,} ({row.percent:.1f} %)" for row in rows], padding=4, fontsize=12
        )
        axes.set_yticks(y, [shorten(visible(row.fate), 28) for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, max(row.rows for row in rows) * 1.48)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(what)
        axes.grid(axis="y", visible=False)
        total = sum(row.rows for row in rows)
        faults = [row for row in rows if row.is_fault]
        loss = (
            f" Most of what was at fault fell to “{faults[0].fate}” ({faults[0].rows:,})."
            if faults
            else " None was at fault."
        )
        if capped := sum(row.rows for row in rows if not row.is_fault and row.fate != "kept"):
            loss += f" {capped:,} were sound but over the cap for one instruction (grey)."
        kept = next(row for row in rows if row.fate == "kept")
        caption = f"Of {total:,} {what}, {kept.percent:.1f} % were kept.{loss}"
        return render(key, f"Yield of {what} by reason", figure, caption)


def acceptance_plot(
    rounds: Mapping[int, Sequence[Acceptance]], floor: float, key: str
) -> Plot | None:
    """Share of candidates that joined the pool as each round went on."""
    if not any(rounds.values()):
        return None
    with canvas(290) as (figure, (axes,)):
        for i, (number, points) in enumerate((n, p) for n, p in rounds.items() if p):
            axes.plot(
                [point.candidates for point in points],
                [point.percent for point in points],
                color=SERIES[i % len(SERIES)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=5,
                label=f"round {number}",
            )
        axes.axhline(100 * floor, color=BAD, linestyle=":", linewidth=1.6, label="floor")
        axes.set_ylim(0, 104)
        axes.set_xlim(left=0)
        axes.set_xlabel("candidates of the round so far")
        axes.set_ylabel("joined the pool, %")
        figure.legend(loc="outside upper left", ncols=4)
        caption = (
            "Each point is the share kept since the point before. A falling line means that the "
            "pool fills up and new instructions resemble old ones; a round ends as saturated "
            f"under {100 * floor:g} %."
        )
        return render(key, "Acceptance of instruction candidates over time", figure, caption)


def similarity_plot(scores: Sequence[float], key: str) -> Plot | None:
    """How near each instruction lies to its nearest seed task."""
    if not scores:
        return None
    with canvas(270) as (figure, (axes,)):
        axes.hist(scores, bins=np.linspace(0, 1, 21).tolist(), color=SERIES[0], rwidth=0.92)
        axes.set_xlim(0, 1)
        axes.set_xlabel("ROUGE-L F1 with the nearest seed task")
        axes.set_ylabel("instructions")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="x", visible=False)
        far = 100 * sum(score < 0.4 for score in scores) / len(scores)
        caption = (
            f"Further left is more unlike anything a person wrote: {far:.0f} % of "
            f"{len(scores):,} instructions lie below 0.4; the median is "
            f"{number(float(np.median(scores)), 2)}. As Figure 3 of the paper."
        )
        return render(key, "Similarity of instructions to their nearest seed task", figure, caption)


def lengths_plot(lengths: Mapping[str, Sequence[int]], units: Units, key: str) -> Plot | None:
    """Histograms of lengths in words or characters, one below another."""
    drawn = {what: found for what, found in lengths.items() if found}
    if not drawn:
        return None
    with canvas(24 + 150 * len(drawn), rows=len(drawn)) as (figure, every):
        for i, (axes, (what, found)) in enumerate(zip(every, drawn.items(), strict=True)):
            _length_histogram(axes, found, SERIES[i])
            axes.set_xlabel(f"{units} of {what}")
        medians = ", ".join(f"{what} {np.median(found):g}" for what, found in drawn.items())
        caption = (
            f"Medians: {medians}. The last bar of each holds everything longer. As Figure 4 of "
            "the paper."
        )
        return render(key, f"Lengths in {units}", figure, caption)


def _length_histogram(axes: Axes, lengths: Sequence[int], colour: str) -> None:
    # A few very long texts would squeeze all others into one bar.
    longest = max(4, int(np.percentile(lengths, 98)))
    step = max(1, -(-longest // 30))
    edges = np.arange(0, longest + 2 * step, step) - 0.5
    axes.hist(np.minimum(lengths, edges[-1] - 0.5), bins=edges.tolist(), color=colour, rwidth=0.9)
    axes.set_ylabel("count")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="x", visible=False)


def training_plot(curves: Mapping[str, Sequence[TrainingStep]], key: str) -> Plot | None:
    """Loss, gradient norm and learning rate against optimizer steps, one line for each adapter."""
    drawn = {name: steps for name, steps in curves.items() if steps}
    if not drawn:
        return None
    figures: dict[str, list[_Curve]] = {
        "loss on the answers,\nnats per token": [
            _Curve(name, [(s.step, s.loss) for s in steps]) for name, steps in drawn.items()
        ],
        "gradient norm": [
            _Curve(name, points)
            for name, steps in drawn.items()
            if (points := [(s.step, n) for s in steps if (n := s.gradient_norm) is not None])
        ],
        "learning rate": [
            _Curve(name, [(s.step, s.learning_rate) for s in steps])
            for name, steps in drawn.items()
        ],
    }
    figures = {label: lines for label, lines in figures.items() if lines}
    with canvas(110 + 190 * len(figures), rows=len(figures)) as (figure, every):
        places = {name: i for i, name in enumerate(drawn)}
        for axes, (label, lines) in zip(every, figures.items(), strict=True):
            for line in lines:
                _draw_curve(axes, line, places[line.name])
            axes.set_ylabel(label)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        every[-1].set_xlabel("optimizer step")
        figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        ends = "; ".join(f"{name} {number(steps[-1].loss, 3)}" for name, steps in drawn.items())
        caption = (
            f"Last logged loss: {ends}. Losses on different data do not compare: a low "
            "seeds-only curve shows that a few tasks are soon learned by heart, not that it is "
            "the better model. A gradient norm that jumps and stays high, or falls to 0 early, "
            "means that the training broke."
        )
        return render(key, "Loss, gradient norm and learning rate of the training", figure, caption)


def rewards_plot(curves: Mapping[str, Sequence[TrainingStep]], key: str) -> Plot | None:
    """How well and by how much chosen answers are told from rejected ones, step by step."""
    drawn = {name: steps for name, steps in curves.items() if steps}
    if not drawn:
        return None
    with canvas(110 + 2 * 190, rows=2) as (figure, (accuracies, margins)):
        for i, (name, steps) in enumerate(drawn.items()):
            accuracy = [(s.step, 100 * (s.reward_accuracy or 0.0)) for s in steps]
            _draw_curve(accuracies, _Curve(name, accuracy), i)
            margin = [(s.step, s.reward_margin or 0.0) for s in steps]
            _draw_curve(margins, _Curve(name, margin), i)
        accuracies.axhline(50, color=MUTED, linestyle=":", linewidth=1.6)
        accuracies.set_ylim(0, 104)
        accuracies.set_ylabel("pairs told apart, %")
        margins.axhline(0, color=INK, linewidth=1)
        margins.set_ylabel("reward margin")
        margins.set_xlabel("optimizer step")
        for axes in (accuracies, margins):
            axes.set_xlim(left=0)
        figure.legend(*accuracies.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        ends = "; ".join(
            f"{name} {number(100 * (steps[-1].reward_accuracy or 0.0))} %, margin "
            f"{number(steps[-1].reward_margin or 0.0, 3)}"
            for name, steps in drawn.items()
        )
        caption = (
            f"Last logged: {ends}. A pair is told apart where the chosen answer gained more "
            "likelihood than the rejected one; the margin says how much more, times beta. At the "
            "dotted line nothing was learned. These are pairs that are trained on: a high curve "
            "says that they were learned, not that answers became better."
        )
        return render(key, "Training on pairs", figure, caption)


class _Curve(NamedTuple):
    """A line of the plot."""

    name: str
    points: list[tuple[int, float]]
    """(step, value)."""


def _draw_curve(axes: Axes, line: _Curve, place: int) -> None:
    axes.plot(
        [step for step, _ in line.points],
        [value for _, value in line.points],
        color=SERIES[place % len(SERIES)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
        linestyle="-" if place < len(SERIES) else "--",
        label=line.name,
    )


def _errors(pairs: Sequence[PairedComparison]) -> list[list[float]]:
    # A bootstrap interval may, with few items, leave its mean outside by a rounding.
    below = [max(0.0, p.delta - p.ci_low) for p in pairs]
    above = [max(0.0, p.ci_high - p.delta) for p in pairs]
    return [below, above]
