"""Loading the weights of a model, for writing and for training."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.adapters import AdapterSwitch
from selfinstruct_train.models.describe import ModelDescription, describe_model, reason
from selfinstruct_train.models.four_bit import read_in_four_bits
from selfinstruct_train.models.gguf import in_bfloat16, is_gguf

log = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """A causal language model, ready to write and to be trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Its pad token is never its end token, so that training can tell them apart."""
    device: torch.device
    dtype: torch.dtype
    context_length: int
    """Most tokens of prompt and completion together."""
    model_id: str
    adapters: AdapterSwitch
    """Which tuned model, if any, is in force on ``model``."""
    notes: tuple[str, ...]
    """What was decided while loading, one line each, for the log and the manifest."""


def load_model(
    config: ModelConfig, description: ModelDescription | None = None, four_bit: bool = False
) -> LoadedModel:
    """Load a model for writing and for training.

    Only safetensors are read and no code from the model's folder is run.

    Args:
        config: the model's settings.
        description: what `describe_model` made of them; by default it is asked.
        four_bit: keep the weights of linear layers in 4 bits, for an adapter to be trained beside.

    Raises:
        EngineError: the model, its device or its precision is not to be had.
    """
    known = description or describe_model(config)
    threads = set_threads(config.threads)
    source = known.source
    if is_gguf(config.name_or_path) and known.dtype == torch.bfloat16:
        source = str(in_bfloat16(Path(source)))
    try:
        if four_bit:
            model = read_in_four_bits(known, config).eval()
        else:
            model = _read(source, config, known.dtype, config.attention).to(known.device).eval()
    except Exception as error:  # hub, file and format faults come as a dozen unrelated classes
        raise EngineError(reason(config.name_or_path, known.device, error)) from error
    require_cache(model, config.name_or_path)
    notes = (
        f"model {config.name_or_path}: {type(model).__name__}, {model.num_parameters():,} "
        f"parameters, {str(known.dtype).removeprefix('torch.')} on {known.device}, attention "
        f"{model.config._attn_implementation}",
        f"CPU threads: {threads}",
        *known.notes,
    )
    for note in notes:
        log.info(note)
    return LoadedModel(
        model,
        known.tokenizer,
        known.device,
        known.dtype,
        known.context_length,
        known.model_id,
        AdapterSwitch(model),
        notes,
    )


def set_threads(wanted: int | None) -> int:
    """Let torch use so many CPU threads, by default the cores' fair share of this process.

    Returns:
        How many that is.
    """
    # More threads than cores make each other wait, and every process of a launch counts.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    by_environment = int(asked) if asked.isdigit() else 0
    threads = wanted or by_environment or max(1, len(os.sched_getaffinity(0)) // processes)
    torch.set_num_threads(threads)
    return threads


def require_cache(model: PreTrainedModel, name: str) -> None:
    """See that a model keeps keys and values between tokens, which writing relies on.

    Args:
        model: with or without its weights.
        name: the user's, for the error.

    Raises:
        EngineError: it keeps something else, as state-space models (Mamba, RWKV) do.
    """
    if cache_argument(model) is None:
        raise without_cache(model, name)


def cache_argument(model: PreTrainedModel) -> Literal["past_key_values", "cache"] | None:
    """Under which name a model takes, and hands out, what it keeps between tokens.

    transformers 5.24 renamed ``past_key_values`` to ``cache``, and the state of state-space models
    to the same word, so that from there on they can write too. None where it has neither.
    """
    parameters = inspect.signature(model.forward).parameters
    if "past_key_values" in parameters:
        return "past_key_values"
    return "cache" if "cache" in parameters else None


def without_cache(model: PreTrainedModel, name: str) -> EngineError:
    """The error that says that a model keeps no keys and values."""
    return EngineError(
        f"model.name_or_path: '{name}' is a {type(model).__name__}, which keeps a state and no "
        "keys and values between tokens, so it cannot write here; name a model with attention "
        "layers"
    )


def end_tokens(loaded: LoadedModel) -> frozenset[int]:
    """Every token that the model's own settings or its tokenizer name as an end."""
    generation = getattr(loaded.model, "generation_config", None)
    named = [
        getattr(generation, "eos_token_id", None),
        getattr(loaded.model.config.get_text_config(), "eos_token_id", None),
        loaded.tokenizer.eos_token_id,
    ]
    found: set[int] = set()
    for value in named:
        if isinstance(value, Iterable):
            found.update(value)
        elif value is not None:
            found.add(value)
    return frozenset(found)


def _read(source: str, config: ModelConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    # The program says itself what it does.
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            source,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except ValueError as error:
        # Some architectures, such as Gemma 2, have no sdpa in transformers.
        if attention == "eager" or "scaled_dot_product_attention" not in str(error):
            raise
        return _read(source, config, dtype, "eager")
