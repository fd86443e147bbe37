"""A whole run's settings: the sections put together, read from YAML and written back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from selfinstruct_train.bounds import Count, Float, Seed
from selfinstruct_train.config.evaluation import EvaluationConfig
from selfinstruct_train.config.generation import GenerationConfig, SeedsConfig
from selfinstruct_train.config.governor import GovernorConfig
from selfinstruct_train.config.model import ModelConfig
from selfinstruct_train.config.paths import settle_paths
from selfinstruct_train.config.section import Section
from selfinstruct_train.config.training import TrainingConfig
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.text.characters import find_bad_character
from selfinstruct_train.text.yaml_text import parse_yaml, read_yaml


class Config(Section):
    """A whole run."""

    model: ModelConfig
    seeds: SeedsConfig
    data: str | None = None
    """Own rows to train on, beside what the model writes, or instead of it where
    ``training.mix.generated`` is 0: a JSON, JSONL, CSV or Parquet file, or a Hub data set."""
    generation: GenerationConfig = GenerationConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig
    rounds: Count = 1
    """How often to go round, at most."""
    governor: GovernorConfig = GovernorConfig()
    output_dir: Path
    """The run directory."""
    metrics_file: Path | None = None
    """File ``*.prom`` for the textfile collector of Prometheus' node exporter: what each stage is
    at, its acceptance and its tokens a second, replaced every ten seconds (extra ``metrics``)."""
    seed: Seed = 0
    """Everything random follows from it."""
    process_timeout_minutes: Float = Field(default=30.0, ge=2.0, le=1440.0)
    """Longest that one of several processes waits for another. Pauses that a server asks for do not
    count."""

    @model_validator(mode="after")
    def _coherent(self) -> Config:
        if self.metrics_file is not None and self.metrics_file.suffix != ".prom":
            raise ValueError(
                f"metrics_file is {self.metrics_file}, but the collector reads files that end with "
                ".prom alone; name it so"
            )
        step = self.generation.instructions
        shown = step.seed_demonstrations + step.machine_demonstrations
        if step.last_item <= shown + 1:
            raise ValueError(
                f"generation.instructions.last_item is {step.last_item}, but {shown} "
                f"demonstrations come first; set it above {shown + 1}"
            )
        mix = self.training.mix
        if mix is not None and self.data is None and not (mix.seeds or mix.generated):
            raise ValueError(
                "training.mix takes own rows alone, but there are none; name a file in 'data'"
            )
        if not self.generates and self.rounds > 1:
            raise ValueError(
                f"rounds is {self.rounds}, but training.mix.generated is 0, so no round would "
                "differ from the first; set rounds to 1"
            )
        training, draws = self.training, self.generation.instances.best_of
        needs_draws = {"drawn", "judged"} & set(training.preference.pairs)
        if training.method != "sft" and needs_draws and draws == 1:
            raise ValueError(
                f"training.preference.pairs has '{min(needs_draws)}', but no answers are drawn; "
                "set generation.instances.best_of to 3 or more, or "
                "training.preference.pairs=[earlier_model]"
            )
        return self

    @property
    def generates(self) -> bool:
        """Whether the model writes data; without, it is trained on seeds and own rows alone."""
        return self.training.mix is None or self.training.mix.generated > 0


def load_config(
    path: Path, overrides: Sequence[str] = (), output_dir: Path | None = None
) -> Config:
    """Read a YAML file and apply ``key.sub=value`` overrides.

    Relative paths in the file are looked for in its folder, then in the working folder; those in
    overrides, and ``output_dir`` everywhere, in the working folder.

    Args:
        path: the YAML file.
        overrides: settings in dotted form, the value in YAML syntax.
        output_dir: replaces the file's ``output_dir``.

    Raises:
        ConfigError: the file is missing or not YAML, or any setting is wrong; all faults are named
        at once.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold settings such as 'model:', not {type(data).__name__}")
    settle_paths(data, path.parent)
    for override in overrides:
        _override(data, override)
    if output_dir is not None:
        data["output_dir"] = str(output_dir)
    try:
        config = Config.model_validate(data)
        _require_folder(config.output_dir)
        return config
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(faults)) from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every default spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat_settings(config: Config) -> dict[str, Any]:
    """Dotted key -> value, for every setting."""
    return dict(_flatten(config.model_dump(mode="json")))


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _override(data: dict[str, Any], override: str) -> None:
    dotted, mark, text = override.partition("=")
    if not mark or not dotted:
        raise ConfigError(f"'{override}': an override has the form key.sub=value")
    if (bad := find_bad_character(dotted)) is not None:
        raise ConfigError(f"{dotted!r}: the key {bad.what}")
    *parents, last = dotted.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{override}': '{parent}' is a value, not a section")
    node[last] = parse_yaml(text, f"'{dotted}'")


def _require_folder(output_dir: Path) -> None:
    """Before anything is loaded: a run cannot live in a file, nor where no folder can be made."""
    try:
        existing = next(
            path for path in (output_dir, *output_dir.parents) if path.exists() or path.is_symlink()
        )
    except OSError as error:
        raise ConfigError(
            f"'output_dir': no folder can have the name {str(output_dir)[:60]!r} "
            f"({error.strerror}); give another one"
        ) from None
    if not existing.is_dir():
        what = "a file" if existing.exists() else "a link to what is not there"
        raise ConfigError(f"'output_dir': {existing} is {what}; give a folder, or a new name")


def _fault(detail: Any) -> str:
    path = [str(part) for part in detail["loc"]]
    if detail["type"] != "extra_forbidden":
        # Where a setting takes one of several kinds, the place ends in the names of their checks.
        path = [part for part in path if not re.search(r"[\[(]", part)]
    dotted = ".".join(path)
    if detail["type"] == "extra_forbidden":
        parent, _, last = dotted.rpartition(".")
        siblings = [k.rpartition(".")[2] for k in all_keys() if k.rpartition(".")[0] == parent]
        near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.4)
        elsewhere = difflib.get_close_matches(dotted, all_keys(), n=1, cutoff=0.0)
        nearest = f"{parent}.{near[0]}".lstrip(".") if near else elsewhere[0]
        return f"unknown key '{dotted}'; did you mean '{nearest}'?"
    if detail["type"] == "missing":
        return f"'{dotted}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    # An address that is refused may hold a password.
    shown = not isinstance(detail["input"], dict) and not {"base_url", "base_urls"} & set(path)
    given = f" (given: {_shown(detail['input'])})" if shown else ""
    return f"'{dotted}': {message}{given}" if dotted else message


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]} …"


def all_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the config, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        kinds = (field.annotation, *get_args(field.annotation))
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += all_keys(kind, f"{prefix}{name}.")
    return keys
