"""Training on a base in bfloat16 on a CPU: two detours around what is slow there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from selfinstruct_train.training.adapter import without_adapter

if TYPE_CHECKING:
    from transformers import Trainer

_NAME = "selfinstruct_sdpa_in_float32"


@contextmanager
def fast_half(trainer: Trainer, tuned: Any) -> Iterator[None]:
    """Take the steps of a mixed-precision training on a CPU faster, for the time of the training.

    Attention is computed in float32, in which torch's backward pass takes a third of the time of
    that in bfloat16 at the lengths of rows. PEFT does not widen the inputs of its layers to the
    float32 of their weights only for autocast to narrow them again, which changes no bit.

    Args:
        trainer: whose settings say what is mixed; other trainings are left as they are.
        tuned: the model that is trained, with its adapter where it has one.
    """
    base = without_adapter(tuned)
    config = base.config
    before = config._attn_implementation
    halves = trainer.args.device.type == "cpu" and trainer.accelerator.mixed_precision == "bf16"
    if not halves or base.dtype != torch.bfloat16:
        yield
        return
    with disable_input_dtype_casting(tuned):
        try:
            if before == "sdpa":
                AttentionInterface.register(_NAME, _attend)
                AttentionMaskInterface.register(_NAME, sdpa_mask)
                config._attn_implementation = _NAME
            yield
        finally:
            config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of transformers, widened and narrowed."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        wide = (query.float(), key.float(), value.float())
        out, weights = sdpa_attention_forward(module, *wide, attention_mask, **others)
    return out.to(query.dtype), weights
