"""How much a run has to do, stage by stage: requests, tokens, training steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.generation.calibration import CONTENT_FREE
from selfinstruct_train.planning.expected import Expected
from selfinstruct_train.planning.further_sizes import FurtherSizes, PassageSizes
from selfinstruct_train.planning.sizes import PromptSize, TextSizes
from selfinstruct_train.records import Row

StageName = Literal[
    "passages",
    "instructions",
    "classification",
    "instances",
    "fixing",
    "labels",
    "replay",
    "training",
    "seeds-only training",
    "evaluation",
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


Kind = tuple[float, PromptSize, float]
"""Requests of one kind: how many, their prompts, and tokens of an answer."""
NOTHING = FurtherSizes()


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


def room_of_request(config: Config, per_list: int) -> float:
    """The same of a request, which may ask for an operation and so for one instruction."""
    return per_list + config.generation.augment.share * (1 - per_list)


class OfTexts(NamedTuple):
    """What one round takes from own texts."""

    passages: int
    """Asked about."""
    kept: float
    """Instructions with their instance."""


def of_texts(config: Config, expected: Expected, known: PassageSizes | None) -> list[OfTexts]:
    """What each round takes from own texts: its share, as long as there are passages."""
    step, left = config.generation.passages, known.number if known else 0
    most = round(step.share * config.generation.instructions_per_round)
    found = []
    for _ in range(config.rounds):
        each = len(step.tasks) * expected.kept_of_texts
        passages = min(left, math.ceil(most / each)) if each else left
        found.append(OfTexts(passages, min(float(most), passages * each)))
        left -= passages
    return found


def accepted_by_round(
    config: Config, expected: Expected, per_list: int, texts: Sequence[OfTexts]
) -> list[float]:
    """Instructions of each round that join the pool, those of own texts left out."""
    generation = config.generation
    room = room_of_request(config, per_list)
    most = generation.max_requests * room * expected.list_fill * expected.acceptance
    wanted = [generation.instructions_per_round - found.kept for found in texts]
    return [
        min(count / expected.with_instance, most) if config.generates else 0.0 for count in wanted
    ]


def generation_work(
    config: Config,
    expected: Expected,
    sizes: TextSizes,
    per_list: int,
    further: FurtherSizes = NOTHING,
) -> tuple[Asked, ...]:
    """Requests of steps 1 to 3 over all rounds.

    Args:
        config: the settings, their style settled.
        expected: what the model yields.
        sizes: measured lengths.
        per_list: see `room`.
        further: measured lengths of what is asked beyond these steps.
    """
    if not config.generates:
        return ()
    generation, rounds = config.generation, config.rounds
    texts = of_texts(config, expected, further.passages)
    accepted = accepted_by_round(config, expected, per_list, texts)
    first, second, third = generation.instructions, generation.classification, generation.instances
    slots = generation.engine.max_batch_size
    calibrating = sizes.calibrated + len(CONTENT_FREE) if second.calibrate else 0
    return (
        add_up(
            "instructions",
            _lists(config, expected, sizes, per_list, sum(accepted), further.operation),
            rounds,
            min(slots, first.requests_per_batch),
            first.max_tokens,
        ),
        add_up(
            "classification",
            [(sum(accepted) + calibrating, sizes.classification, 0.0)],
            rounds,
            min(slots, second.requests_per_batch),
            0,
        ),
        add_up(
            "instances",
            _instances(config, expected, sizes, accepted),
            rounds,
            min(slots, third.requests_per_batch),
            third.max_tokens,
        ),
    )


def _lists(
    config: Config,
    expected: Expected,
    sizes: TextSizes,
    per_list: int,
    accepted: float,
    operation: PromptSize | None,
) -> list[Kind]:
    """Requests of step 1: lists, and operations that ask for one instruction each."""
    most, share = config.generation.instructions.max_tokens, config.generation.augment.share
    one = expected.list_fill * sizes.item * expected.instruction_length
    requests = accepted / expected.acceptance
    requests /= room_of_request(config, per_list) * expected.list_fill
    found = [(requests * (1 - share), sizes.instructions, min(per_list * one, most))]
    if operation is not None:
        found.append((requests * share, operation, min(one, most)))
    return found


def _instances(
    config: Config, expected: Expected, sizes: TextSizes, accepted: Sequence[float]
) -> list[Kind]:
    """Requests of step 3 in all rounds."""
    step, total = config.generation.instances, sum(accepted)
    own = (step.style or config.generation.style) == "magpie"
    written = 1.0 if own else expected.written_instances
    each = min(written * sizes.instance * expected.instances_length, step.max_tokens)
    if own:  # how long a chat model's answers are has nothing to do with the seeds'
        each = expected.own_answer * step.max_tokens
    labelled, others = total * expected.classification, total * (1 - expected.classification)
    found = [(others, sizes.input_first, each), (labelled, sizes.output_first, each)]
    answer = min(sizes.output, step.max_tokens)
    if step.answers != "as_written" or step.best_of > 1:
        found.append((others * written * step.best_of, sizes.answer, answer))
    tuned_writes = config.generation.instance_writer == "tuned"
    if step.consistency or tuned_writes:
        later = sum(accepted[1:]) * written
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
    return add_up("evaluation", kinds, len(suites), slots, evaluation.max_tokens)


def add_up(
    stage: StageName,
    kinds: Sequence[Kind],
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
