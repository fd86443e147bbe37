"""What a run reads besides its model: settings, data files and folders, checked all at once.

Nothing here needs torch, which takes seconds to load, so that a wrong path is told at once.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from selfinstruct_train.config import Config
from selfinstruct_train.engines.select import check_engine
from selfinstruct_train.errors import ConfigError, SelfInstructError
from selfinstruct_train.evaluation.beyond.forgetting import read_held_out
from selfinstruct_train.evaluation.beyond.harness import check_harness
from selfinstruct_train.evaluation.published import published_files
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.evaluation.win_rate import judge_config
from selfinstruct_train.generation.chooser_program import check_program
from selfinstruct_train.generation.entailment import require_entailment
from selfinstruct_train.generation.passage_prompts import require_passage_demonstrations
from selfinstruct_train.generation.reasoning import require_reasoned
from selfinstruct_train.generation.steering import read_personas
from selfinstruct_train.judging.ask import load_judge_prompts
from selfinstruct_train.models.four_bit import check_four_bit
from selfinstruct_train.models.source import check_source
from selfinstruct_train.packs.operations import require_operations
from selfinstruct_train.packs.pack import Pack, load_pack, require_demonstrations
from selfinstruct_train.records import SeedTask, TrainingRow
from selfinstruct_train.rounds.held_out import held_out_file, held_out_suite
from selfinstruct_train.rounds.own_rows import require_finished_data
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.tracking import PrometheusFile
from selfinstruct_train.sources.lenient import read_own
from selfinstruct_train.sources.seeds import read_seeds, split_seeds
from selfinstruct_train.sources.texts import Passage, read_passages
from selfinstruct_train.training.launcher import check_launcher
from selfinstruct_train.training.mix import own_training_rows

Stage = Literal["generate", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("generate", "train", "evaluate")
T = TypeVar("T")


class Inputs(NamedTuple):
    """What was read, ready for use."""

    seeds: tuple[SeedTask, ...]
    own: tuple[TrainingRow, ...]
    """Rows of the user's own to train on."""
    passages: tuple[Passage, ...]
    """Of the user's own texts, to write instructions for."""
    replay_prompts: tuple[SeedTask, ...]
    """What the base answers for replay; none where no replay is asked for."""
    pack: Pack
    suites: tuple[Suite, ...]


class Faults:
    """Runs one check after another and remembers what each of them objects to."""

    def __init__(self) -> None:
        self.errors: list[SelfInstructError] = []

    def check(self, make: Callable[[], T]) -> T | None:
        """What a check gives; None where it objects."""
        try:
            return make()
        except SelfInstructError as error:
            self.errors.append(error)
            return None

    def finish(self) -> None:
        """Raise what was objected to, if anything, all of it at once."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            listed = "".join(f"\n- {error}" for error in self.errors)
            raise ConfigError(f"{len(self.errors)} things are wrong:{listed}")


def read_inputs(config: Config, stages: tuple[Stage, ...] = STAGES) -> Inputs:
    """Read what a run is made of, its model left out, and check what can be told without one.

    Args:
        config: the run's settings.
        stages: what is about to be done.

    Raises:
        SelfInstructError: what is wrong; where it is more than one thing, all of them.
    """
    faults = Faults()
    found = _read(config, faults)
    _check_generation(config, faults)
    _check_evaluation(config, faults)
    _check_machine(config, faults)
    faults.check(lambda: check_source(config.model))
    faults.check(lambda: _check_run(config, stages))
    faults.finish()
    assert found is not None
    return found


def read_files(config: Config) -> Inputs:
    """Read what a run is made of, on whatever machine it may run.

    Raises:
        SelfInstructError: what is wrong; where it is more than one thing, all of them.
    """
    faults = Faults()
    found = _read(config, faults)
    faults.check(lambda: check_source(config.model))
    faults.finish()
    assert found is not None
    return found


def _read(config: Config, faults: Faults) -> Inputs | None:
    """Every file, and what they must hold for these settings; None where one cannot be used."""
    generation = config.generation
    split = faults.check(
        lambda: split_seeds(
            read_seeds(config.seeds.path, config.seeds.id_from), config.seeds.hold_out, config.seed
        )
    )
    suites = [
        faults.check(partial(load_suite, name))
        for name in config.evaluation.suites
        if name != str(held_out_file(config))
    ]
    if split is not None:
        suites += [held_out_suite(split.held_out)] if split.held_out else []
        faults.check(lambda: _check_labels(config, split.kept))
    found = tuple(suite for suite in suites if suite is not None)
    faults.check(lambda: _check_suite_names([suite.name for suite in found]))
    pack = faults.check(lambda: _read_pack(generation.prompts))
    if pack is None:
        return None
    own = faults.check(lambda: _read_own(config, pack))
    replays = faults.check(lambda: _read_replay_prompts(config, pack))
    passages = faults.check(lambda: _read_passages(config, pack))
    if config.seeds.domain is not None:
        faults.check(lambda: read_seeds(pack.rules.everyday_seeds))
    if generation.augment.share:
        asked = list(generation.augment.operations)
        faults.check(lambda: require_operations(pack.operations, asked, generation.prompts))
    if generation.instances.reasoning != "none":
        faults.check(lambda: require_reasoned(pack, generation.prompts))
    if split is None or own is None or replays is None or passages is None:
        return None
    return Inputs(split.kept, own, passages, replays, pack, found)


def _check_generation(config: Config, faults: Faults) -> None:
    generation, step = config.generation, config.generation.instances
    faults.check(lambda: read_personas(generation.personas))
    if step.best_of > 1 and step.chooser == "program":
        program = step.chooser_program
        assert program is not None
        faults.check(lambda: check_program(program))
    faults.check(lambda: check_engine(generation.engine))
    faults.check(lambda: _check_writer(config))


def _check_evaluation(config: Config, faults: Faults) -> None:
    evaluation = config.evaluation
    if evaluation.judge is not None:
        faults.check(lambda: _check_judge(config))
    if (held_out := evaluation.held_out_text) is not None:
        faults.check(lambda: read_held_out(held_out))
    if (harness := evaluation.harness) is not None:
        faults.check(lambda: check_harness(harness))
    if evaluation.published is not None:
        faults.check(lambda: published_files(evaluation.published))
    faults.check(lambda: selection_of(evaluation))


def _check_machine(config: Config, faults: Faults) -> None:
    training = config.training
    faults.check(lambda: _check_trackers(config))
    faults.check(lambda: check_launcher(training.method, training.adapter, training.start))
    if training.adapter == "qlora":
        faults.check(check_four_bit)


def _check_run(config: Config, stages: tuple[Stage, ...]) -> None:
    run = RunDirectory(config.output_dir)
    run.require_run_or_nothing()
    if "train" in stages and "generate" not in stages:
        require_finished_data(config, run.round(0))


def _read_pack(name: str) -> Pack:
    pack = load_pack(name)
    require_demonstrations(pack, name)
    return pack


def _read_own(config: Config, pack: Pack) -> tuple[TrainingRow, ...]:
    if config.data is None:
        return ()
    return tuple(own_training_rows(read_own(config.data), pack.answers))


def _read_replay_prompts(config: Config, pack: Pack) -> tuple[SeedTask, ...]:
    mix = config.training.mix
    if mix is None or not mix.replay:
        return ()
    return tuple(read_seeds(config.training.replay_prompts or pack.rules.everyday_seeds))


def _read_passages(config: Config, pack: Pack) -> tuple[Passage, ...]:
    generation = config.generation
    if generation.texts is None:
        return ()
    step = generation.passages
    require_passage_demonstrations(step.tasks, pack, generation.prompts)
    if step.answers == "judged":
        require_entailment(pack, generation.prompts)
    return read_passages(generation.texts, pack.rules.units, step.min_words, step.max_words)


def _check_suite_names(names: list[str]) -> None:
    # A disk may not tell capital letters from small ones.
    same = [name for name, times in Counter(n.casefold() for n in names).items() if times > 1]
    if same:
        raise ConfigError(
            f"evaluation.suites: two suites are called '{same[0]}', so one's answers would be "
            "taken for the other's; rename a file, or leave one out"
        )


def _check_labels(config: Config, seeds: tuple[SeedTask, ...]) -> None:
    sampling = config.generation.instructions.sampling
    asked = f"generation.instructions.sampling is '{sampling}'"
    if sampling == "uniform":
        asked = "generation.labels is 'model'"
        if config.generation.labels == "demonstrations":
            return
    if len({(task.category, task.task_type) for task in seeds}) < 2:
        raise ConfigError(
            f"{asked}, but no two seed tasks of {config.seeds.path} differ in 'category' or "
            "'task_type'; add these fields, or leave the setting out"
        )


def _check_judge(config: Config) -> None:
    judge = config.evaluation.judge
    assert judge is not None
    load_judge_prompts(judge, config.generation.prompts)
    asked = judge_config(config)
    check_engine(asked.generation.engine)
    if judge.model is not None and asked.generation.engine.kind != "server":
        check_source(judge.model)


def _check_writer(config: Config) -> None:
    """See that the engine can write with what is trained, where a tuned model is to write."""
    generation = config.generation
    tuned_writes = "tuned" in (generation.instruction_writer, generation.instance_writer)
    whole = config.training.adapter == "none" and generation.engine.kind == "vllm"
    if config.rounds > 1 and whole and (tuned_writes or generation.instances.consistency):
        raise ConfigError(
            "generation.engine.kind: 'vllm' takes adapters beside the base, and with "
            "training.adapter=none there are none; set generation.instruction_writer and "
            "generation.instance_writer to base and generation.instances.consistency to false, "
            "generation.engine.kind to transformers, or training.adapter to lora"
        )


def _check_trackers(config: Config) -> None:
    if (file := config.metrics_file) is not None:
        PrometheusFile(file, "")
        if not file.parent.is_dir():
            raise ConfigError(f"metrics_file: the folder {file.parent} does not exist; make it")
    for tracker in config.training.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"training.report_to: '{tracker}' is not installed; run: pip install {tracker}, or "
                "leave it out"
            )
