"""How much a run has to train: rows, optimizer steps, tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from statistics import fmean
from typing import NamedTuple

from selfinstruct_train.config import Config, TrainingConfig
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.planning.expected import Expected
from selfinstruct_train.planning.further_sizes import FurtherSizes
from selfinstruct_train.planning.sizes import TextSizes
from selfinstruct_train.planning.workload import (
    NOTHING,
    StageName,
    Trained,
    accepted_by_round,
    of_texts,
)
from selfinstruct_train.training.arguments import seeds_only_lengths
from selfinstruct_train.training.batches import least_padding

_DRAWN = 256
"""Rows that stand for all of a training."""


class Rows(NamedTuple):
    """What one training is given, in numbers."""

    total: int
    of_texts: float
    """Of these, rows for passages of own texts."""
    replay: float
    """Of these, rows of replay."""


def rows_by_round(
    config: Config,
    expected: Expected,
    sizes: TextSizes,
    per_list: int,
    own: int,
    further: FurtherSizes = NOTHING,
) -> list[Rows]:
    """The rows that each round is trained on.

    Args:
        config: the settings.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
        own: rows of the user's own.
        further: measured lengths of what is asked beyond steps 1 to 3.
    """
    step = config.generation.instances
    texts = of_texts(config, expected, further.passages)
    accepted = accepted_by_round(config, expected, per_list, texts)
    each = min(expected.kept_instances, step.max_per_instruction)
    if step.fix:
        each *= 1 - expected.held_wrong * (1 - expected.right_again)
    found = []
    for number in range(config.rounds):
        first = 0 if config.training.rows_of == "all_rounds" else number
        listed = sum(accepted[first : number + 1]) * each
        passages = sum(one.kept for one in texts[first : number + 1])
        found.append(_mixed(config, sizes, listed + passages, passages, own, further))
    return found


def _mixed(
    config: Config,
    sizes: TextSizes,
    written: float,
    passages: float,
    own: int,
    further: FurtherSizes,
) -> Rows:
    mix, training = config.training.mix, config.training
    if mix is None:
        seeds = len(sizes.rows) if training.include_seeds else 0
        return Rows(round(written + seeds + own), passages, 0.0)
    kinds = [(mix.own, own), (mix.seeds, len(sizes.rows)), (mix.generated, written)]
    unit = min(count / weight for weight, count in kinds if weight)
    taken = unit * mix.generated / written if written else 0.0
    replay = unit * mix.replay
    if further.replay is not None:
        replay = min(replay, further.replay.number)
    total = unit * sum(weight for weight, _ in kinds) + replay
    return Rows(round(total), passages * taken, replay)


def training_work(
    config: Config,
    expected: Expected,
    sizes: TextSizes,
    per_list: int,
    own: int,
    further: FurtherSizes = NOTHING,
) -> tuple[Trained, ...]:
    """Trainings on all data, and on the seeds alone.

    Args:
        config: the settings.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
        own: rows of the user's own.
        further: measured lengths of what is asked beyond steps 1 to 3.
    """
    rows = rows_by_round(config, expected, sizes, per_list, own, further)
    last = rows[-1]
    lengths = sizes.rows
    if further.passages is not None:
        lengths = mixed_lengths(sizes.rows, further.passages.rows, last.of_texts / last.total)
    all_steps = [
        _steps(training, one.total) for one in rows for training in config.training.trainings
    ]
    found = [_trained(config, "training", last.total, all_steps, lengths)]
    if config.training.method != "sft":
        preference, batch = config.training.preference, config.training.batch_size
        pairs = [
            preference.max_steps or _passes(preference.epochs, one.total, batch) for one in rows
        ]
        # A pair is two rows.
        doubled = [2 * steps for steps in pairs for _ in config.training.trainings]
        found.append(_trained(config, "training", last.total, doubled, lengths, reference=True))
        found = found[1:] if config.training.method == "dpo" else found
    if config.evaluation.seeds_only:
        steps = seeds_only_steps(config, sizes, all_steps)
        found.append(_trained(config, "seeds-only training", len(sizes.rows), steps, sizes.rows))
    return tuple(found)


def mixed_lengths(some: Sequence[int], others: Sequence[int], share: float) -> tuple[int, ...]:
    """Lengths of rows of two kinds, of which the second has a share."""
    second = round(_DRAWN * min(1.0, share))
    return (*islice(cycle(some), _DRAWN - second), *islice(cycle(others), second))


def seeds_only_steps(config: Config, sizes: TextSizes, most: Sequence[int]) -> list[int]:
    """Steps of each training on the seeds alone, given those of the trainings on all data."""
    epochs, batch = config.evaluation.seeds_only_epochs, config.training.batch_size
    return sorted(
        {n for steps in most for n in seeds_only_lengths(epochs, len(sizes.rows), batch, steps)}
    )


def _steps(training: TrainingConfig, rows: int) -> int:
    return training.max_steps or _passes(training.epochs, rows, training.batch_size)


def _passes(epochs: float, rows: int, batch: int) -> int:
    return math.ceil(epochs * math.ceil(rows / batch))


def _trained(
    config: Config,
    stage: StageName,
    rows: int,
    steps: Sequence[int],
    lengths: Sequence[int],
    reference: bool = False,
) -> Trained:
    training = config.training
    tokens = sum(steps) * training.batch_size * fmean(lengths)
    batch, micro = training.batch_size, training.micro_batch_size
    padded = 1.0 if training.packing else padding_factor(lengths, batch, min(batch, micro))
    return Trained(
        stage=stage,
        trainings=len(steps),
        rows=rows,
        steps=sum(steps),
        tokens=round(tokens),
        computed_tokens=round(tokens * padded),
        row_tokens=fmean(lengths),
        passes=2 + (training.adapter == "none") + training.gradient_checkpointing + reference,
    )


def padding_factor(lengths: Sequence[int], batch: int, micro_batch: int) -> float:
    """Tokens with padding relative to those without, in the micro-batches of steps drawn at random.

    Rows of like length share a micro-batch, see `StepBatches`.
    """
    rng = derived_rng(0, "padding")
    tokens = computed = 0
    for _ in range(64):
        step = sorted((rng.choice(lengths) for _ in range(batch)), reverse=True)
        tokens += sum(step)
        ends = least_padding(step, math.ceil(batch / micro_batch))
        computed += sum((stop - start) * step[start] for start, stop in pairwise((0, *ends)))
    return computed / tokens
