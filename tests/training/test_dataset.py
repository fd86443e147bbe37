from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from selfinstruct_train.distributed import World
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import (
    GeneratedInstance,
    Instance,
    Provenance,
    Sampling,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.dataset import (
    Examples,
    encode_rows,
    encode_texts,
    training_rows,
    write_dataset,
)
from selfinstruct_train.training.encoded import ExampleIndex, StoredExamples, write_examples

EN = load_answers("en")

SEED = SeedTask(
    id="seed-1",
    name="n",
    instruction="Add.",
    instances=(Instance(input="1 1", output="2"), Instance(input="1 2", output="3")),
    is_classification=False,
)
GENERATED = GeneratedInstance(
    id="i-1",
    instruction_id="t-1",
    instruction="Is it blue?",
    input="sky",
    output="yes",
    is_classification=True,
    provenance=Provenance(
        round=0, request="r", sampling=Sampling(max_tokens=1), model="m", prompt_hash="h"
    ),
)


ROWS = training_rows([SEED], lambda: [GENERATED], include_seeds=True)


def test_seeds_come_first_and_each_instance_is_a_row_with_an_id_of_its_own() -> None:
    assert [(r.id, r.source, r.input, r.output) for r in ROWS] == [
        ("seed-1#0", "seed", "1 1", "2"),
        ("seed-1#1", "seed", "1 2", "3"),
        ("i-1", "generated", "sky", "yes"),
    ]
    assert [r.id for r in training_rows([SEED], lambda: [GENERATED], False)] == ["i-1"]


def test_rows_at_some_places_can_be_left_out_each_time_they_are_gone_through() -> None:
    rows = ROWS.without({1})
    assert [r.id for r in rows] == [r.id for r in rows] == ["seed-1#0", "i-1"]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="training.include_seeds"):
        training_rows([SEED], list, include_seeds=False)


def test_the_dataset_folder_holds_rows_and_counts_and_is_the_same_when_written_again(
    tmp_path: Path,
) -> None:
    counts = write_dataset(ROWS, RoundDirectory(tmp_path))
    files = {p: p.read_bytes() for p in (tmp_path / "dataset").iterdir()}
    assert {p.name for p in files} == {"train.jsonl", "counts.json"}
    assert write_dataset(ROWS, RoundDirectory(tmp_path)) == counts
    assert {p: p.read_bytes() for p in (tmp_path / "dataset").iterdir()} == files
    assert (counts.rows, counts.seed_rows, counts.generated_rows) == (3, 2, 1)
    assert (counts.instructions, counts.classification_rows) == (2, 1)


def test_a_peer_that_may_not_write_writes_nothing(tmp_path: Path) -> None:
    write_dataset(ROWS, RoundDirectory(tmp_path, World(1, 2)))
    assert list(tmp_path.iterdir()) == []


def encoded(
    small: ModuleType,
    folder: Path,
    rows: Iterable[TrainingRow],
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int = 999,
    seed: int = 0,
    **settings: object,
) -> Examples:
    return encode_rows(
        rows,
        small.settings(**settings),
        tokenizer or small.byte_tokenizer(),
        answers=EN,
        max_length=max_length,
        seed=seed,
        file=folder / "encoded.arrow",
    )


def test_rows_that_do_not_fit_are_left_out_whole_and_counted(
    small: ModuleType, tmp_path: Path
) -> None:
    rows = small.rows(11)
    lengths = [len(e.tokens) for e in encoded(small, tmp_path, rows).kept]
    # The last row has two more digits in its input and four more in its answer.
    cut = encoded(small, tmp_path, rows, max_length=lengths[0])
    assert cut.too_long == ("row-10",)
    assert [len(e.tokens) for e in cut.kept] == lengths[:10]
    with pytest.raises(DataError, match=f"none of the 11 .* shortest row has {lengths[0]}"):
        encoded(small, tmp_path, rows, max_length=lengths[0] - 1)


def test_every_row_ends_in_the_end_token_and_the_answer_begins_after_the_prompt(
    small: ModuleType, tmp_path: Path
) -> None:
    tokenizer = small.byte_tokenizer()
    for example in encoded(small, tmp_path, small.rows(3)).kept:
        assert example.split_as_joined
        assert tokenizer.decode(example.tokens[: example.answer_start]) == example.prompt
        assert tokenizer.decode(example.tokens[example.answer_start : -1]) == example.completion
        assert example.tokens[-1] == tokenizer.eos_token_id


def test_examples_are_read_from_the_file_as_they_were_encoded(
    small: ModuleType, tmp_path: Path
) -> None:
    texts = [f"{n}: " + "ü" * (n % 7) for n in range(2_100)]
    examples = encode_texts(texts, texts, texts, small.byte_tokenizer())
    pieces = (examples[:1_000], [], examples[1_000:])
    write_examples(tmp_path / "new" / "file.arrow", pieces)
    stored = StoredExamples(tmp_path / "new" / "file.arrow")
    assert len(stored) == 2_100
    for read in (list(stored), [stored[i] for i in range(2_100)], stored[:]):
        for one, other in zip(read, examples, strict=True):
            assert one._replace(tokens=None) == other._replace(tokens=None)
            assert one.tokens.dtype == np.int32
            assert one.tokens.tolist() == other.tokens.tolist()
    assert stored[-1].id == texts[-1]
    with pytest.raises(IndexError):
        stored[2_100]


def test_memory_does_not_grow_with_the_rows_that_are_encoded(
    small: ModuleType, tmp_path: Path
) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        examples = encoded(small, tmp_path, (small.rows(1)[0] for _ in range(count)))
        ExampleIndex(examples.kept)
        kept = pa.total_allocated_bytes()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(examples.kept) == count
        return peak + kept

    peak(10)
    assert peak(6_000) < 1.2 * peak(2_000)


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"encoded.arrow: cannot be written .* make room"):
        write_examples(tmp_path / "file" / "encoded.arrow", [])


def test_a_blank_that_a_word_swallows_is_seen(small: ModuleType) -> None:
    tokenizer = small.word_tokenizer()
    right, trap = encode_texts(["a", "b"], ["ok:", "ok: "], [" yes", "yes"], tokenizer)
    assert right.tokens.tolist() == trap.tokens.tolist()
    assert right.split_as_joined
    assert not trap.split_as_joined


def test_varied_rows_differ_in_their_prompts_and_follow_the_seed(
    small: ModuleType, tmp_path: Path
) -> None:
    def prompts(seed: int) -> list[str]:
        kept = encoded(small, tmp_path, small.rows(12), seed=seed, template="varied").kept
        return [e.prompt.replace(e.id.removeprefix("row-"), "N") for e in kept]

    assert len(set(prompts(0))) > 3
    assert prompts(0) == prompts(0)
    assert prompts(0) != prompts(1)


@pytest.mark.parametrize("words", [False, True])
def test_the_trainer_gets_the_tokens_and_labels_that_trl_would_make_of_the_texts(
    small: ModuleType, tmp_path: Path, words: bool
) -> None:
    tokenizer = small.word_tokenizer() if words else small.byte_tokenizer()
    prompts = ["Is it so? ", "Is it so?", "Say: "] * 2
    completions = ["yes", " yes", "no"] * 2
    examples = encode_texts(list("abcdef"), prompts, completions, tokenizer)
    write_examples(tmp_path / "encoded.arrow", [examples[:4], examples[4:]])
    texts = Dataset.from_dict({"prompt": prompts, "completion": completions})
    trainer = SFTTrainer(
        model=small.loaded_model(tokenizer=tokenizer).model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            max_length=None,
            completion_only_loss=True,
            report_to="none",
        ),
        train_dataset=texts,
        processing_class=tokenizer,
    )
    expected = trainer.train_dataset.select_columns(["input_ids", "labels"])
    assert list(StoredExamples(tmp_path / "encoded.arrow").dataset()) == list(expected)


def test_a_real_chat_template_meets_its_answers_at_a_token_boundary(
    small: ModuleType, tmp_path: Path
) -> None:
    tokenizer = small.real_tokenizer("Qwen2.5-Instruct")
    if tokenizer is None:
        pytest.skip(f"no {small.material()}/tokenizers; set SELFINSTRUCT_MATERIAL")
    for example in encoded(small, tmp_path, small.rows(12), tokenizer, template="chat").kept:
        assert example.split_as_joined
        assert example.prompt.endswith("<|im_start|>assistant\n")
        assert tokenizer.decode(example.tokens[example.answer_start :]) == (
            f"{example.completion}{tokenizer.eos_token}"
        )
