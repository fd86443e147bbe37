"""What the result of each stage depends on: settings, data and models, and nothing else.

A stage's result also depends on all that the stages depend on which it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from selfinstruct_train.config import Config, flat_settings


class Stage(NamedTuple):
    """A stage, and what bears on its result."""

    name: str
    settings: tuple[str, ...]
    """Settings, or whole sections of them."""
    contents: tuple[str, ...]
    """Data and models of which the content counts, wherever it lies; ``suite`` is every suite."""
    reads: tuple[str, ...]
    """Stages whose results it reads."""


ROLLED_BACK = "rolled-back rounds"
"""Name of the content that says of which earlier rounds no row is read."""

_TRAINING = ("seed", "training", "model.dtype", "model.attention", "model.context_length")

STAGES = (
    Stage(
        "instructions",
        (
            "seed",
            "model.attention",
            "model.context_length",
            "generation.engine.kind",
            "generation.engine.server_endpoint",
            "generation.engine.server_dialect",
            "generation.instructions_per_round",
            "generation.style",
            "generation.max_requests",
            "generation.saturation_window",
            "generation.saturation_floor",
            "generation.instruction_writer",
            "generation.instructions",
            "generation.augment.share",
            "generation.passages",
            "generation.filters",
            "seeds.domain",
            "seeds.demonstrations",
        ),
        (
            "seeds.path",
            "generation.prompts",
            "generation.texts",
            "generation.filters.toxicity",
            "writer",
            "steering",
            ROLLED_BACK,
        ),
        (),
    ),
    Stage("classification", ("generation.classification",), (), ("instructions",)),
    Stage(
        "instances",
        ("generation.instances", "generation.instance_writer", "seeds.off_topic"),
        ("generation.instances.chooser_program",),
        ("classification",),
    ),
    Stage("labels", (), (), ("instructions",)),
    # Another weight selects other rows, but the scores stand.
    Stage("scores", (), ("scores",), ("instances",)),
    Stage(
        "selection",
        (
            "generation.select.by",
            "generation.select.keep",
            "generation.select.diversity",
            "generation.select.meaning",
        ),
        ("meanings",),
        ("scores",),
    ),
    Stage(
        "train",
        (*_TRAINING, "evaluation.contamination"),
        ("model", "seeds.path", "data", "training.replay_prompts", "pruned rows"),
        ("selection",),
    ),
    Stage("seeds-only", _TRAINING, ("model", "seeds.path", "generation.prompts"), ()),
    Stage(
        "evaluate",
        (
            "evaluation.max_tokens",
            "evaluation.few_shot_demonstrations",
            "evaluation.bootstrap_samples",
            "evaluation.confidence",
            "evaluation.seeds_only",
            "evaluation.seeds_only_epochs",
        ),
        ("suite",),
        ("train",),
    ),
    Stage("judge", ("evaluation.judge",), ("judge",), ("evaluate",)),
)
"""In their order. Seeds-only is the training on seed tasks alone."""

FREE = (
    # Where things are; what they hold is looked at instead.
    "output_dir",
    "model.name_or_path",
    "model.revision",
    "seeds.path",
    "seeds.id_from",
    "seeds.hold_out",
    "data",
    "generation.prompts",
    "generation.attributes",
    "generation.personas",
    "generation.augment.operations",
    # Whether the model is asked for labels too; what it said stands.
    "generation.labels",
    "generation.texts",
    "generation.filters.toxicity",
    "generation.engine.server_model",
    "evaluation.suites",
    # How much of it: more rounds and measures may join a finished run. A decision stands once it is
    # made; what was decided is looked at instead of how.
    "rounds",
    "governor",
    # Which training it is; its other settings count.
    "training.name",
    "training.sweep",
    "training.replay_prompts",
    "process_timeout_minutes",
    "metrics_file",
    "evaluation.select_on",
    "evaluation.published",
    "evaluation.held_out_text",
    "evaluation.held_out_tokens",
    "evaluation.harness",
    # How the machine goes about it.
    "model.device",
    "model.threads",
    "generation.engine.max_batch_size",
    "generation.engine.memory_fraction",
    "generation.engine.base_url",
    "generation.engine.base_urls",
    "generation.engine.server_mode",
    "generation.engine.api_key_variable",
    "generation.engine.server_adapters",
    "generation.engine.concurrency",
    "generation.engine.timeout_seconds",
    "generation.engine.max_retries",
    "generation.select.requests_per_batch",
    "generation.engine.tensor_parallel_size",
    "training.micro_batch_size",
    "training.gradient_checkpointing",
    "training.save_steps",
    "training.min_rows",
    "training.logging_steps",
    "training.report_to",
    "training.load",
    "evaluation.judge.model.device",
    "evaluation.judge.model.threads",
    "evaluation.judge.engine.max_batch_size",
    "evaluation.judge.engine.memory_fraction",
    "evaluation.judge.engine.base_url",
    "evaluation.judge.engine.base_urls",
    "evaluation.judge.engine.server_mode",
    "evaluation.judge.engine.api_key_variable",
    "evaluation.judge.engine.concurrency",
    "evaluation.judge.engine.timeout_seconds",
    "evaluation.judge.engine.max_retries",
    "evaluation.judge.engine.tensor_parallel_size",
)
"""Settings, or sections, that may change at any time: no result depends on them."""

Contents = Mapping[str, str]
"""Name of data or of a model -> hash of what it holds."""

_CONTENT = "content of "
_SUITE = f"{_CONTENT}suite "


def dependencies(stage: str, number: int, config: Config) -> frozenset[str]:
    """The stage itself and all stages, of this round or earlier ones, that bear on its result.

    Args:
        stage: its name.
        number: the round, counted from 0.
        config: the settings, which say whether a tuned model writes, and what rolls a round back.
    """
    found: set[str] = set()
    waiting = [stage]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += next(known.reads for known in STAGES if known.name == name)
            if number > 0 and _reads_evaluations(name, config):
                waiting += ["train", "evaluate"]
    return frozenset(found)


def basis(stage: str, number: int, config: Config, contents: Contents) -> dict[str, Any]:
    """Everything that bears on a stage's result, by name: what its fingerprint is made of."""
    names = dependencies(stage, number, config)
    found: dict[str, Any] = {}
    settings = flat_settings(config)
    for known in STAGES:
        if known.name in names:
            found |= {
                key: value
                for key, value in settings.items()
                if within(key, known.settings) and not within(key, FREE)
            }
            found |= {
                f"{_CONTENT}{name}": value
                for name, value in contents.items()
                if any(name == own or name.startswith(f"{own} ") for own in known.contents)
            }
    return found


def suite_of(key: str) -> str | None:
    """The suite whose content a key of a basis names; None where it names something else."""
    return key.removeprefix(_SUITE) if key.startswith(_SUITE) else None


def with_training(config: Config, name: str) -> Config:
    """The settings of one training of a sweep; as they are where it is none of theirs."""
    found = {training.name: training for training in config.training.trainings}
    return config.model_copy(update={"training": found.get(name, config.training)})


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs of two bases, old -> new; what only one of them knows is no difference.

    So a suite may join or leave, and a setting that a newer version brings stops nothing.
    """
    return {
        key: f"{_short(before[key])} -> {_short(now[key])}"
        for key in before
        if key in now and before[key] != now[key]
    }


def within(key: str, sections: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of some settings, or lies within one of some sections."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _reads_evaluations(stage: str, config: Config) -> bool:
    """Whether what earlier rounds have shown bears on a stage."""
    generation = config.generation
    if stage == "instances":
        return generation.instance_writer == "tuned" or generation.instances.consistency
    decides = generation.instruction_writer == "tuned" or config.governor.policy != "every_round"
    return stage == "instructions" and decides


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
