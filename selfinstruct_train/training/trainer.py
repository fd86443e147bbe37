"""TRL's trainers, without work that changes nothing: needless scores, and padding."""

from __future__ import annotations

from functools import partial, wraps
from types import MethodType
from typing import TYPE_CHECKING, Any

import pyarrow.compute
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from trl import DPOTrainer, SFTTrainer

from selfinstruct_train.training.adapter import without_adapter
from selfinstruct_train.training.batches import StepBatches
from selfinstruct_train.training.encoded import IGNORED
from selfinstruct_train.training.launcher import Batching

if TYPE_CHECKING:
    from datasets import Dataset

_NOTHING = {"input_ids": [0], "labels": [IGNORED]}
"""The micro-batch of a process for which a step has no row: a token of which nothing is learned."""


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """Puts only those places through the language-model head that predict a labelled token.

    Its micro-batches are those of `StepBatches`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        score_learned_alone(without_adapter(self.model))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The data of this process."""
        dataset, arguments = self.train_dataset, self.args
        batches = StepBatches(
            pyarrow.compute.list_value_length(dataset.data.column("input_ids")).to_numpy(),
            Batching(arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps),
            arguments.world_size,
            arguments.data_seed,
            lambda: self.state.global_step,
        )
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=lambda rows: self.data_collator(rows or [_NOTHING]),
            pin_memory=arguments.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """Does so for both answers and for the reference.

    It takes the pairs as they were tokenized here, rather than tokenizing their texts again.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        score_learned_alone(without_adapter(self.model))
        if self.ref_model is not None:
            score_learned_alone(self.accelerator.unwrap_model(self.ref_model))

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def score_learned_alone(model: PreTrainedModel) -> None:
    """Let TRL's fused head score labelled places alone on a CPU too.

    On a GPU it does. On a CPU it scores every place and throws the prompts' away, which at a
    vocabulary of 50,000 and short answers is most of the time of a step.

    Args:
        model: one that a trainer of TRL has given its fused head, without an adapter around it.
    """
    fused = model.forward

    # The signature stays: `generate` looks at it.
    @wraps(type(model).forward)
    def narrowed(
        self: PreTrainedModel,
        *arguments: Any,
        labels: torch.Tensor | None = None,
        fused_lm_head: bool = False,
        **options: Any,
    ) -> ModelOutput:
        if labels is None or not fused_lm_head or labels.device.type != "cpu":
            return fused(*arguments, labels=labels, fused_lm_head=fused_lm_head, **options)
        targets = labels[:, 1:]
        learned = targets != IGNORED
        # Targets that are shifted already are taken as they are: one row of all that is learned.
        options |= {"fused_lm_head": True, "shift_labels": targets[learned][None]}
        hook = self.base_model.register_forward_hook(partial(_keep, learned))
        try:
            output = fused(*arguments, **options)
        finally:
            hook.remove()
        for name, found in list(output.items()):
            if found.ndim == 2:
                blank = found.new_zeros(learned.shape)
                setattr(output, name, blank.masked_scatter(learned, found[0]))
        return output

    model.forward = MethodType(narrowed, model)


def _keep(
    learned: torch.Tensor, _: torch.nn.Module, inputs: tuple[Any, ...], output: ModelOutput
) -> ModelOutput:
    """Keep the last hidden states of some places, [1, places, size]."""
    output.last_hidden_state = output.last_hidden_state[:, :-1][learned][None]
    return output
