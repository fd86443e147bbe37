from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from dev.embedded import forward
from dev.embedded.build import export, lexicon_words, seconds_until
from dev.embedded.packing import (
    ANSWER_WEIGHT,
    IGNORED,
    Batch,
    Packer,
    answer_weights,
    pack,
)
from dev.embedded.pretrain import Settings, Trainer, kind_of, new_model, rate
from dev.embedded.tokenizer import END, PAD, split_words, train_tokenizer
from selfinstruct_train.errors import ConfigError, TrainingError
from selfinstruct_train.packs.parts import Wording

WORDING = Wording(
    instructions_header="Tasks:",
    classification_header="Labels?",
    input_first_header="Examples.",
    output_first_header="Labelled.",
)
SMALL = Settings(
    hidden=32, intermediate=48, layers=2, heads=2, vocabulary=300, context=256, batch_tokens=256,
    short=64, long=128, chunk_tokens=5000, tokens=1500, compiled=False, probe_questions=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [
        "Input: Anna has 12 cats.\nOutput: twelve cats\n",
        "Example 1\nTask: Count the cats.\n",
    ]
    return train_tokenizer(texts * 50, SMALL.vocabulary, SMALL.context)


def _trainer(folder: Path, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(folder, settings, tokenizer, WORDING)


def test_tokenizer_gives_back_any_text_and_keeps_digits_apart(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "Anna has 1234 cats.\n\nTask: naïve “quotes” 猫 \t x"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode(i) for i in tokenizer(" 123")["input_ids"]] == [" 1", "2", "3"]


def test_end_and_pad_are_single_different_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer(END)["input_ids"] == [tokenizer.eos_token_id]
    assert tokenizer(PAD)["input_ids"] == [tokenizer.pad_token_id]
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_split_words_names_only_words_of_several_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert split_words(tokenizer, ["cats", "zyx"]) == ["zyx"]


def test_lexicon_words_are_single_words_without_repetition() -> None:
    words = lexicon_words()
    assert len(words) == len(set(words)) > 300
    assert all(word.isalpha() for word in words)


def test_forward_pass_computes_what_transformers_computes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = new_model(SMALL, tokenizer)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.ndim == 1 else 0.0, 0.15, generator=generator)
    ids = torch.randint(0, 300, (2, 200), generator=generator)
    targets = ids.roll(-1, 1).masked_fill(torch.arange(200) > 180, IGNORED)
    batch = Batch(ids, targets, (targets != IGNORED).float())
    with torch.no_grad():
        scores = model(ids).logits.transpose(1, 2)
        expected = torch.nn.functional.cross_entropy(scores, targets, reduction="none")
        pieces, tables = forward.parts(False), forward.rotation(model, 200)
        found = forward.token_losses(model, batch, pieces, tables)
        mean = forward.batch_loss(model, batch, pieces, tables)
    assert found == pytest.approx(expected, abs=0.25)
    assert float(mean) == pytest.approx(float(expected.sum() / batch.weights.sum()), rel=0.01)


def test_packed_rows_hold_whole_documents_and_beginnings_of_fillers() -> None:
    documents = [[i] * n for i, n in enumerate((9, 7, 5, 3, 2, 12))]
    fillers = [[100, 101, 102, 103]] * 2
    rows = pack(documents, fillers, 10)
    assert all(len(row) <= 10 for row in rows)
    for i, n in enumerate((9, 7, 5, 3, 2, 10)):
        assert sum(row.count(i) for row in rows) == n
        assert any(row.count(i) == n for row in rows)
    filled = [token for row in rows for token in row if token >= 100]
    assert filled[0] == 100


def test_only_the_line_after_output_weighs_more() -> None:
    output, colon, newline = 1, 2, 3
    ids = [5, 2, 1, 2, 7, 8, 3, 1, 9]
    weights = answer_weights(ids, output, colon, newline)
    heavy = [i for i, weight in enumerate(weights) if weight == ANSWER_WEIGHT]
    assert heavy == [4, 5, 6]


def test_chunks_repeat_for_the_same_number_and_differ_for_another(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    packer = Packer(tokenizer, WORDING, 0, 256, 5000)
    first, again, other = packer.chunk(0, 64), packer.chunk(0, 64), packer.chunk(1, 64)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].inputs, other[0].inputs)
    assert first[0].inputs.shape == (4, 64)
    assert torch.equal(first[0].targets == IGNORED, first[0].weights == 0)


def test_rate_rises_stays_and_falls_to_zero() -> None:
    settings = Settings(warmup=0.1, decay_from=0.5)
    rates = [rate(f, settings) for f in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_resumed_run_ends_like_an_unbroken_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = _trainer(tmp_path / "whole", tokenizer, SMALL)
    whole.train()
    broken = _trainer(tmp_path / "broken", tokenizer, SMALL)
    step = broken._step

    def interrupted(batch: Batch, relative_rate: float) -> float:
        if broken.progress.step == 3:
            raise KeyboardInterrupt
        return step(batch, relative_rate)

    broken._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = _trainer(tmp_path / "broken", tokenizer, SMALL)
    resumed.load()
    assert resumed.progress.step == 3
    resumed.train()
    assert resumed.progress.tokens == whole.progress.tokens
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_resume_refuses_a_checkpoint_of_another_shape(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(TrainingError, match="no checkpoint"):
        _trainer(tmp_path, tokenizer, SMALL).load()
    _trainer(tmp_path, tokenizer, SMALL).save()
    with pytest.raises(TrainingError, match="layers=2, not 1"):
        _trainer(tmp_path, tokenizer, Settings(**{**SMALL.__dict__, "layers": 1})).load()


def test_exported_folder_loads_and_carries_its_figures(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = _trainer(tmp_path / "run", tokenizer, SMALL)
    trainer.evaluate()
    export(trainer, tmp_path / "weights")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "weights")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "weights")
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == loaded.eos_token_id == tokenizer.eos_token_id
    assert loaded("Anna has 12 cats.")["input_ids"] == tokenizer("Anna has 12 cats.")["input_ids"]
    embedding = trainer.model.model.embed_tokens.weight.detach().bfloat16()
    assert torch.equal(model.get_input_embeddings().weight.detach(), embedding)
    text = (tmp_path / "weights" / "README.md").read_text("utf-8")
    assert "license: apache-2.0" in text and "| plain |" in text and "Few-shot probe" in text


def test_documents_are_told_apart_by_their_shape() -> None:
    texts = {
        "list": "1. Add.\n2. Count.",
        "classification": "Labels?\n\nTask: Add.\nFixed labels: No",
        "input_first": "Task: Add.\nExample 1\nInput: 1 + 1\nOutput: 2",
        "output_first": "Task: Odd?\nLabel: odd\nInput: 1",
        "plain": "Anna has a cat.\nShe likes it.",
    }
    assert {kind: kind_of(text, WORDING) for kind, text in texts.items()} == {k: k for k in texts}


def test_until_counts_to_the_next_time_the_clock_shows_it() -> None:
    now = datetime(2030, 1, 1, 8, 30, tzinfo=UTC)
    assert seconds_until("09:05", now) == 35 * 60
    assert seconds_until("08:00", now) == 23.5 * 3600
    with pytest.raises(ConfigError, match="no time of day"):
        seconds_until("nine", now)
