"""Steps 1 to 4 for one round: instructions, classification, instances, filters, selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.generation.augment import shown_results
from selfinstruct_train.generation.classification import Classifier
from selfinstruct_train.generation.context import StageContext
from selfinstruct_train.generation.domain import shown_pack
from selfinstruct_train.generation.evolution import ParentAnswers
from selfinstruct_train.generation.instances import InstanceWriter
from selfinstruct_train.generation.instructions import FinishedInstructions, InstructionWriter
from selfinstruct_train.generation.labels import label_instructions
from selfinstruct_train.generation.passages import PassageWriter
from selfinstruct_train.generation.pool import Pool
from selfinstruct_train.generation.scores import score_rows
from selfinstruct_train.generation.selection import select_rows
from selfinstruct_train.generation.steering import Steering
from selfinstruct_train.generation.topic import Topic
from selfinstruct_train.generation.toxicity import ToxicityGate
from selfinstruct_train.packs.pack import load_pack, require_demonstrations
from selfinstruct_train.progress import Report
from selfinstruct_train.records import Instruction, SeedTask
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.sources.texts import Passage
from selfinstruct_train.text.words import choose_tokenizer

STAGES = ("instructions", "classification", "instances")
"""In their order; each leaves a completion mark, as do labels, scores and selection after them."""


def generate_round(
    config: Config,
    engine: Engine,
    run: RunDirectory,
    number: int,
    seeds: Sequence[SeedTask],
    adapter: Path | None,
    tuned_prompt: Callable[[str, str], str],
    report: Report,
    chat: ChatTemplate | None = None,
    passages: Sequence[Passage] = (),
    meanings: Callable[[Sequence[str]], NDArray[np.float32]] | None = None,
) -> None:
    """Write the data of one round, or what is missing of it.

    Passages of own texts come first, where there are any. Then the three stages follow each other
    until ``instructions_per_round`` instructions have an
    instance, or step 1 ends for another reason: first as many instructions as are wanted, then as
    many as have no instance, and so on. A stopped round goes through all this again, with what the
    engine has already said read from the disk. Where the config selects rows, they are then scored,
    and those that are not to be trained on listed.

    Args:
        config: the run's settings.
        engine: where text comes from.
        run: the run directory; earlier rounds are in it.
        number: the round, counted from 0.
        seeds: the human-written tasks.
        adapter: the best tuned model so far, for the steps that the config gives to it.
        tuned_prompt: (instruction, input) -> the prompt in the template that the adapter was tuned
        in.
        report: told how far the work is.
        chat: the model's chat template, for the steps that ask in it; without it all ask by
            completion.
        passages: of the user's own texts, to write instructions for.
        meanings: texts -> (texts, hidden size) of the base's mean hidden states, for the selection.

    Raises:
        ConfigError: the pack is missing or malformed.
        EngineError: the engine failed, a prompt cannot fit the context, or the classifier of what
            is toxic cannot be loaded.
        DataError: a file of an earlier round is damaged.
    """
    directory = run.round(number)
    selects = ("scores", "selection") if config.generation.select.is_on else ()
    labels = ("labels",) if config.generation.labels == "model" else ()
    stages = (*STAGES, *labels, *selects)
    open_stages = [stage for stage in stages if directory.mark(stage) is None]
    if not open_stages:
        return
    name = config.generation.prompts
    pack = shown_pack(load_pack(name), config, seeds)
    require_demonstrations(pack, name)
    asked = pack.rules.tokenizer_choice(config.generation.filters.tokenizer)
    tokenizer = choose_tokenizer(asked, (task.instruction for task in seeds))
    context = StageContext(
        config, engine, directory, number, pack, adapter, tuned_prompt, report, tokenizer, chat
    )._replace(steering=Steering(config, pack.wording), meanings=meanings)
    if config.seeds.domain is not None:
        everyday = read_seed_tasks(resolve(pack.rules.everyday_seeds))
        context = context._replace(topic=Topic(seeds, everyday))
    if not set(STAGES).isdisjoint(open_stages):
        if (toxicity := config.generation.filters.toxicity) is not None:
            context = context._replace(toxicity=ToxicityGate(toxicity))
        _write(context, run, seeds, open_stages, passages)
    if "labels" in open_stages:
        directory.begin("labels")
        label_instructions(context, seeds)
    if "scores" in open_stages:
        directory.begin("scores")
        score_rows(context)
    if "selection" in open_stages:
        directory.begin("selection")
        select_rows(context)


def _write(
    context: StageContext,
    run: RunDirectory,
    seeds: Sequence[SeedTask],
    open_stages: Sequence[str],
    passages: Sequence[Passage],
) -> None:
    """Go through the three stages, those that are done with what they left."""
    directory = context.directory
    for stage in STAGES:
        if stage in open_stages:
            directory.begin(stage)
    instructions: InstructionWriter | FinishedInstructions
    if "instructions" in open_stages:
        instructions = InstructionWriter(context, _pool(context, run, seeds))
    else:
        rows = directory.store(directory.instructions, Instruction).stream()
        instructions = FinishedInstructions(rows, context.round, context.pack.operations)
    classifier = Classifier(context, seeds)
    instances = InstanceWriter(context, seeds, _parents(context, run, seeds))
    wanted, written = context.config.generation.instructions_per_round, 0
    asked = _passages_asked(run, context.round)
    for found in PassageWriter(context, passages, asked, instructions).write():
        instances.store(found)
        written += len(found)
    of_texts = instances.with_instance
    target = written + wanted - of_texts
    while fresh := instructions.write(target):
        instances.write(classifier.classify(fresh))
        written += len(fresh)
        # As many more as still lack an instance; where none has one, more would have none either.
        missing = wanted - instances.with_instance
        target = written + missing if instances.with_instance > of_texts else written
    # Only now, for how many instructions are written depends on how many have an instance.
    for stage, writer in zip(STAGES, (instructions, classifier, instances), strict=True):
        if stage in open_stages:
            writer.finish()


def _parents(
    context: StageContext, run: RunDirectory, seeds: Sequence[SeedTask]
) -> ParentAnswers | None:
    """What evolved instructions must differ from in their answers; None where none is evolved."""
    if not context.config.generation.augment.share:
        return None
    return ParentAnswers(seeds, LiveRows(run).instances(context.round))


def _passages_asked(run: RunDirectory, number: int) -> int:
    """How many passages the rounds before this one have asked about."""
    marks = (run.round(i).mark("instructions") for i in range(number))
    return sum(int(mark.figures.get("passages") or 0) for mark in marks if mark is not None)


def _pool(context: StageContext, run: RunDirectory, seeds: Sequence[SeedTask]) -> Pool:
    threshold = context.pack.rules.threshold(context.config.generation.filters.novelty_threshold)
    sampling = context.config.generation.instructions.sampling
    pool = Pool(seeds, context.tokenizer, threshold, sampling)
    if context.config.generation.augment.share:
        pool.bar(shown_results(context))
    pool.extend(LiveRows(run).instructions(context.round))
    return pool
