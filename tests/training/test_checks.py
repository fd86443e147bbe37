from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from selfinstruct_train.errors import TrainingError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.training import checks
from selfinstruct_train.training.dataset import encode_rows, encode_texts
from selfinstruct_train.training.encoded import Example


def rows_of(examples: list[Example]) -> list[dict[str, Any]]:
    """What the trainer's dataset holds when all is well."""
    return [
        {
            "input_ids": list(e.tokens),
            "labels": [-100] * e.answer_start + list(e.tokens[e.answer_start :]),
        }
        for e in examples
    ]


def gate(
    small: ModuleType, examples: list[Example], rows: list[Any], **options: Any
) -> checks.GateReport:
    tokenizer = options.pop("tokenizer", None) or small.byte_tokenizer()
    collate = options.pop("collate", None) or DataCollatorForLanguageModeling(
        pad_token_id=tokenizer.pad_token_id
    )
    arguments = {"too_long": 0, "spaced": True, "batch_size": 3} | options
    return checks.check_batches(rows, collate, examples, tokenizer, **arguments)


@pytest.fixture
def examples(small: ModuleType, tmp_path: Path) -> list[Example]:
    encoded = encode_rows(
        small.rows(12),
        small.settings(),
        small.byte_tokenizer(),
        answers=load_answers("en"),
        max_length=999,
        seed=0,
        file=tmp_path / "encoded.arrow",
    )
    return list(encoded.kept)


def test_right_batches_pass_and_are_counted(small: ModuleType, examples: list[Example]) -> None:
    report = gate(small, examples, rows_of(examples), too_long=2)
    assert report.rows == 12
    # " 1 1" and the end token, and two digits more for 10 and 11.
    assert report.answer_tokens == 10 * 5 + 2 * 7
    assert report.tokens == sum(len(e.tokens) for e in examples)
    assert (report.joined_differently, report.unspaced) == (0, 0)
    assert len(report.warnings) == 1
    assert "2 rows are longer" in report.warnings[0]


def test_a_pad_token_that_is_the_end_token_is_refused(
    small: ModuleType, examples: list[Example]
) -> None:
    tokenizer = small.byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(TrainingError, match="pad token and the end token are the same"):
        gate(small, examples, rows_of(examples), tokenizer=tokenizer)


def test_a_tokenizer_without_an_end_token_is_refused(
    small: ModuleType, examples: list[Example]
) -> None:
    tokenizer = small.byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="no end token"):
        gate(small, examples, rows_of(examples), tokenizer=tokenizer)


def test_an_end_token_without_a_label_is_refused(
    small: ModuleType, examples: list[Example]
) -> None:
    rows = rows_of(examples)
    rows[7]["labels"][-1] = -100
    with pytest.raises(TrainingError, match="row row-7 .*labelled end token"):
        gate(small, examples, rows)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_that_is_not_the_answer_is_refused(
    small: ModuleType, examples: list[Example], shift: int
) -> None:
    rows = rows_of(examples)
    start = examples[4].answer_start + shift
    tokens = list(examples[4].tokens)
    rows[4]["labels"] = [-100] * start + tokens[start:]
    with pytest.raises(TrainingError, match="row row-4: the loss is not taken on exactly"):
        gate(small, examples, rows)


def test_a_cut_row_is_refused(small: ModuleType, examples: list[Example]) -> None:
    rows = rows_of(examples)
    rows[2] = {key: value[:-3] for key, value in rows[2].items()}
    with pytest.raises(TrainingError, match="cut or changed"):
        gate(small, examples, rows)


def test_a_lost_row_is_refused(small: ModuleType, examples: list[Example]) -> None:
    with pytest.raises(TrainingError, match="12 rows went to the trainer but 11"):
        gate(small, examples, rows_of(examples)[1:])


def test_a_loss_on_padding_is_refused(small: ModuleType, examples: list[Example]) -> None:
    proper = DataCollatorForLanguageModeling(pad_token_id=0)

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = proper(rows)
        batch["labels"] = torch.where(batch["attention_mask"] == 0, 0, batch["labels"])
        return batch

    with pytest.raises(TrainingError, match="loss is taken on padding"):
        gate(small, examples, rows_of(examples), collate=collate)


def trap(small: ModuleType, wrong: int, right: int) -> tuple[list[Example], Any]:
    tokenizer = small.word_tokenizer()
    prompts = [f"{i}: " for i in range(wrong)] + [f"{i}:" for i in range(wrong, wrong + right)]
    completions = ["yes"] * wrong + [" yes"] * right
    ids = [f"row-{i}" for i in range(wrong + right)]
    return encode_texts(ids, prompts, completions, tokenizer), tokenizer


def test_prompts_that_lose_their_last_blank_are_warned_of_and_refused_when_most_do(
    small: ModuleType,
) -> None:
    few, tokenizer = trap(small, wrong=2, right=4)
    report = gate(small, few, rows_of(few), tokenizer=tokenizer)
    assert report.joined_differently == 2
    assert "2 of 6 prompts tokenize differently" in report.warnings[0]
    most, tokenizer = trap(small, wrong=4, right=2)
    with pytest.raises(TrainingError, match="4 of 6 prompts tokenize differently"):
        gate(small, most, rows_of(most), tokenizer=tokenizer)


def test_answers_on_a_line_of_their_own_are_warned_of_unless_a_chat_template_did_it(
    small: ModuleType,
) -> None:
    tokenizer = small.word_tokenizer()
    ids = [f"row-{i}" for i in range(3)]
    examples = encode_texts(ids, [f"{i}:\n" for i in range(3)], ["yes"] * 3, tokenizer)
    report = gate(small, examples, rows_of(examples), tokenizer=tokenizer)
    assert report.unspaced == 3
    assert "do not begin with a blank" in report.warnings[0]
    report = gate(small, examples, rows_of(examples), tokenizer=tokenizer, spaced=False)
    assert (report.unspaced, report.warnings) == (0, ())


def test_packed_rows_are_taken_apart_and_checked_each(
    small: ModuleType, examples: list[Example]
) -> None:
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    rows = rows_of(examples)
    assert gate(small, examples, rows, collate=collate, batch_size=5).rows == 12
    rows[11]["labels"][-1] = -100
    with pytest.raises(TrainingError, match="row row-11 .*labelled end token"):
        gate(small, examples, rows, collate=collate, batch_size=5)


def test_packing_that_leaks_between_rows_is_refused(
    small: ModuleType, examples: list[Example]
) -> None:
    model = small.loaded_model(context_length=1024).model
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    rows = rows_of(examples[:3])
    checks.check_packing(model, rows, collate)

    def leaking(batch: list[Any]) -> dict[str, Any]:
        proper = collate(batch)
        return proper | {"position_ids": torch.arange(proper["input_ids"].shape[1])[None]}

    with pytest.raises(TrainingError, match="see each other"):
        checks.check_packing(model, rows, leaking)


def test_an_adapter_that_is_not_the_trained_one_is_refused(
    small: ModuleType, tmp_path: Path, examples: list[Example]
) -> None:
    base_model = small.loaded_model()
    torch.manual_seed(0)
    tuned = get_peft_model(
        base_model.model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(tmp_path / "right")
    in_memory = checks.row_logits(tuned, examples)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data *= 1.1
    tuned.save_pretrained(tmp_path / "wrong")
    tuned.unload()

    def check(adapter: str) -> checks.SavedCheck:
        saved = PeftModel.from_pretrained(base_model.model, str(tmp_path / adapter))
        try:
            return checks.check_saved(
                saved, tmp_path / adapter, in_memory, examples, base_model.tokenizer, 256
            )
        finally:
            saved.unload()

    seen = check("right")
    assert seen.largest_difference == 0.0
    assert seen.prompts == 8
    if seen.stopped == 0:
        assert "ended none of 8 answers" in seen.warnings[0]
    with pytest.raises(TrainingError, match="not the trained one"):
        check("wrong")
