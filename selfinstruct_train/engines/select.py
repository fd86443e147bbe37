"""Picking the engine that the config names."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_train.config import Config, EngineConfig
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError

if TYPE_CHECKING:
    from selfinstruct_train.engines.server.engine import Encode
    from selfinstruct_train.models.describe import ModelDescription
    from selfinstruct_train.models.load import LoadedModel

log = logging.getLogger(__name__)

_PACKAGES = {"server": "httpx2", "vllm": "vllm"}
"""What an engine needs beside the base installation."""


def check_engine(config: EngineConfig) -> None:
    """See that the package of an engine is installed.

    Raises:
        ConfigError: it is not.
    """
    package = _PACKAGES.get(config.kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"generation.engine.kind: '{config.kind}' needs the package {package}; run: pip "
            f"install 'selfinstruct-train[{config.kind}]'"
        )


def make_engine(
    config: Config,
    model: LoadedModel | ModelDescription,
    say: Callable[[str], None] = log.warning,
) -> Engine:
    """The engine that ``generation.engine.kind`` names.

    Args:
        config: the run's settings.
        model: the loaded base, which the in-process engine asks; the others need no weights here,
            only its tokenizer.
        say: told what slows the in-process engine down, and what becomes of batches.

    Raises:
        ConfigError: a package that the engine needs is not installed.
        EngineError: the engine cannot be started.
    """
    from selfinstruct_train.models.tokenizer import tokenize

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return tokenize(model.tokenizer, texts)

    engine = config.generation.engine
    check_engine(engine)
    match engine.kind:
        case "transformers":
            from selfinstruct_train.engines.local.transformers import TransformersEngine
            from selfinstruct_train.models.load import LoadedModel

            assert isinstance(model, LoadedModel)
            return TransformersEngine(model, engine, say)
        case "server":
            return make_server_engine(
                engine, model.model_id, model.context_length, batches_of(config), say, encode
            )
        case "vllm":
            from selfinstruct_train.engines.vllm import VllmEngine
            from selfinstruct_train.models.source import model_source

            return VllmEngine(
                engine,
                model.model_id,
                model.context_length,
                encode,
                source=model_source(config.model),
                revision=config.model.revision,
                dtype=str(model.dtype).removeprefix("torch."),
                lora_rank=config.training.most_ranks(config.rounds),
            )


def batches_of(config: Config) -> Path:
    """The folder of a run that keeps what was handed over in batches."""
    return config.output_dir / "batches"


def make_server_engine(
    config: EngineConfig,
    model_id: str,
    context_length: int,
    batches: Path,
    say: Callable[[str], None] = log.warning,
    encode: Encode | None = None,
) -> Engine:
    """An engine that asks a server; no model need be loaded.

    Args:
        config: address and ways of the server.
        model_id: name of the model, by default for the server too.
        context_length: most tokens of prompt and completion together.
        batches: folder of the jobs, where the server is asked in batches.
        say: told what becomes of them.
        encode: tokenizer of the served model; without it tokens are estimated from the bytes.

    Raises:
        ConfigError: the package that it needs is not installed, or the environment cannot be used.
    """
    check_engine(config)
    from selfinstruct_train.engines.server.engine import ServerEngine

    return ServerEngine(config, model_id, context_length, encode, batches, say)
