"""From seed tasks and generated instances to the rows and tokens that are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.models.tokenizer import tokenize
from selfinstruct_train.packs.pack import AnswerFormat
from selfinstruct_train.records import GeneratedInstance, Row, SeedTask, TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.templates import ChatPrompt, choose_variant, completion_text, encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_ROWS_AT_ONCE = 1_000


class DatasetCounts(Row):
    """dataset/counts.json: what the training data is made of."""

    rows: int
    seed_rows: int
    generated_rows: int
    own_rows: int = 0
    instructions: int
    """Different instructions among the rows."""
    classification_rows: int


class Example(NamedTuple):
    """One row as text and as the tokens that the trainer is expected to make of it."""

    id: str
    prompt: str
    completion: str
    """Without the end token."""
    tokens: NDArray[np.int32]
    """Prompt, completion and end token, tokenized together; as Python numbers they would take eight
    times the memory."""
    answer_start: int
    """Where the loss begins: the first token that the prompt alone does not share."""
    split_as_joined: bool
    """Whether the prompt's own tokens begin the whole: asking later shows what training showed."""


class Examples(NamedTuple):
    """The rows that fit, and those that do not."""

    kept: tuple[Example, ...]
    too_long: tuple[str, ...]
    """Ids of rows longer than the limit: left out whole, never cut."""


def training_rows(
    seed_tasks: Sequence[SeedTask],
    instances: Iterable[GeneratedInstance],
    include_seeds: bool,
    own: Sequence[TrainingRow] = (),
) -> list[TrainingRow]:
    """The rows to train on: seed tasks, generated instances, own rows, in their given order.

    Args:
        seed_tasks: the human-written tasks; each of their instances becomes a row.
        instances: the machine-written rows of all rounds so far.
        include_seeds: whether the seed tasks are trained on.
        own: rows of the user's own.

    Raises:
        DataError: there is nothing to train on.
    """
    rows = [
        TrainingRow(
            id=f"{task.id}#{number}",
            source="seed",
            instruction=task.instruction,
            input=instance.input,
            output=instance.output,
            is_classification=task.is_classification,
        )
        for task in (seed_tasks if include_seeds else ())
        for number, instance in enumerate(task.instances)
    ]
    rows += [
        TrainingRow(
            id=instance.id,
            source="generated",
            instruction=instance.instruction,
            input=instance.input,
            output=instance.output,
            is_classification=instance.is_classification,
        )
        for instance in instances
    ]
    rows += own
    if not rows:
        raise DataError(
            "there is no row to train on: generation kept no instance and training.include_seeds "
            "is off; look into rejected/ for the reasons, or set training.include_seeds=true"
        )
    return rows


def write_dataset(rows: Sequence[TrainingRow], directory: RoundDirectory) -> DatasetCounts:
    """Write the round's ``dataset/`` folder: train.jsonl and counts.json.

    Raises:
        RunError: the folder cannot be written, or holds other rows.
    """
    counts = DatasetCounts(
        rows=len(rows),
        seed_rows=sum(row.source == "seed" for row in rows),
        generated_rows=sum(row.source == "generated" for row in rows),
        own_rows=sum(row.source == "own" for row in rows),
        instructions=len({row.instruction for row in rows}),
        classification_rows=sum(row.is_classification for row in rows),
    )
    if directory.world.is_main:
        directory.store(directory.dataset / "train.jsonl", TrainingRow).emit(rows)
        text = counts.model_dump_json(indent=1) + "\n"
        write_atomically(directory.dataset / "counts.json", text)
    return counts


def encode_rows(
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    answers: AnswerFormat,
    max_length: int,
    seed: int,
) -> Examples:
    """Turn rows into prompts, completions and tokens.

    Args:
        rows: what to train on.
        config: names the template.
        tokenizer: the model's.
        answers: the pack's templates.
        max_length: most tokens of prompt, completion and end token together.
        seed: chooses each row's encoding where the template is ``varied``.

    Raises:
        ConfigError: the template is ``chat`` and the tokenizer has none.
        DataError: no row is short enough.
    """
    prompts = [
        encode(
            config.template,
            row.instruction,
            row.input,
            answers,
            tokenizer=tokenizer,
            variant=choose_variant(seed, row.id, answers),
        )
        for row in rows
    ]
    completions = [completion_text(row.output, answers, config.template) for row in rows]
    examples = encode_texts([row.id for row in rows], prompts, completions, tokenizer)
    kept = tuple(e for e in examples if len(e.tokens) <= max_length)
    if not kept:
        shortest = min(len(e.tokens) for e in examples)
        raise DataError(
            f"none of the {len(rows)} training rows fits training.max_length and the model's "
            f"context ({max_length} tokens; the shortest row has {shortest}); raise "
            "training.max_length or take a model with a longer context"
        )
    return Examples(kept, tuple(e.id for e in examples if len(e.tokens) > max_length))


def encode_texts(
    ids: Sequence[str],
    prompts: Sequence[str],
    completions: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Example]:
    """Tokenize prompts and completions, apart and together."""
    # A tokenizer's own output takes some hundred times the memory of its numbers.
    examples = []
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        few = slice(start, start + _ROWS_AT_ONCE)
        examples += _encode_few(ids[few], prompts[few], completions[few], tokenizer)
    return examples


def _encode_few(
    ids: Sequence[str],
    prompts: Sequence[str],
    completions: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Example]:
    joined = tokenize(
        tokenizer,
        [
            prompt.followed_by(completion)
            if isinstance(prompt, ChatPrompt)
            else prompt + completion
            for prompt, completion in zip(prompts, completions, strict=True)
        ],
    )
    alone = tokenize(tokenizer, prompts)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    examples = []
    for id, prompt, completion, whole, part in zip(
        ids, prompts, completions, joined, alone, strict=True
    ):
        start = next(
            (i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), len(part)
        )
        examples.append(
            Example(
                id,
                prompt,
                completion,
                np.array(whole + end, np.int32),
                min(start, len(whole)),
                start == len(part),
            )
        )
    return examples


def to_dataset(examples: Sequence[Example]) -> Dataset:
    """Tokens, and which of them the loss is taken on, as TRL's SFTTrainer takes them.

    It would tokenize text by itself, and read control tokens out of the data.
    """
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [e.tokens for e in examples],
            "completion_mask": [
                (np.arange(len(e.tokens)) >= e.answer_start).astype(np.int8) for e in examples
            ],
        }
    )
