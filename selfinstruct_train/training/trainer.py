"""TRL's trainer, without logits for tokens that nothing is learned from."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers.utils import ModelOutput
from trl import SFTTrainer

from selfinstruct_train.training.adapter import without_adapter
from selfinstruct_train.training.encoded import IGNORED


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """Puts only those places through the language-model head that predict a labelled token.

    On a GPU TRL does so itself. On a CPU it scores every place and throws the prompts' away, which
    at a vocabulary of 50,000 and short answers is most of the time of a step.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as TRL has it; with ``labels`` [rows, tokens] among the inputs."""
        if inputs["labels"].device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
        learned = targets != IGNORED
        given = {key: value for key, value in inputs.items() if key != "labels"}
        # One row of all that is learned: TRL takes targets that are shifted already as they are.
        given["shift_labels"] = targets[learned][None]
        backbone = without_adapter(self.accelerator.unwrap_model(model)).base_model
        hook = backbone.register_forward_hook(partial(_keep, learned))
        try:
            return super().compute_loss(model, given, return_outputs, num_items_in_batch)
        finally:
            hook.remove()


def _keep(
    learned: torch.Tensor, _: torch.nn.Module, inputs: tuple[Any, ...], output: ModelOutput
) -> ModelOutput:
    """Keep the last hidden states of some places, [1, places, size]."""
    output.last_hidden_state = output.last_hidden_state[learned][None]
    return output
