"""Step 5, second part: tune on pairs of answers, through TRL's DPOTrainer.

The reference is the model as it was when this training began: TRL keeps a frozen copy of the
adapter beside the one that is trained, so the base's weights are in memory once. Where the weights
themselves are trained, a copy of all of them is the reference.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import TrainingError
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import PreferencePair
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import checks
from selfinstruct_train.training.arguments import dpo_arguments
from selfinstruct_train.training.encoded import ExampleIndex
from selfinstruct_train.training.job import (
    Parts,
    TrainingResult,
    fingerprint_of,
    run_training,
)
from selfinstruct_train.training.pairs import (
    EncodedPair,
    balance_lengths,
    encode_pairs,
    write_pairs,
)
from selfinstruct_train.training.progress import OnStep
from selfinstruct_train.training.trainer import PairTrainer

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOTrainer

    from selfinstruct_train.models.load import LoadedModel

log = logging.getLogger(__name__)

_REFERENCE_TOLERANCE = 1e-4
"""Most that log-probabilities of the reference may differ from the model's, as a share."""
_REFERENCE_TOLERANCE_HALF = 2e-2
"""The same where the model computes with 16 bits."""
_PAIRS_COMPARED = 2


def train_on_pairs(
    loaded: LoadedModel,
    pairs: Sequence[PreferencePair],
    config: TrainingConfig,
    directory: RoundDirectory,
    *,
    answers: AnswerFormat,
    seed: int,
    world: World,
    start: Path | None = None,
    on_step: OnStep | None = None,
    say: Callable[[str], None] = log.info,
) -> TrainingResult:
    """Tune on pairs, or finish a tuning that was stopped.

    The same pairs, settings and seed give the same model on the same machine, stopped in between
    or not. On return, and on any error, a base that got an adapter is as it was.

    Args:
        loaded: the base and its tokenizer.
        pairs: what to prefer to what.
        config: how.
        directory: where pairs, tuned model, checkpoints and figures go.
        answers: the pack's templates.
        seed: of the adapter's first weights, the order of the pairs and dropout.
        world: this process among its peers.
        start: go on from this tuned model, which then is the reference too; by default both are the
            base.
        on_step: called on the main process with each logged step.
        say: is told what was damaged and is made again.

    Raises:
        ConfigError: settings that cannot go together.
        DataError: no pair fits.
        TrainingError: the gate or the check of the saved model failed, the loss is not a
            number, or training has destroyed the model.
        RunError: the directory holds another training, or cannot be written.
    """
    length = min(config.max_length, loaded.context_length)
    kept = balance_lengths(pairs).kept if config.preference.balance_length else tuple(pairs)
    encoded = encode_pairs(
        kept, config, loaded.tokenizer, answers=answers, max_length=length, seed=seed
    )
    fingerprint = fingerprint_of(
        [side for pair in encoded for side in (pair.chosen, pair.rejected)],
        config,
        loaded,
        seed,
        world,
        start,
        None,
    )

    def gate(trainer: DPOTrainer, tuned: Any) -> checks.GateReport:
        too_long = len(kept) - len(encoded)
        report = check_pairs(trainer, encoded, loaded.tokenizer, too_long)
        check_reference(trainer)
        return report

    parts = Parts(
        write=lambda: write_pairs(pairs, kept, encoded, directory),
        arguments=lambda: dpo_arguments(loaded, config, directory, seed, world),
        trainer=lambda tuned, arguments, recorder: PairTrainer(
            model=tuned,
            ref_model=copy.deepcopy(tuned) if config.adapter == "none" else None,
            args=arguments,
            train_dataset=dataset_of(encoded),
            processing_class=loaded.tokenizer,
            callbacks=[recorder],
        ),
        gate=gate,
        examples=[pair.chosen for pair in encoded],
        learning_rate=config.preference.learning_rate,
    )
    return run_training(
        parts,
        loaded,
        config,
        directory,
        fingerprint,
        seed=seed,
        world=world,
        start=start,
        on_step=on_step,
        say=say,
    )


def check_pairs(
    trainer: DPOTrainer, pairs: Sequence[EncodedPair], tokenizer: Any, too_long: int
) -> checks.GateReport:
    """The gate: look at every batch of pairs as the model will see it.

    Args:
        trainer: with its own dataset and collator.
        pairs: what the batches should hold, in the order of the dataset.
        tokenizer: the model's.
        too_long: pairs already left out.

    Raises:
        TrainingError: padding is the end token; a pair was cut, changed or lost; its prompts
            differ; an end token is not learned; or the loss is not taken on exactly the answers.
    """
    checks.require_special_tokens(tokenizer)
    size = trainer.args.per_device_train_batch_size
    dataset, eos = trainer.train_dataset, tokenizer.eos_token_id
    if len(dataset) != len(pairs):
        raise TrainingError(
            f"{len(pairs)} pairs went to the trainer but it has {len(dataset)}; install the "
            "versions of this package's constraints file"
        )
    for start in range(0, len(pairs), size):
        few = pairs[start : start + size]
        batch = trainer.data_collator([dataset[start + i] for i in range(len(few))])
        rows = zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
        )
        sides = [("chosen", p, p.chosen) for p in few] + [("rejected", p, p.rejected) for p in few]
        for (side, pair, example), (tokens, attention, learned) in zip(sides, rows, strict=True):
            found = checks.numbers(tokens[attention.bool()])
            where = f"pair {example.id}, {side} answer"
            if not np.array_equal(found, example.tokens):
                raise TrainingError(
                    f"{where}: was cut or changed on its way to the model; lower "
                    "training.max_length below the model's context"
                )
            expected = np.arange(len(learned)) >= pair.prompt
            expected &= checks.numbers(attention).astype(bool)
            if not np.array_equal(checks.numbers(learned).astype(bool), expected):
                raise TrainingError(
                    f"{where}: the loss is not taken on exactly the answer; training.template does "
                    "not suit this tokenizer: try training.template=plain"
                )
            if found[-1] != eos or not found[: pair.prompt].tolist():
                raise TrainingError(
                    f"{where}: does not end in the end token ({tokenizer.eos_token!r}) after a "
                    "prompt, so the model would not learn to stop; the tokenizer's pad token must "
                    "differ from its end token"
                )
            if not np.array_equal(found[: pair.prompt], pair.chosen.tokens[: pair.prompt]):
                raise TrainingError(f"{where}: its prompt differs from that of the other answer")
    both = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    return checks.report_of(ExampleIndex(both), too_long, tokenizer, spaced=False)


def check_reference(trainer: DPOTrainer) -> None:
    """See that the reference is the model as it is before the first step.

    TRL's log-probabilities of the reference must be those that the logits of the model give, which
    no step has changed yet. Every process must call.

    Raises:
        TrainingError: they differ.
    """
    model = trainer.model
    number = min(_PAIRS_COMPARED, len(trainer.train_dataset))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(number)])
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in batch.items()}
    with checks.inference(model):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits[:, :-1]
        found = torch.log_softmax(logits.float(), -1)
        targets = batch["input_ids"][:, 1:, None]
        learned = batch["completion_mask"][:, 1:]
        expected = (found.gather(-1, targets)[..., 0] * learned).sum(-1)
        reference_model = model if trainer.ref_model is None else trainer.ref_model
        chosen, rejected = trainer.compute_ref_log_probs(reference_model, batch)
    reference = torch.cat([chosen, rejected]).float()
    mixed = trainer.accelerator.mixed_precision != "no"
    half = mixed or next(model.parameters()).dtype != torch.float32
    tolerance = _REFERENCE_TOLERANCE_HALF if half else _REFERENCE_TOLERANCE
    worst = ((reference - expected).abs() / expected.abs().clamp(min=1.0)).max().item()
    if not worst <= tolerance:
        raise TrainingError(
            "the log-probabilities of the reference model differ from those of the model before "
            f"training, by a share of {worst:.2g}: this model cannot be trained on pairs with the "
            "installed trl; set training.method=sft"
        )


def dataset_of(pairs: Sequence[EncodedPair]) -> Dataset:
    """Token columns, as the preference collator of TRL takes them."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_ids": [pair.chosen.tokens[: pair.prompt].tolist() for pair in pairs],
            "chosen_ids": [pair.chosen.tokens[pair.prompt :].tolist() for pair in pairs],
            "rejected_ids": [pair.rejected.tokens[pair.prompt :].tolist() for pair in pairs],
        }
    )
