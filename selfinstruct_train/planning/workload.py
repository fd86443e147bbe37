"""How much a run has to do, stage by stage: requests, tokens, training steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from selfinstruct_train.config import Config, TrainingConfig
from selfinstruct_train.generation.calibration import CONTENT_FREE
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.planning.expected import Expected
from selfinstruct_train.planning.sizes import PromptSize, TextSizes
from selfinstruct_train.records import Row
from selfinstruct_train.training.arguments import seeds_only_lengths

StageName = Literal[
    "instructions", "classification", "instances", "training", "seeds-only training", "evaluation"
]


class Asked(Row):
    """Requests of one stage over all rounds."""

    stage: StageName
    requests: int
    prompt_tokens: int
    """As they are sent."""
    shared_tokens: int
    """Of these, in beginnings that an engine which keeps prefixes computes only once."""
    completion_tokens: int
    at_once: int
    """Most rows that are under way together."""
    longest: int
    """Tokens of one row beside the shared beginning, its completion at its limit."""


class Trained(Row):
    """Optimizer steps of one kind of training over all rounds."""

    stage: StageName
    trainings: int
    rows: int
    """Rows of the last training."""
    steps: int
    tokens: int
    """Tokens of prompts and answers, padding left out."""
    computed_tokens: int
    """With padding."""
    row_tokens: float
    """Mean of a row."""
    passes: int
    """Passes of a token through the base: forward, and as much again backward through frozen
    weights; one more where the weights are trained, where activations are computed again, and
    where DPO asks the reference."""


class SuiteSize(NamedTuple):
    """A suite in tokens."""

    items: int
    prompt: float
    """Mean tokens of a question."""
    answer: float
    """Mean tokens of the expected answer, end token included."""


def room(config: Config, seeds: int) -> int:
    """Instructions that the answer to one request of step 1 has room for."""
    step = config.generation.instructions
    if (step.style or config.generation.style) == "magpie":
        return 1
    shown = min(step.seed_demonstrations + step.machine_demonstrations, seeds)
    return step.last_item - 1 - shown


def accepted_instructions(config: Config, expected: Expected, per_list: int) -> float:
    """Instructions of one round that join the pool."""
    generation = config.generation
    wanted = generation.instructions_per_round / expected.with_instance
    most = generation.max_requests * per_list * expected.list_fill * expected.acceptance
    return min(wanted, most) if config.generates else 0.0


def generation_work(
    config: Config, expected: Expected, sizes: TextSizes, per_list: int
) -> tuple[Asked, ...]:
    """Requests of steps 1 to 3 over all rounds.

    Args:
        config: the settings, their style settled.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
    """
    if not config.generates:
        return ()
    generation, rounds = config.generation, config.rounds
    accepted = accepted_instructions(config, expected, per_list)
    first, second, third = generation.instructions, generation.classification, generation.instances
    slots = generation.engine.max_batch_size
    items = per_list * expected.list_fill
    # An operation asks for one instruction.
    items += generation.augment.share * (expected.list_fill - items)
    listed = min(items * sizes.item * expected.instruction_length, first.max_tokens)
    calibrating = sizes.calibrated + len(CONTENT_FREE) if second.calibrate else 0
    lists = accepted / expected.acceptance / items
    return (
        _asked(
            "instructions",
            [(lists * rounds, sizes.instructions, listed)],
            rounds,
            min(slots, first.requests_per_batch),
            first.max_tokens,
        ),
        _asked(
            "classification",
            [(accepted * rounds + calibrating, sizes.classification, 0.0)],
            rounds,
            min(slots, second.requests_per_batch),
            0,
        ),
        _asked(
            "instances",
            _instances(config, expected, sizes, accepted),
            rounds,
            min(slots, third.requests_per_batch),
            third.max_tokens,
        ),
    )


def _instances(
    config: Config, expected: Expected, sizes: TextSizes, accepted: float
) -> list[tuple[float, PromptSize, float]]:
    """Kinds of requests of step 3 in all rounds: how many, their prompts, tokens of the answer."""
    step, rounds = config.generation.instances, config.rounds
    own = (step.style or config.generation.style) == "magpie"
    written = 1.0 if own else expected.written_instances
    each = written * sizes.instance * expected.instances_length
    each = min(sizes.output if own else each, step.max_tokens)
    labelled, others = accepted * expected.classification, accepted * (1 - expected.classification)
    found = [
        (others * rounds, sizes.input_first, each),
        (labelled * rounds, sizes.output_first, each),
    ]
    answer = min(sizes.output, step.max_tokens)
    if step.answers != "as_written" or step.best_of > 1:
        found.append((others * written * step.best_of * rounds, sizes.answer, answer))
    tuned_writes = config.generation.instance_writer == "tuned"
    if step.consistency or tuned_writes:
        later = accepted * written * (rounds - 1)
        found.append((later, PromptSize(fmean(sizes.rows) - sizes.output, 0.0), answer))
    return found


def evaluation_work(
    config: Config, sizes: TextSizes, suites: Sequence[SuiteSize], lengths: int
) -> Asked:
    """Answers to the suites: each model once, the tuned ones in every round.

    Args:
        config: the settings.
        sizes: measured lengths.
        suites: what is asked.
        lengths: seeds-only models.
    """
    evaluation = config.evaluation
    tuned = config.rounds * len(config.training.trainings) + lengths
    kinds = []
    for suite in suites:
        question, answer = PromptSize(suite.prompt, 0.0), min(suite.answer, evaluation.max_tokens)
        # A base that was not tuned goes on to the limit.
        kinds.append((float(suite.items), question, float(evaluation.max_tokens)))
        kinds.append((float(suite.items * tuned), question, answer))
        if evaluation.few_shot_demonstrations:
            kinds.append((float(suite.items), sizes.few_shot, answer))
    slots = config.generation.engine.max_batch_size
    return _asked("evaluation", kinds, len(suites), slots, evaluation.max_tokens)


def _asked(
    stage: StageName,
    kinds: Sequence[tuple[float, PromptSize, float]],
    times: int,
    at_once: int,
    limit: int,
) -> Asked:
    """Add up kinds of requests, each of which computes its shared beginning so many times."""
    total = sum(count for count, _, _ in kinds)
    return Asked(
        stage=stage,
        # Half a list is still a request.
        requests=max(round(total), total > 0),
        prompt_tokens=round(sum(count * prompt.tokens for count, prompt, _ in kinds)),
        shared_tokens=round(
            sum(max(0.0, count - times) * prompt.shared for count, prompt, _ in kinds)
        ),
        completion_tokens=round(sum(count * written for count, _, written in kinds)),
        at_once=at_once,
        longest=limit
        + math.ceil(max((prompt.tokens - prompt.shared for _, prompt, _ in kinds), default=0.0)),
    )


def training_rows(
    config: Config, expected: Expected, sizes: TextSizes, per_list: int, own: int, number: int
) -> int:
    """Rows that round ``number`` is trained on."""
    most = config.generation.instances.max_per_instruction
    each = min(expected.kept_instances, most)
    written = accepted_instructions(config, expected, per_list) * each * (number + 1)
    seeds = len(sizes.rows) if config.training.include_seeds else 0
    if (mix := config.training.mix) is None:
        return round(written + seeds + own)
    kinds = [(mix.own, own), (mix.seeds, len(sizes.rows)), (mix.generated, written)]
    unit = min(count / weight for weight, count in kinds if weight)
    return round(unit * (sum(weight for weight, _ in kinds) + mix.replay))


def training_work(
    config: Config, expected: Expected, sizes: TextSizes, per_list: int, own: int
) -> tuple[Trained, ...]:
    """Trainings on all data, and on the seeds alone.

    Args:
        config: the settings.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
        own: rows of the user's own.
    """
    counts = [
        training_rows(config, expected, sizes, per_list, own, number)
        for number in range(config.rounds)
    ]
    all_steps = [
        _steps(training, rows) for rows in counts for training in config.training.trainings
    ]
    found = [_trained(config, "training", counts[-1], all_steps, sizes)]
    if config.training.method != "sft":
        preference, batch = config.training.preference, config.training.batch_size
        pairs = [preference.max_steps or _passes(preference.epochs, rows, batch) for rows in counts]
        # A pair is two rows.
        doubled = [2 * steps for steps in pairs for _ in config.training.trainings]
        found.append(_trained(config, "training", counts[-1], doubled, sizes, reference=True))
        found = found[1:] if config.training.method == "dpo" else found
    if config.evaluation.seeds_only:
        lengths = seeds_only_steps(config, sizes, all_steps)
        found.append(_trained(config, "seeds-only training", len(sizes.rows), lengths, sizes))
    return tuple(found)


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
    sizes: TextSizes,
    reference: bool = False,
) -> Trained:
    training = config.training
    tokens = sum(steps) * training.batch_size * fmean(sizes.rows)
    padded = 1.0 if training.packing else padding_factor(sizes.rows, training.micro_batch_size)
    return Trained(
        stage=stage,
        trainings=len(steps),
        rows=rows,
        steps=sum(steps),
        tokens=round(tokens),
        computed_tokens=round(tokens * padded),
        row_tokens=fmean(sizes.rows),
        passes=2 + (training.adapter == "none") + training.gradient_checkpointing + reference,
    )


def padding_factor(lengths: Sequence[int], micro_batch: int) -> float:
    """Tokens with padding relative to those without, in micro-batches drawn at random."""
    rng = derived_rng(0, "padding")
    drawn = [rng.choice(lengths) for _ in range(64 * micro_batch)]
    starts = range(0, len(drawn), micro_batch)
    return sum(max(drawn[i : i + micro_batch]) for i in starts) * micro_batch / sum(drawn)
