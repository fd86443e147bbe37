"""From seed tasks and generated instances to the rows and tokens that are trained on."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import DataError
from selfinstruct_train.models.tokenizer import tokenize
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import GeneratedInstance, Row, SeedTask, TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.templates import ChatPrompt, choose_variant, completion_text, encode
from selfinstruct_train.training.encoded import Example, StoredExamples, write_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS_AT_ONCE = 1_000


class DatasetCounts(Row):
    """dataset/counts.json: what the training data is made of."""

    rows: int
    seed_rows: int
    generated_rows: int
    own_rows: int = 0
    replay_rows: int = 0
    instructions: int
    """Different instructions among the rows."""
    classification_rows: int


class Examples(NamedTuple):
    """The rows that fit, and those that do not."""

    kept: StoredExamples
    """In a file, from which each is read when it is asked for."""
    too_long: tuple[str, ...]
    """Ids of rows longer than the limit: left out whole, never cut."""


class TrainingRows:
    """Rows to train on, made again each time they are gone through: memory never holds all.

    Args:
        read: begins to read them.
    """

    def __init__(self, read: Callable[[], Iterable[TrainingRow]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[TrainingRow]:
        return iter(self._read())

    def without(self, places: Collection[int]) -> TrainingRows:
        """These rows less those at some places."""
        return TrainingRows(lambda: (row for place, row in enumerate(self) if place not in places))


def training_rows(
    seed_tasks: Sequence[SeedTask],
    instances: Callable[[], Iterable[GeneratedInstance]],
    include_seeds: bool,
    own: Sequence[TrainingRow] = (),
) -> TrainingRows:
    """The rows to train on: seed tasks, generated instances, own rows, in their given order.

    Args:
        seed_tasks: the human-written tasks; each of their instances becomes a row.
        instances: reads the machine-written rows of all rounds so far.
        include_seeds: whether the seed tasks are trained on.
        own: rows of the user's own.

    Raises:
        DataError: there is nothing to train on.
    """

    def read() -> Iterator[TrainingRow]:
        for task in seed_tasks if include_seeds else ():
            for number, instance in enumerate(task.instances):
                yield TrainingRow(
                    id=seed_row_id(task, number),
                    source="seed",
                    instruction=task.instruction,
                    input=instance.input,
                    output=instance.output,
                    is_classification=task.is_classification,
                )
        for row in instances():
            yield TrainingRow(
                id=row.id,
                source="generated",
                instruction=row.instruction,
                input=row.input,
                output=row.output,
                is_classification=row.is_classification,
            )
        yield from own

    if next(read(), None) is None:
        raise DataError(
            "there is no row to train on: generation kept no instance and training.include_seeds "
            "is off; look into rejected/ for the reasons, or set training.include_seeds=true"
        )
    return TrainingRows(read)


def seed_row_id(task: SeedTask, number: int) -> str:
    """Id of the training row of one of a seed task's instances, counted from 0."""
    return f"{task.id}#{number}"


def write_dataset(rows: Iterable[TrainingRow], directory: RoundDirectory) -> DatasetCounts:
    """Write the round's ``dataset/`` folder: train.jsonl and counts.json.

    Raises:
        RunError: the folder cannot be written, or holds other rows.
    """
    kinds: Counter[str] = Counter()
    # Their hashes, for the texts of a large run would fill the memory.
    instructions: set[int] = set()

    def counted() -> Iterator[TrainingRow]:
        for row in rows:
            kinds[row.source] += 1
            kinds["classification"] += row.is_classification
            instructions.add(hash(row.instruction))
            yield row

    if directory.world.is_main:
        directory.store(directory.dataset / "train.jsonl", TrainingRow).emit(counted())
    else:
        deque(counted(), maxlen=0)
    counts = DatasetCounts(
        rows=kinds["seed"] + kinds["generated"] + kinds["own"] + kinds["replay"],
        seed_rows=kinds["seed"],
        generated_rows=kinds["generated"],
        own_rows=kinds["own"],
        replay_rows=kinds["replay"],
        instructions=len(instructions),
        classification_rows=kinds["classification"],
    )
    if directory.world.is_main:
        text = counts.model_dump_json(indent=1) + "\n"
        write_atomically(directory.dataset / "counts.json", text)
    return counts


def encode_rows(
    rows: Iterable[TrainingRow],
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    answers: AnswerFormat,
    max_length: int,
    seed: int,
    file: Path,
    world: World = ALONE,
) -> Examples:
    """Turn rows into prompts, completions and tokens, in a file: memory holds a few at a time.

    Args:
        rows: what to train on.
        config: names the template.
        tokenizer: the model's.
        answers: the pack's templates.
        max_length: most tokens of prompt, completion and end token together.
        seed: chooses each row's encoding where the template is ``varied``.
        file: where the examples go; the main process writes it, all read it.
        world: this process among its peers; every one must call.

    Raises:
        ConfigError: the template is ``chat`` and the tokenizer has none.
        DataError: no row is short enough.
        RunError: the file cannot be written.
    """

    def encode_all() -> Iterator[str]:
        too_long: list[str] = []
        waiting, shortest, kept = iter(rows), math.inf, 0

        def pieces() -> Iterator[list[Example]]:
            nonlocal shortest, kept
            while few := list(islice(waiting, _ROWS_AT_ONCE)):
                examples = _encode_piece(few, config, tokenizer, answers, seed)
                fitting = [e for e in examples if len(e.tokens) <= max_length]
                too_long.extend(e.id for e in examples if len(e.tokens) > max_length)
                shortest = min(shortest, *(len(e.tokens) for e in examples))
                kept += len(fitting)
                yield fitting

        write_examples(file, pieces())
        if not kept:
            raise DataError(
                f"none of the {len(too_long)} training rows fits training.max_length and the "
                f"model's context ({max_length} tokens; the shortest row has {shortest}); raise "
                "training.max_length or take a model with a longer context"
            )
        yield from too_long

    # As a stream, for peers wait as long as it takes.
    too_long = tuple(world.stream(encode_all))
    stored = StoredExamples(file)
    world.gather(list)  # nobody goes on, and may delete the file, before all have opened it
    return Examples(stored, too_long)


def _encode_piece(
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    answers: AnswerFormat,
    seed: int,
) -> list[Example]:
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
    return encode_texts([row.id for row in rows], prompts, completions, tokenizer)


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
