"""What is known of a model without its weights: settings, tokenizer, device, precision, context."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import file_exists, try_to_load_from_cache
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.memory import free_memory, is_out_of_memory
from selfinstruct_train.models.source import EMBEDDED, model_source
from selfinstruct_train.models.tokenizer import check_tokenizer, set_pad_token

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class ModelDescription(NamedTuple):
    """A causal language model without its weights: enough to ask a server that has them."""

    source: str
    """Folder, or name on the Hub."""
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    """Its pad token is never its end token, so that training can tell them apart."""
    device: torch.device
    dtype: torch.dtype
    context_length: int
    """Most tokens of prompt and completion together."""
    model_id: str
    notes: tuple[str, ...]
    """What was decided, one line each."""


def describe_model(config: ModelConfig) -> ModelDescription:
    """Read a model's settings and tokenizer, and check that they fit each other.

    Raises:
        EngineError: the model, its device or its precision is not to be had, or its tokenizer
            cannot be used.
    """
    source = model_source(config)
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    try:
        settings = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=config.revision, trust_remote_code=False
        )
    except Exception as error:  # hub, file and format faults come as a dozen unrelated classes
        raise EngineError(reason(config.name_or_path, device, error)) from error
    rows = settings.get_text_config().vocab_size
    check_tokenizer(tokenizer, rows, config.name_or_path)
    return ModelDescription(
        source,
        settings,
        tokenizer,
        device,
        dtype,
        _context_length(config, settings),
        config.name_or_path,
        (set_pad_token(tokenizer, rows),),
    )


def check_weights(config: ModelConfig, description: ModelDescription) -> None:
    """See that the weights are here or on the Hub, without loading them.

    Raises:
        EngineError: there are none in safetensors format, or nobody can tell.
    """
    source, name = description.source, config.name_or_path
    if Path(source).is_dir():
        found = any(Path(source).glob("*.safetensors"))
    else:
        found = any(
            isinstance(try_to_load_from_cache(source, file, revision=config.revision), str)
            for file in _WEIGHTS
        )
        try:
            found = found or any(
                file_exists(source, file, revision=config.revision) for file in _WEIGHTS
            )
        except Exception as error:  # offline, a proxy, a name without access
            raise EngineError(reason(name, description.device, error)) from error
    if not found:
        raise EngineError(
            f"model.name_or_path: '{name}' has no weights in safetensors format; name another "
            "model, or convert them with save_pretrained"
        )


def _device(wanted: str) -> torch.device:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EngineError(
            "model.device: 'cuda' is asked for but torch finds no GPU; set it to auto or cpu, or "
            "install a torch built for this GPU"
        )
    if wanted == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bfloat16" and not has_bfloat16:
        raise EngineError(
            f"model.dtype: {torch.cuda.get_device_name(device)} cannot compute in bfloat16; set "
            "it to float16, float32 or auto"
        )
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16 else torch.float32
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def _context_length(config: ModelConfig, settings: PreTrainedConfig) -> int:
    known = getattr(settings.get_text_config(), "max_position_embeddings", None)
    wanted = config.context_length
    if known is None and wanted is None:
        raise EngineError(
            f"model.context_length: the config of {config.name_or_path} does not say how many "
            "positions it has; set it"
        )
    if known is not None and wanted is not None and wanted > known:
        raise EngineError(
            f"model.context_length: {wanted} is more than the {known} positions of "
            f"{config.name_or_path}; lower it or leave it out"
        )
    chosen = wanted or known
    assert isinstance(chosen, int)
    return chosen


def reason(name: str, device: torch.device, error: Exception) -> str:
    """Why a model cannot be loaded, and what to do about it."""
    if is_out_of_memory(error):
        free = free_memory(device) / 2**30
        return (
            f"model.name_or_path: not enough memory to load '{name}' ({free:.1f} GiB are free on "
            f"{device}); end other programs, name a smaller model, or set model.dtype=bfloat16, "
            "which halves what float32 takes"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
    return (
        f"model.name_or_path: cannot load '{name}' ({detail}); name a model of the Hugging Face "
        f"Hub that has safetensors weights, a folder that holds one, or '{EMBEDDED}'"
    )
