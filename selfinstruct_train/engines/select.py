"""Picking the engine that the config names."""

from __future__ import annotations

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.engines.models import LoadedModel
from selfinstruct_train.errors import ConfigError


def make_engine(config: Config, model: LoadedModel) -> Engine:
    """The engine that ``generation.engine.kind`` names.

    Args:
        config: the run's settings.
        model: the loaded base, which the in-process engine asks.

    Raises:
        ConfigError: a package that the engine needs is not installed.
        EngineError: the engine cannot be started.
    """
    match config.generation.engine.kind:
        case "transformers":
            from selfinstruct_train.engines.transformers import TransformersEngine

            return TransformersEngine(model, config.generation.engine)
        case "server" | "vllm" as kind:
            raise ConfigError(
                f"generation.engine.kind: '{kind}' is not available yet; use 'transformers'"
            )
