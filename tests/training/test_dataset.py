from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from selfinstruct_train.distributed import World
from selfinstruct_train.errors import DataError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import GeneratedInstance, Instance, Provenance, Sampling, SeedTask
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training.dataset import (
    encode_rows,
    encode_texts,
    to_dataset,
    training_rows,
    write_dataset,
)

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


def test_seeds_come_first_and_each_instance_is_a_row_with_an_id_of_its_own() -> None:
    rows = training_rows([SEED], [GENERATED], include_seeds=True)
    assert [(r.id, r.source, r.input, r.output) for r in rows] == [
        ("seed-1#0", "seed", "1 1", "2"),
        ("seed-1#1", "seed", "1 2", "3"),
        ("i-1", "generated", "sky", "yes"),
    ]
    assert [r.id for r in training_rows([SEED], [GENERATED], include_seeds=False)] == ["i-1"]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="training.include_seeds"):
        training_rows([SEED], [], include_seeds=False)


def test_the_dataset_folder_holds_rows_and_counts_and_is_the_same_when_written_again(
    tmp_path: Path,
) -> None:
    rows = training_rows([SEED], [GENERATED], include_seeds=True)
    counts = write_dataset(rows, RoundDirectory(tmp_path))
    files = {p: p.read_bytes() for p in (tmp_path / "dataset").iterdir()}
    assert {p.name for p in files} == {"train.jsonl", "counts.json"}
    assert write_dataset(rows, RoundDirectory(tmp_path)) == counts
    assert {p: p.read_bytes() for p in (tmp_path / "dataset").iterdir()} == files
    assert (counts.rows, counts.seed_rows, counts.generated_rows) == (3, 2, 1)
    assert (counts.instructions, counts.classification_rows) == (2, 1)


def test_a_peer_that_may_not_write_writes_nothing(tmp_path: Path) -> None:
    write_dataset(training_rows([SEED], [], True), RoundDirectory(tmp_path, World(1, 2)))
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_left_out_whole_and_counted(small: ModuleType) -> None:
    rows = small.rows(11)
    tokenizer = small.byte_tokenizer()
    lengths = [
        len(e.tokens)
        for e in encode_rows(
            rows, small.settings(), tokenizer, answers=EN, max_length=999, seed=0
        ).kept
    ]
    # The last row has two more digits in its input and four more in its answer.
    cut = encode_rows(rows, small.settings(), tokenizer, answers=EN, max_length=lengths[0], seed=0)
    assert cut.too_long == ("row-10",)
    assert [len(e.tokens) for e in cut.kept] == lengths[:10]
    with pytest.raises(DataError, match=f"shortest row has {lengths[0]}"):
        encode_rows(
            rows, small.settings(), tokenizer, answers=EN, max_length=lengths[0] - 1, seed=0
        )


def test_every_row_ends_in_the_end_token_and_the_answer_begins_after_the_prompt(
    small: ModuleType,
) -> None:
    tokenizer = small.byte_tokenizer()
    for example in encode_rows(
        small.rows(3), small.settings(), tokenizer, answers=EN, max_length=999, seed=0
    ).kept:
        assert example.split_as_joined
        assert tokenizer.decode(example.tokens[: example.answer_start]) == example.prompt
        assert tokenizer.decode(example.tokens[example.answer_start : -1]) == example.completion
        assert example.tokens[-1] == tokenizer.eos_token_id


def test_an_example_keeps_its_tokens_in_four_bytes_each(small: ModuleType) -> None:
    tokenizer = small.byte_tokenizer()
    texts = [f"{n:02000}" for n in range(2_500)]
    encode_texts(["warm"], ["x"], ["y"], tokenizer)
    tracemalloc.start()
    examples = encode_texts(texts, texts, texts, tokenizer)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(e.tokens) for e in examples] == [4_001] * 2_500
    assert kept < 2_500 * (4 * 4_001 + 1_000)


def test_a_blank_that_a_word_swallows_is_seen(small: ModuleType) -> None:
    tokenizer = small.word_tokenizer()
    right, trap = encode_texts(["a", "b"], ["ok:", "ok: "], [" yes", "yes"], tokenizer)
    assert right.tokens.tolist() == trap.tokens.tolist()
    assert right.split_as_joined
    assert not trap.split_as_joined


def test_varied_rows_differ_in_their_prompts_and_follow_the_seed(small: ModuleType) -> None:
    def prompts(seed: int) -> list[str]:
        settings = small.settings(template="varied")
        kept = encode_rows(
            small.rows(12), settings, small.byte_tokenizer(), answers=EN, max_length=999, seed=seed
        ).kept
        return [e.prompt.replace(e.id.removeprefix("row-"), "N") for e in kept]

    assert len(set(prompts(0))) > 3
    assert prompts(0) == prompts(0)
    assert prompts(0) != prompts(1)


def test_the_trainer_gets_tokens_and_which_of_them_to_learn(small: ModuleType) -> None:
    kept = encode_rows(
        small.rows(2), small.settings(), small.byte_tokenizer(), answers=EN, max_length=999, seed=0
    ).kept
    dataset = to_dataset(kept)
    answer = len(kept[1].tokens) - kept[1].answer_start
    assert dataset[1] == {
        "input_ids": kept[1].tokens.tolist(),
        "completion_mask": [0] * kept[1].answer_start + [1] * answer,
    }


def test_a_real_chat_template_meets_its_answers_at_a_token_boundary(small: ModuleType) -> None:
    tokenizer = small.real_tokenizer("Qwen2.5-Instruct")
    if tokenizer is None:
        pytest.skip(f"no {small.material()}/tokenizers; set SELFINSTRUCT_MATERIAL")
    settings = small.settings(template="chat")
    for example in encode_rows(
        small.rows(12), settings, tokenizer, answers=EN, max_length=999, seed=0
    ).kept:
        assert example.split_as_joined
        assert example.prompt.endswith("<|im_start|>assistant\n")
        assert tokenizer.decode(example.tokens[example.answer_start :]) == (
            f"{example.completion}{tokenizer.eos_token}"
        )
