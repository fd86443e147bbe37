"""Rows laid end to end: each one's loss is what it is alone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.training import checks
from selfinstruct_train.training.dataset import encode_rows
from selfinstruct_train.training.encoded import IGNORED


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(
        torch.nn.functional.cross_entropy(
            logits[:-1].float(), labels[1:], ignore_index=IGNORED, reduction="sum"
        )
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_each_row_has_the_loss_that_it_has_alone(
    small: ModuleType, tmp_path: Path, architecture: str
) -> None:
    loaded = small.loaded_model(architecture)
    rows = [
        row.model_copy(update={"output": f"{row.output} " * (1 + i % 4)})
        for i, row in enumerate(small.rows(6))
    ]
    examples = encode_rows(
        rows,
        small.settings(),
        loaded.tokenizer,
        answers=load_answers("en"),
        max_length=256,
        seed=1,
        file=tmp_path / "encoded.arrow",
    ).kept
    dataset = examples.dataset()
    collate = DataCollatorForLanguageModeling(
        pad_token_id=loaded.tokenizer.pad_token_id, padding_free=True
    )
    batch = collate([dataset[i] for i in range(len(dataset))])
    assert batch["input_ids"].shape == (1, sum(len(e.tokens) for e in examples))
    with torch.no_grad():
        packed = loaded.model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits[0]
        begin = 0
        for example in examples:
            end = begin + len(example.tokens)
            alone = loaded.model(
                input_ids=torch.tensor(example.tokens[None], dtype=torch.long), use_cache=False
            ).logits[0]
            labels = torch.tensor(example.labels, dtype=torch.long)
            assert torch.equal(batch["labels"][0, begin + 1 : end], labels[1:])
            assert row_losses(packed[begin:end], labels) == pytest.approx(
                row_losses(alone, labels), rel=1e-5
            )
            begin = end
    checks.check_packing(loaded.model, dataset, collate)
