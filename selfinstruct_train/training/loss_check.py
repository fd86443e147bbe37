"""Is the trainer's loss the model's own?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from selfinstruct_train.errors import TrainingError
from selfinstruct_train.training.adapter import without_adapter
from selfinstruct_train.training.checks import inference
from selfinstruct_train.training.encoded import IGNORED
from selfinstruct_train.training.sharding import is_sharded

if TYPE_CHECKING:
    from trl import SFTTrainer

_ROWS = 2
"""Logits of a whole vocabulary for every token take much memory."""
_TOLERANCE = 1e-3
"""Most that the two losses may differ, as a share of the larger one, in float32."""
_TOLERANCE_HALF = 2e-2
"""The same where the model computes with 16 bits."""


def check_loss(trainer: SFTTrainer) -> None:
    """Compare the trainer's loss on its first rows with the cross entropy of the model's logits.

    TRL computes the loss from the last hidden states and the head's weight. A model whose head does
    more, such as another dense layer (BERT, RoBERTa, ModernBERT decoder), would be trained without
    it: the loss falls and the model does not improve. Every process must call.

    Raises:
        TrainingError: they differ.
    """
    model = trainer.model
    rows = [trainer.train_dataset[i] for i in range(min(_ROWS, len(trainer.train_dataset)))]
    device = next(model.parameters()).device
    batch = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in trainer.data_collator(rows).items()
    }
    labels = batch["labels"]
    with inference(model):
        asked = {key: value for key, value in batch.items() if key != "labels"}
        learned = labels[:, 1:] != IGNORED
        logits = model(**asked, use_cache=False).logits[:, :-1][learned].float()
        expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned]).item()
        found = trainer.compute_loss(model, dict(batch)).item()
    if math.isnan(expected) and math.isnan(found):
        return  # they agree; training stops at its first step and says why
    # Sharded weights are computed with in the precision of the launcher.
    mixed = is_sharded(model) and trainer.accelerator.mixed_precision != "no"
    half = mixed or next(model.parameters()).dtype != torch.float32
    tolerance = (_TOLERANCE_HALF if half else _TOLERANCE) * max(abs(expected), abs(found))
    if not abs(found - expected) <= tolerance:
        raise TrainingError(
            f"the trainer's loss on the first rows is {found:.4f}, but the logits of "
            f"{type(without_adapter(model)).__name__} give {expected:.4f}: the installed trl "
            "leaves out a part of this model's head, so training would not teach it; name another "
            "model in model.name_or_path"
        )
