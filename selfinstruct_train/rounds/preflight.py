"""Everything that can fail is tried before the first token, and all faults are named at once."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from transformers import AutoModelForCausalLM

from selfinstruct_train.config import Config
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.engines.select import check_engine
from selfinstruct_train.errors import ConfigError, RunError, SelfInstructError
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
from selfinstruct_train.generation.style import settle_style
from selfinstruct_train.judging.ask import load_judge_prompts
from selfinstruct_train.models.classifier import TextClassifier
from selfinstruct_train.models.describe import ModelDescription, check_weights, describe_model
from selfinstruct_train.models.four_bit import check_four_bit
from selfinstruct_train.models.load import require_cache
from selfinstruct_train.packs.operations import require_operations
from selfinstruct_train.packs.pack import Pack, load_pack, require_demonstrations
from selfinstruct_train.records import SeedTask, TrainingRow
from selfinstruct_train.rounds.held_out import held_out_file, held_out_suite
from selfinstruct_train.run.tracking import PrometheusFile
from selfinstruct_train.sources.lenient import read_own
from selfinstruct_train.sources.seeds import read_seeds, split_seeds
from selfinstruct_train.sources.texts import Passage, read_passages
from selfinstruct_train.templates import encode_chat
from selfinstruct_train.training.adapter import attach_adapter
from selfinstruct_train.training.arguments import share_out
from selfinstruct_train.training.mix import own_training_rows
from selfinstruct_train.training.sharding import check_launcher

Stage = Literal["generate", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("generate", "train", "evaluate")
T = TypeVar("T")

_BYTES_PER_WEIGHT = 12
"""Of what is trained, in a checkpoint: the weight and two moments of AdamW, each in float32."""
_CHECKPOINTS = 3
"""Two are kept while the next is written."""


class Checked(NamedTuple):
    """What was read while checking, ready for use."""

    seeds: tuple[SeedTask, ...]
    own: tuple[TrainingRow, ...]
    """Rows of the user's own to train on."""
    passages: tuple[Passage, ...]
    """Of the user's own texts, to write instructions for."""
    replay_prompts: tuple[SeedTask, ...]
    """What the base answers for replay; none where no replay is asked for."""
    pack: Pack
    suites: tuple[Suite, ...]
    model: ModelDescription
    parameters: int
    """Of the base model."""
    trained_parameters: int
    """Of the adapter; without one, all."""


class _Faults:
    """Runs one check after another and remembers what each of them objects to."""

    def __init__(self) -> None:
        self.errors: list[SelfInstructError] = []

    def check(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except SelfInstructError as error:
            self.errors.append(error)
            return None

    def finish(self) -> None:
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            listed = "".join(f"\n- {error}" for error in self.errors)
            raise ConfigError(f"{len(self.errors)} things are wrong:{listed}")


def preflight(config: Config, stages: tuple[Stage, ...] = STAGES, world: World = ALONE) -> Checked:
    """Check a run before its first token, without loading the weights of a model.

    Args:
        config: the run's settings.
        stages: what is about to be done; weights are needed for all but generating with a server.
        world: the processes that will share the work.

    Raises:
        SelfInstructError: what is wrong; where it is more than one thing, all of them.
    """
    faults = _Faults()
    evaluation, generation = config.evaluation, config.generation
    seeds = faults.check(
        lambda: split_seeds(
            read_seeds(config.seeds.path, config.seeds.id_from), config.seeds.hold_out, config.seed
        )
    )
    pack = faults.check(lambda: _read_pack(generation.prompts))
    own: list[TrainingRow] | None = []
    if (data := config.data) is not None and pack is not None:
        answers = pack.answers
        own = faults.check(lambda: own_training_rows(read_own(data), answers))
    replays: tuple[SeedTask, ...] | None = ()
    if pack is not None and config.training.mix is not None and config.training.mix.replay:
        prompts = config.training.replay_prompts or pack.rules.everyday_seeds
        replays = faults.check(lambda: read_seeds(prompts))
    passages: tuple[Passage, ...] | None = ()
    if pack is not None and generation.texts is not None:
        known_pack = pack
        passages = faults.check(lambda: _read_passages(config, known_pack))
    if pack is not None and config.seeds.domain is not None:
        everyday = pack.rules.everyday_seeds
        faults.check(lambda: read_seeds(everyday))
    suites = [
        faults.check(partial(load_suite, name))
        for name in evaluation.suites
        if name != str(held_out_file(config))
    ]
    if seeds is not None and seeds.held_out:
        suites.append(held_out_suite(seeds.held_out))
    faults.check(lambda: read_personas(generation.personas))
    if "generate" in stages and (toxicity := generation.filters.toxicity) is not None:
        faults.check(lambda: TextClassifier(toxicity))
    if pack is not None and generation.augment.share:
        asked, operations = list(generation.augment.operations), pack.operations
        faults.check(lambda: require_operations(operations, asked, generation.prompts))
    if seeds is not None:
        kept = seeds.kept
        faults.check(lambda: _check_labels(config, kept))
    step = generation.instances
    if pack is not None and step.reasoning != "none":
        thinking = pack
        faults.check(lambda: require_reasoned(thinking, generation.prompts))
    if step.best_of > 1 and step.chooser == "program":
        assert step.chooser_program is not None
        program = step.chooser_program
        faults.check(lambda: check_program(program))
    faults.check(lambda: _check_suite_names([suite.name for suite in suites if suite is not None]))
    if evaluation.judge is not None:
        faults.check(lambda: _check_judge(config))
    if (held_out := evaluation.held_out_text) is not None:
        faults.check(lambda: read_held_out(held_out))
    if (harness := evaluation.harness) is not None:
        faults.check(lambda: check_harness(harness))
    if evaluation.published is not None:
        faults.check(lambda: published_files(evaluation.published))
    faults.check(lambda: selection_of(evaluation))
    faults.check(lambda: check_engine(generation.engine))
    faults.check(lambda: _check_writer(config))
    faults.check(lambda: _check_trackers(config))
    faults.check(lambda: share_out(config.training, world))
    training = config.training
    faults.check(lambda: check_launcher(training.method, training.adapter, training.start))
    if config.training.adapter == "qlora":
        faults.check(check_four_bit)
    model = faults.check(lambda: describe_model(config.model))
    sizes = None
    if model is not None:
        known = model
        faults.check(lambda: settle_style(config, known))
        if config.training.template == "chat":
            faults.check(lambda: encode_chat("Say hello.", "", known.tokenizer))
        reads = generation.select.meaning is not None
        if generation.engine.kind == "transformers" or reads or set(stages) != {"generate"}:
            faults.check(lambda: check_weights(config.model, known))
        sizes = faults.check(lambda: count_parameters(config, known))
    if sizes is not None:
        needed = tuned_bytes(config, sizes[1])
        faults.check(lambda: _check_disk(config.output_dir, needed))
    faults.finish()
    assert seeds is not None and pack is not None and model is not None and sizes is not None
    assert own is not None and passages is not None and replays is not None
    found = tuple(suite for suite in suites if suite is not None)
    return Checked(seeds.kept, tuple(own), passages, replays, pack, found, model, *sizes)


def tuned_bytes(config: Config, trained_parameters: int) -> int:
    """Bytes on disk that checkpoints and tuned models of a run take."""
    checkpoints = _CHECKPOINTS * _BYTES_PER_WEIGHT
    baselines = len(config.evaluation.seeds_only_epochs) + 1 if config.evaluation.seeds_only else 0
    tuned = 4 * config.rounds * (1 + baselines)
    return trained_parameters * (checkpoints + tuned)


def free_disk(path: Path) -> int:
    """Free bytes where a folder is, or will be."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _read_pack(name: str) -> Pack:
    pack = load_pack(name)
    require_demonstrations(pack, name)
    return pack


def _read_passages(config: Config, pack: Pack) -> tuple[Passage, ...]:
    generation = config.generation
    step = generation.passages
    require_passage_demonstrations(step.tasks, pack, generation.prompts)
    if step.answers == "judged":
        require_entailment(pack, generation.prompts)
    assert generation.texts is not None
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
        check_weights(judge.model, describe_model(judge.model))


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


def count_parameters(config: Config, model: ModelDescription) -> tuple[int, int]:
    """Put an adapter on the model's outline, which takes no memory.

    Returns:
        Parameters of the base, and those that are trained: the adapter's, at its widest where it
        grows from round to round, or without one all.

    Raises:
        ConfigError: no causal language model, or the adapter finds no place in it.
    """
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("meta"),
        warnings.catch_warnings(),
    ):
        # Advice of transformers to those who wrote PEFT.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            base = AutoModelForCausalLM.from_config(model.config, trust_remote_code=False)
        except ValueError as error:
            raise ConfigError(
                f"model.name_or_path: '{model.model_id}' is no causal language model that this "
                f"version of transformers knows ({' '.join(str(error).split())[:200]}); name "
                "another model"
            ) from None
        require_cache(base, model.model_id)
        parameters = base.num_parameters()
        if config.training.adapter == "none":
            return parameters, parameters
        widest = config.training.model_copy(
            update={"lora_r": config.training.most_ranks(config.rounds)}
        )
        tuned = attach_adapter(base, widest, 0, None)
    return parameters, sum(p.numel() for p in tuned.parameters() if p.requires_grad)


def _check_disk(folder: Path, needed: int) -> None:
    free = free_disk(folder)
    if free < needed:
        raise RunError(
            f"output_dir: checkpoints and tuned models take about {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB are free for {folder}; make room, give another output_dir, or "
            "train fewer weights (training.adapter, training.lora_r)"
        )
