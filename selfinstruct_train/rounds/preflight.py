"""Everything that can fail is tried before the first token, and all faults are named at once.

First what needs no model, as `read_inputs` says; then the model, for which torch is loaded.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM

from selfinstruct_train.config import Config
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.evaluation.win_rate import judge_config
from selfinstruct_train.generation.style import settle_style
from selfinstruct_train.models.classifier import TextClassifier
from selfinstruct_train.models.describe import ModelDescription, check_weights, describe_model
from selfinstruct_train.models.load import require_cache
from selfinstruct_train.rounds.inputs import STAGES, Faults, Inputs, Stage, read_inputs
from selfinstruct_train.templates import encode_chat
from selfinstruct_train.training.adapter import attach_adapter
from selfinstruct_train.training.launcher import share_out

_BYTES_PER_WEIGHT = 12
"""Of what is trained, in a checkpoint: the weight and two moments of AdamW, each in float32."""
_CHECKPOINTS = 3
"""Two are kept while the next is written."""


class Checked(NamedTuple):
    """What was read while checking, ready for use."""

    inputs: Inputs
    model: ModelDescription
    parameters: int
    """Of the base model."""
    trained_parameters: int
    """Of the adapter; without one, all."""


def preflight(
    config: Config,
    stages: tuple[Stage, ...] = STAGES,
    world: World = ALONE,
    inputs: Inputs | None = None,
) -> Checked:
    """Check a run before its first token, without loading the weights of a model.

    Args:
        config: the run's settings.
        stages: what is about to be done; weights are needed for all but generating with a server.
        world: the processes that will share the work.
        inputs: what `read_inputs` has read of these settings; by default it is read here.

    Raises:
        SelfInstructError: what is wrong; where it is more than one thing, all of them.
    """
    inputs = inputs or read_inputs(config, stages)
    faults = Faults()
    if "generate" in stages and (toxicity := config.generation.filters.toxicity) is not None:
        faults.check(lambda: TextClassifier(toxicity))
    faults.check(lambda: _check_judge_model(config))
    faults.check(lambda: share_out(config.training, world))
    model = faults.check(lambda: describe_model(config.model))
    sizes = None
    if model is not None:
        known = model
        faults.check(lambda: settle_style(config, known))
        if config.training.template == "chat":
            faults.check(lambda: encode_chat("Say hello.", "", known.tokenizer))
        generation = config.generation
        reads = generation.select.meaning is not None
        if generation.engine.kind == "transformers" or reads or set(stages) != {"generate"}:
            faults.check(lambda: check_weights(config.model, known))
        sizes = faults.check(lambda: count_parameters(config, known))
    if sizes is not None:
        needed = tuned_bytes(config, sizes[1])
        faults.check(lambda: _check_disk(config.output_dir, needed))
    faults.finish()
    assert model is not None and sizes is not None
    return Checked(inputs, model, *sizes)


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


def _check_judge_model(config: Config) -> None:
    judge = config.evaluation.judge
    if judge is None or judge.model is None:
        return
    if judge_config(config).generation.engine.kind != "server":
        check_weights(judge.model, describe_model(judge.model))


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
