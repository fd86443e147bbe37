"""Steps 1 to 4 for one round: instructions, classification, instances, filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.generation.classification import classify_instructions
from selfinstruct_train.generation.context import Workplace
from selfinstruct_train.generation.filters import load_rules
from selfinstruct_train.generation.instances import write_instances
from selfinstruct_train.generation.instructions import write_instructions
from selfinstruct_train.generation.pool import Pool
from selfinstruct_train.generation.prompting import load_prompt_set, require_demonstrations
from selfinstruct_train.progress import Report
from selfinstruct_train.records import Classified, Instruction, SeedTask
from selfinstruct_train.run.directory import RunDirectory


def generate_round(
    config: Config,
    engine: Engine,
    run: RunDirectory,
    number: int,
    seeds: Sequence[SeedTask],
    adapter: Path | None,
    tuned_prompt: Callable[[str, str], str],
    report: Report,
) -> None:
    """Write the data of one round, or what is missing of it.

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

    Raises:
        ConfigError: the prompt set is missing or malformed.
        EngineError: the engine failed, or a prompt cannot fit the context.
        DataError: a file of an earlier round is damaged.
    """
    name = config.generation.prompts
    prompts = load_prompt_set(name)
    require_demonstrations(prompts, name)
    directory = run.round(number)
    place = Workplace(
        config, engine, directory, number, prompts, load_rules(name), adapter, tuned_prompt, report
    )
    if directory.mark("instructions") is None:
        write_instructions(place, _pool(config, run, number, seeds))
    instructions = directory.store(directory.instructions, Instruction).read()
    if directory.mark("classification") is None:
        classify_instructions(place, instructions)
    if directory.mark("instances") is None:
        rows = directory.store(directory.classified, Classified).read()
        write_instances(place, instructions, {row.id: row.is_classification for row in rows})


def _pool(config: Config, run: RunDirectory, number: int, seeds: Sequence[SeedTask]) -> Pool:
    pool = Pool(seeds, config.generation.filters)
    for earlier in range(number):
        directory = run.round(earlier)
        pool.extend(directory.store(directory.instructions, Instruction).read())
    return pool
