"""Picking the engine that the config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_train.config import Config, EngineConfig
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError

if TYPE_CHECKING:
    from selfinstruct_train.engines.server.engine import Encode
    from selfinstruct_train.models.load import LoadedModel


def make_engine(config: Config, model: LoadedModel) -> Engine:
    """The engine that ``generation.engine.kind`` names.

    Args:
        config: the run's settings.
        model: the loaded base, which the in-process engine asks; its tokenizer serves the others.

    Raises:
        ConfigError: a package that the engine needs is not installed.
        EngineError: the engine cannot be started.
    """

    def encode(texts: Sequence[str]) -> list[list[int]]:
        tokens: list[list[int]] = model.tokenizer(list(texts), return_attention_mask=False)[
            "input_ids"
        ]
        return tokens

    engine = config.generation.engine
    match engine.kind:
        case "transformers":
            from selfinstruct_train.engines.local.transformers import TransformersEngine

            return TransformersEngine(model, engine)
        case "server":
            return make_server_engine(engine, model.model_id, model.context_length, encode)
        case "vllm":
            try:
                from selfinstruct_train.engines.vllm import VllmEngine
            except ModuleNotFoundError as error:
                raise _missing("vllm", "vllm", error) from error
            from selfinstruct_train.models.load import EMBEDDED, EMBEDDED_WEIGHTS

            name = config.model.name_or_path
            return VllmEngine(
                engine,
                model.model_id,
                model.context_length,
                encode,
                source=str(EMBEDDED_WEIGHTS) if name == EMBEDDED else str(_local(name)),
                revision=config.model.revision,
                dtype=str(model.dtype).removeprefix("torch."),
                lora_rank=config.training.lora_r,
            )


def make_server_engine(
    config: EngineConfig, model_id: str, context_length: int, encode: Encode | None = None
) -> Engine:
    """An engine that asks a server; no model need be loaded.

    Args:
        config: address and ways of the server.
        model_id: name of the model, by default for the server too.
        context_length: most tokens of prompt and completion together.
        encode: tokenizer of the served model; without it tokens are estimated from the bytes.

    Raises:
        ConfigError: the package that it needs is not installed, or the environment cannot be used.
    """
    try:
        from selfinstruct_train.engines.server.engine import ServerEngine
    except ModuleNotFoundError as error:
        raise _missing("server", "httpx2", error) from error
    return ServerEngine(config, model_id, context_length, encode)


def _local(name: str) -> Path | str:
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else name


def _missing(kind: str, package: str, error: ModuleNotFoundError) -> Exception:
    if error.name is None or error.name.partition(".")[0] != package:
        return error
    return ConfigError(
        f"generation.engine.kind: '{kind}' needs the package {package}; run: pip install "
        f"'selfinstruct-train[{kind}]'"
    )
