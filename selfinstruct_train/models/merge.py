"""An adapter merged into the weights of its base, and held against both together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from selfinstruct_train.errors import TrainingError
from selfinstruct_train.models.adapters import without_advice
from selfinstruct_train.models.load import LoadedModel, end_tokens

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, in shares of the largest logit: merged weights are rounded once
more than weights and adapter apart."""


class Merged(NamedTuple):
    """A model that needs no adapter."""

    model: PreTrainedModel
    difference: float | None
    """Largest difference of its logits from those of base and adapter, in shares of the largest;
    None where it never had an adapter."""


def tuned_whole(loaded: LoadedModel) -> Merged:
    """Whole weights that were trained as such, which need no merging; the model is used up."""
    _set_ends(loaded.model, loaded)
    return Merged(loaded.model, None)


def merge_adapter(loaded: LoadedModel, adapter: Path, texts: Sequence[str]) -> Merged:
    """Merge an adapter into the model, which is used up.

    Args:
        loaded: the base.
        adapter: folder of the adapter.
        texts: what both are asked, to compare their logits.

    Raises:
        TrainingError: the merged model is not the adapted one, by the tolerance of its precision.
    """
    with without_advice():
        adapted: Any = PeftModel.from_pretrained(loaded.model, str(adapter)).eval()
    before = _logits(adapted, loaded, texts)
    model: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    after = _logits(model, loaded, texts)
    largest = max(logits.abs().max().item() for logits in before)
    apart = max((a - b).abs().max().item() for a, b in zip(before, after, strict=True))
    difference = apart / largest
    if not difference <= _TOLERANCE[loaded.dtype]:
        raise TrainingError(
            f"{adapter}: merged into the base, it answers otherwise (logits differ by "
            f"{difference:.2%} of the largest); use --dtype float32, or export it without --merge"
        )
    if hasattr(model, "peft_config"):
        del model.peft_config
    _set_ends(model, loaded)
    return Merged(model, difference)


def _logits(model: Any, loaded: LoadedModel, texts: Sequence[str]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [
            model(input_ids=loaded.tokenizer(text, return_tensors="pt").input_ids.to(loaded.device))
            .logits[0]
            .float()
            .cpu()
            for text in texts
        ]


def _set_ends(model: Any, loaded: LoadedModel) -> None:
    """Let `generate` end where the tuned model was taught to."""
    ends = sorted(end_tokens(loaded))
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.generation_config.pad_token_id = loaded.tokenizer.pad_token_id
