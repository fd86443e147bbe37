"""What a run wrote, in figures: the paper's Table 1, how new it is, and what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import fmean, quantiles

from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Classified, Labelled, LeftOutRow, Rejection, Row
from selfinstruct_train.report.counts import RoundCounts, trait_yields
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.text.words import Units

_SHOWN_VALUES = 12
"""Most values of a trait that a terminal is told."""
_SHOWN_CHARACTERS = 60


class Similarity(Row):
    """ROUGE-L F1 of instructions with their nearest, 0 to 1."""

    n: int
    mean: float
    median: float
    highest_tenth: float
    """A tenth of them is nearer than this."""


class Drops(Row):
    """How many rows a reason dropped."""

    stage: str
    reason: str
    n: int


class TraitStats(Row):
    """What came of the requests that were alike in one respect."""

    name: str
    """Of an attribute, or ``operation``."""
    value: str
    candidates: int
    """Instructions that they wrote."""
    kept: int


class LabelStats(Row):
    """How many instructions have a label."""

    name: str
    """``category`` or ``task type``, and whether the model says so."""
    value: str
    n: int


class DataStats(Row):
    """Figures of what one round wrote; those up to the lengths are Table 1 of the paper."""

    round: int
    instructions: int
    classification: int
    """Instructions that were found to be classification tasks."""
    other: int
    """Instructions that were found to be something else."""
    instances: int
    empty_inputs: int
    of_texts: int
    """Instances that were written for passages of the user's own texts."""
    instruction_length: float | None
    """Mean, in ``units``; None where there is nothing to measure, as in the next two."""
    input_length: float | None
    """Of the inputs that are not empty."""
    output_length: float | None
    units: Units
    to_pool: Similarity | None
    """With the nearest instruction before it; None where none was measured."""
    to_seeds: Similarity | None
    dropped: tuple[Drops, ...]
    """Most frequent first."""
    traits: tuple[TraitStats, ...] = ()
    """By operation and by attribute; none where requests do not differ in it."""
    labels: tuple[LabelStats, ...] = ()
    """By category and by task type, most frequent first; none where seeds have no such labels."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The figures for a terminal."""
        found = [
            f"round {self.round}",
            f"  instructions                 {self.instructions:>8}",
            f"    classification             {self.classification:>8}",
            f"    other                      {self.other:>8}",
            f"  instances                    {self.instances:>8}",
            f"    with an empty input        {self.empty_inputs:>8}",
            *([f"    for your own texts         {self.of_texts:>8}"] if self.of_texts else []),
            f"  {f'mean {self.units} of instructions':<29}{_figure(self.instruction_length)}",
            f"    of inputs that are there   {_figure(self.input_length)}",
            f"    of outputs                 {_figure(self.output_length)}",
        ]
        for name, score in (("one before it", self.to_pool), ("a seed task", self.to_seeds)):
            if score is not None:
                found.append(
                    f"  ROUGE-L with {name}: mean {score.mean:.2f}, median {score.median:.2f}, "
                    f"highest tenth above {score.highest_tenth:.2f} (n = {score.n})"
                )
        for name, labels in groupby(self.labels, key=lambda label: label.name):
            found.append(f"  instructions by {name}")
            found += _some([(one.value, f"{one.n:>8}") for one in labels])
        for name, traits in groupby(self.traits, key=lambda trait: trait.name):
            found.append(f"  kept of what was written, by {name}")
            found += _some([(one.value, f"{one.kept:>8} of {one.candidates}") for one in traits])
        found += [f"  dropped {drop.n:>6}  {drop.stage}: {drop.reason}" for drop in self.dropped]
        return tuple(found)


def data_stats(run: RunDirectory) -> tuple[DataStats, ...]:
    """Count what each round wrote, as far as it is; what was pruned does not count.

    Raises:
        RunError: the folder is not a run.
        DataError: a row cannot be read.
    """
    units = load_pack(run.config().generation.prompts).rules.units
    live = LiveRows(run)
    return tuple(
        _of_round(number, directory, live, units) for number, directory in enumerate(run.rounds())
    )


def _of_round(number: int, directory: RoundDirectory, live: LiveRows, units: Units) -> DataStats:
    counts = RoundCounts(1, units)
    instructions = list(counts.count_instructions(live.instructions_of(directory)))
    known = {row.id for row in instructions}
    classified = RowStore(directory.classified, Classified, writable=False).stream()
    counts.count_classified(row for row in classified if row.id in known)
    counts.count_left_out(RowStore(directory.selection, LeftOutRow, writable=False).stream())
    labelled = RowStore(directory.labels, Labelled, writable=False).stream()
    counts.count_labelled(row for row in labelled if row.id in known)
    for _ in counts.count_instances(live.instances_of(directory)):
        pass
    for stage in ("instructions", "instances"):
        dropped = RowStore(directory.rejected(stage), Rejection, writable=False).stream()
        for _ in counts.count_rejections(dropped):
            pass
    with_input = counts.instances - counts.empty_inputs
    return DataStats(
        round=number,
        instructions=counts.instructions,
        classification=counts.classification,
        other=counts.classified - counts.classification,
        instances=counts.instances,
        empty_inputs=counts.empty_inputs,
        of_texts=counts.of_texts,
        instruction_length=_mean(counts.instruction_length, counts.instructions),
        input_length=_mean(counts.input_length, with_input),
        output_length=_mean(counts.output_length, counts.instances),
        units=units,
        to_pool=_similarity(row.nearest.score for row in instructions if row.nearest),
        to_seeds=_similarity(row.nearest_seed.score for row in instructions if row.nearest_seed),
        dropped=tuple(
            Drops(stage=reason.stage, reason=reason.reason, n=n)
            for reason, n in counts.dropped.most_common()
        ),
        traits=tuple(
            TraitStats(**found.trait._asdict(), candidates=found.candidates, kept=found.kept)
            for found in trait_yields([counts])
        ),
        labels=tuple(
            LabelStats(name=label.name, value=label.value, n=n)
            for label, n in sorted(counts.labels.items(), key=lambda item: (item[0].name, -item[1]))
        ),
    )


def _some(values: Sequence[tuple[str, str]]) -> Iterator[str]:
    for value, figure in values[:_SHOWN_VALUES]:
        yield f"    {value[:_SHOWN_CHARACTERS]:<27}{figure}"
    if len(values) > _SHOWN_VALUES:
        yield f"    and {len(values) - _SHOWN_VALUES} more; --json has them all"


def _mean(total: int, n: int) -> float | None:
    return round(total / n, 3) if n else None


def _similarity(scores: Iterable[float]) -> Similarity | None:
    found = list(scores)
    if not found:
        return None
    tenths = _tenths(found)
    return Similarity(
        n=len(found),
        mean=round(fmean(found), 4),
        median=round(tenths[4], 4),
        highest_tenth=round(tenths[8], 4),
    )


def _tenths(scores: Sequence[float]) -> list[float]:
    return quantiles(scores, n=10, method="inclusive") if len(scores) > 1 else [scores[0]] * 9


def _figure(value: float | None) -> str:
    return f"{'none' if value is None else f'{value:.1f}':>8}"
