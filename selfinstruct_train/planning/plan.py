"""A run's forecast, put together: what is read and measured, worked out and said."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from selfinstruct_train.config import Config
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.generation.domain import shown_pack
from selfinstruct_train.generation.style import settle_style
from selfinstruct_train.models.describe import describe_model
from selfinstruct_train.models.memory import free_memory
from selfinstruct_train.models.precision import has_fast_bf16, settle_precision
from selfinstruct_train.packs.pack import Pack, require_demonstrations
from selfinstruct_train.planning.expected import (
    EarlierRun,
    Expected,
    Yield,
    expected_from,
    recorded,
)
from selfinstruct_train.planning.further_sizes import FurtherSizes, measure_further
from selfinstruct_train.planning.further_work import assumptions, further_work
from selfinstruct_train.planning.hardware import (
    Hardware,
    Machine,
    asking_seconds,
    cpu,
    gpu,
    training_seconds,
)
from selfinstruct_train.planning.memory import (
    Memory,
    training_memory,
    training_shortage,
    writing_memory,
    writing_shortage,
)
from selfinstruct_train.planning.pace import Pace, pace_of
from selfinstruct_train.planning.probe import Probe
from selfinstruct_train.planning.sizes import ModelSize, TextSizes, measure, model_size
from selfinstruct_train.planning.training_work import rows_by_round, training_work
from selfinstruct_train.planning.workload import (
    Asked,
    SuiteSize,
    Trained,
    evaluation_work,
    generation_work,
    room,
    room_of_request,
)
from selfinstruct_train.records import Row
from selfinstruct_train.rounds.inputs import Inputs, read_files
from selfinstruct_train.rounds.preflight import count_parameters
from selfinstruct_train.rounds.replay import BATCH
from selfinstruct_train.templates import encode

_BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}


class Stage(Row):
    """Time of one stage over all rounds."""

    stage: str
    seconds: float


class Plan(Row):
    """What a run will take."""

    model: str
    parameters: int
    machine: str
    basis: str
    """What the times rest on."""
    expected: Expected
    asked: tuple[Asked, ...]
    trained: tuple[Trained, ...]
    stages: tuple[Stage, ...]
    memory: tuple[Memory, ...]
    available: int
    """Bytes of memory on the machine."""
    shortages: tuple[str, ...]
    """What does not fit, and which setting fixes it."""
    served_prompt_tokens: int | None
    """Tokens that a server bills, where one writes the data."""
    served_completion_tokens: int | None
    batches: int | None
    """Jobs of a vendor's Batch API, where they are asked in such: most take half the price."""
    left_out: tuple[str, ...]
    """Settings whose work is not in the figures."""
    assumptions: tuple[str, ...]
    """What nothing was measured of."""
    hours: float
    cost: float | None
    """Hours times the price of one, where a price was given."""


class _Measured(NamedTuple):
    """What is known of a config before anything runs."""

    config: Config
    size: ModelSize
    weight_bytes: int
    texts: TextSizes
    further: FurtherSizes
    suites: tuple[SuiteSize, ...]
    seeds: int
    own: int


def make_plan(
    config: Config,
    on: Machine = "cpu",
    price: float | None = None,
    earlier: EarlierRun | None = None,
    probed: Probe | None = None,
    inputs: Inputs | None = None,
) -> Plan:
    """Forecast a run; the weights of its model are not loaded.

    Args:
        config: the settings.
        on: the machine.
        price: of an hour on it.
        earlier: a run whose yields are expected again.
        probed: a short generation of this config on that machine, whose yields and pace are.
        inputs: what `read_files` has read of these settings; by default it is read here.

    Raises:
        SelfInstructError: the config names something that cannot be read.
    """
    known = _measure(config, inputs or read_files(config), on)
    config, size = known.config, known.size
    per_list = room(config, known.seeds)
    expected = recorded(config)
    if earlier is not None:
        expected = _expected(earlier.found, str(earlier.path), known, per_list)
    if probed is not None:
        name = f"a probe of {probed.seconds:.0f} s"
        expected = _expected(probed.found, name, known, per_list)
    work = (config, expected, known.texts, per_list)
    trained = training_work(*work, known.own, known.further)
    generated = generation_work(*work, known.further)
    rows = rows_by_round(*work, known.own, known.further)
    replayed = [one.replay for one in rows for _ in config.training.trainings]
    generated += further_work(*work, known.further, replayed)
    tuned_on_seeds = sum(w.trainings for w in trained if w.stage == "seeds-only training")
    evaluated = evaluation_work(config, known.texts, known.suites, tuned_on_seeds)
    asked = (*generated, evaluated)
    training_bytes = 2 if on != "cpu" or has_fast_bf16(torch.device("cpu")) else 4
    machine = _machine(config, on, known.weight_bytes, training_bytes)
    served = config.generation.engine.kind == "server"
    here = (evaluated,) if served else asked
    pace = Pace()
    if probed is not None:
        slots = config.generation.engine.max_batch_size
        pace = pace_of(probed, known.texts, machine, (size, known.weight_bytes), slots, served)
    times = [
        (w.stage, pace.of(w.stage) * asking_seconds(w, machine, size, known.weight_bytes))
        for w in here
    ]
    if served and probed is not None:
        times += [(work.stage, pace.of_request(work.stage) * work.requests) for work in generated]
    times += [(work.stage, training_seconds(work, machine, size)) for work in trained]
    hours = sum(seconds for _, seconds in times) / 3600
    passages = known.further.passages.rows if known.further.passages else ()
    longest = min(max(*known.texts.rows, *passages), config.training.max_length)
    shapes = (size, known.weight_bytes)
    step = training_memory(config, *shapes, training_bytes, longest)
    short = training_shortage(config, *shapes, training_bytes, longest, machine)
    shortages = [*(writing_shortage(work, *shapes, machine) for work in here), short]
    return Plan(
        model=config.model.name_or_path,
        parameters=size.parameters,
        machine=on,
        basis=f"{machine.basis}{pace.sentence}",
        expected=expected,
        asked=asked,
        trained=trained,
        stages=tuple(Stage(stage=name, seconds=round(seconds, 1)) for name, seconds in times),
        memory=(*(writing_memory(work, *shapes, work.at_once) for work in here), step),
        available=int(machine.memory),
        shortages=tuple(shortage.sentence for shortage in shortages if shortage),
        served_prompt_tokens=sum(w.prompt_tokens for w in generated) if served else None,
        served_completion_tokens=sum(w.completion_tokens for w in generated) if served else None,
        batches=_batches(config, generated),
        left_out=_left_out(config),
        assumptions=tuple(assumptions(config, expected)),
        hours=round(hours, 4),
        cost=None if price is None else round(hours * price, 2),
    )


def _measure(config: Config, inputs: Inputs, on: Machine) -> _Measured:
    """Take the sizes of everything that a config names but the weights."""
    seeds = inputs.seeds
    # The machine that is planned for need not be this one.
    described = describe_model(config.model.model_copy(update={"device": "cpu"}))
    config = settle_style(config, described).config
    if on == "cpu" and (settled := settle_precision(config.model, described)) is not None:
        described = described._replace(dtype=settled.dtype)
    pack = shown_pack(inputs.pack, config, seeds)
    require_demonstrations(pack, config.generation.prompts)
    size = model_size(described.config, *count_parameters(config, described))
    halved = on != "cpu" and config.model.dtype == "auto"
    context = config.model.model_copy(update={"context_length": described.context_length})
    within = config.model_copy(update={"model": context})
    tokenizer = described.tokenizer
    return _Measured(
        config,
        size,
        2 if halved else _BYTES[described.dtype],
        measure(within, pack, seeds, tokenizer),
        measure_further(within, pack, seeds, tokenizer),
        tuple(_suite_size(config, suite, pack, tokenizer) for suite in inputs.suites),
        len(seeds),
        len(inputs.own),
    )


def _suite_size(
    config: Config, suite: Suite, pack: Pack, tokenizer: PreTrainedTokenizerBase
) -> SuiteSize:
    template = "plain" if config.training.template == "varied" else config.training.template
    prompts = [
        encode(template, item.instruction, item.input, pack.answers, tokenizer=tokenizer)
        for item in suite.items
    ]
    answers = [item.target for item in suite.items]
    return SuiteSize(len(prompts), _mean(prompts, tokenizer), 1 + _mean(answers, tokenizer))


def _mean(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> float:
    return fmean(len(tokenizer(text)["input_ids"]) for text in texts)


def _expected(found: Yield, source: str, known: _Measured, per_list: int) -> Expected:
    room = room_of_request(known.config, per_list)
    most = known.config.generation.instances.max_tokens
    return expected_from(found, source, room, known.texts.item, known.texts.instance, most)


def _machine(config: Config, on: Machine, weight_bytes: int, training_bytes: int) -> Hardware:
    if on != "cpu":
        return gpu(on, config.generation.engine.kind == "transformers")
    cores = config.model.threads or len(os.sched_getaffinity(0))
    return cpu(cores, free_memory(torch.device("cpu")), weight_bytes, training_bytes)


def _batches(config: Config, asked: Sequence[Asked]) -> int | None:
    generation = config.generation
    if generation.engine.kind != "server" or generation.engine.server_mode != "batch":
        return None
    together = {
        "passages": generation.passages.requests_per_batch,
        "instructions": generation.instructions.requests_per_batch,
        "classification": generation.classification.requests_per_batch,
        "instances": generation.instances.requests_per_batch,
        "fixing": generation.instances.requests_per_batch,
        "labels": generation.classification.requests_per_batch,
        "replay": BATCH,
    }
    return sum(math.ceil(work.requests / together[work.stage]) for work in asked)


def _left_out(config: Config) -> tuple[str, ...]:
    evaluation, generation = config.evaluation, config.generation
    step = generation.instances
    scores = step.best_of > 1 and step.chooser in ("likelihood", "arbiter")
    judged = generation.texts is not None and generation.passages.answers == "judged"
    asked = {
        "generation.passages.answers": judged,
        "generation.instances.reasoning": step.reasoning != "none",
        "generation.instances.chooser": scores,
        "generation.select.by": bool(generation.select.by.asked),
        "evaluation.judge": evaluation.judge is not None,
        "evaluation.harness": evaluation.harness is not None,
        "evaluation.held_out_text": evaluation.held_out_text is not None,
    }
    return tuple(name for name, is_set in asked.items() if is_set)
