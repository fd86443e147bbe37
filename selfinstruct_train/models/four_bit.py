"""Linear layers in 4 bits, by bitsandbytes: a frozen base that an adapter is trained beside."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from selfinstruct_train.models.describe import ModelDescription

_PACKAGE = "bitsandbytes"


def check_four_bit() -> None:
    """See that the package is installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ConfigError(
            f"training.adapter: 'qlora' needs the package {_PACKAGE}; run: pip install "
            "'selfinstruct-train[qlora]', or set it to lora"
        )


def read_in_four_bits(known: ModelDescription, config: ModelConfig) -> PreTrainedModel:
    """Read weights as NormalFloat with doubly quantized constants (arXiv 2305.14314).

    Args:
        known: which model, where, and the precision of whatever is not quantized.
        config: the model's settings.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    check_four_bit()
    # Whoever checks alone needs none of these.
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        known.source,
        revision=config.revision,
        dtype=known.dtype,
        attn_implementation=config.attention,
        use_safetensors=True,
        trust_remote_code=False,
        device_map={"": known.device},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=known.dtype,
        ),
    )
    for module in model.modules():
        # On a CPU it would repack the weights where no gradient is asked for, and compute otherwise
        # from there on than in training.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model
