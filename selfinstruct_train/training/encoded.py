"""Encoded examples in an Arrow file: written piece by piece, read where they are needed."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfinstruct_train.errors import RunError

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""The label that PyTorch's cross entropy passes over."""
_FORMAT = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("answer_start", pa.int32()),
        ("split_as_joined", pa.bool_()),
    ]
)


class Example(NamedTuple):
    """One row as text and as the tokens that are trained on."""

    id: str
    prompt: str
    completion: str
    """Without the end token."""
    tokens: NDArray[np.int32]
    """Prompt, completion and end token, tokenized together."""
    answer_start: int
    """Where the loss begins: the first token that the prompt alone does not share."""
    split_as_joined: bool
    """Whether the prompt's own tokens begin the whole: asking later shows what training showed."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """The tokens, those of the prompt ignored."""
        labels = self.tokens.copy()
        labels[: self.answer_start] = IGNORED
        return labels


def write_examples(path: Path, pieces: Iterable[Sequence[Example]]) -> None:
    """Write examples to a new file, a piece at a time.

    Args:
        path: the file; an older one of this name is replaced.
        pieces: examples that memory can hold together.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever still reads an older file keeps what is open there.
        path.unlink(missing_ok=True)
        with pa.ipc.new_stream(str(path), _FORMAT) as file:
            for examples in pieces:
                file.write_batch(_batch(examples))
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room and run the same "
            "command again"
        ) from None


def _batch(examples: Sequence[Example]) -> pa.RecordBatch:
    columns = [
        [e.id for e in examples],
        [e.prompt for e in examples],
        [e.completion for e in examples],
        [e.tokens for e in examples],
        [e.labels for e in examples],
        [e.answer_start for e in examples],
        [e.split_as_joined for e in examples],
    ]
    arrays = [pa.array(c, type=field.type) for c, field in zip(columns, _FORMAT, strict=True)]
    return pa.record_batch(arrays, schema=_FORMAT)


class StoredExamples(Sequence[Example]):
    """The examples of a file, memory-mapped: each is read when it is asked for.

    Args:
        path: what `write_examples` wrote.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with pa.memory_map(str(path)) as file:
            self._table = pa.ipc.open_stream(file).read_all()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        (batch,) = self._table.slice(place % len(self), 1).to_batches()
        return next(_examples(batch))

    def __iter__(self) -> Iterator[Example]:
        # Read each time: pages of the mapped file would stay, and count as this process's memory.
        with pa.OSFile(str(self._path)) as file:
            for batch in pa.ipc.open_stream(file):
                yield from _examples(batch)

    def dataset(self) -> Dataset:
        """Tokens and labels, as TRL's SFTTrainer takes them; also memory-mapped."""
        from datasets import Dataset

        return Dataset.from_file(str(self._path)).select_columns(["input_ids", "labels"])


def _examples(batch: pa.RecordBatch) -> Iterator[Example]:
    tokens = batch.column("input_ids")
    numbers, bounds = tokens.values.to_numpy(), tokens.offsets.to_numpy()
    ids, prompts, completions, starts, joined = (
        batch.column(name).to_pylist()
        for name in ("id", "prompt", "completion", "answer_start", "split_as_joined")
    )
    for i, id in enumerate(ids):
        own = numbers[bounds[i] : bounds[i + 1]].copy()
        yield Example(id, prompts[i], completions[i], own, starts[i], joined[i])


class ExampleIndex:
    """Finds examples by their tokens and adds up what they hold: 20 bytes an example."""

    def __init__(self, examples: Iterable[Example]) -> None:
        digests, starts = array("Q"), array("i")
        self.tokens = self.answer_tokens = self.longest = 0
        self.joined_differently = self.unspaced = 0
        for example in examples:
            length = len(example.tokens)
            digests.append(_digest(example.tokens))
            starts.append(example.answer_start)
            self.tokens += length
            self.answer_tokens += length - example.answer_start
            self.longest = max(self.longest, length)
            self.joined_differently += not example.split_as_joined
            self.unspaced += not example.completion.startswith(" ")
        self._starts = starts
        self._places = np.frombuffer(digests, np.uint64).argsort(kind="stable")
        self._digests = np.frombuffer(digests, np.uint64)[self._places]

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, tokens: NDArray[np.int32]) -> int | None:
        """The place of the last example that has these tokens."""
        digest = np.uint64(_digest(tokens))
        found = int(self._digests.searchsorted(digest, side="right")) - 1
        if found < 0 or self._digests[found] != digest:
            return None
        return int(self._places[found])

    def is_labelled(self, place: int, tokens: NDArray[np.int32], labels: NDArray[np.int32]) -> bool:
        """Whether labels are the tokens of that example's answer and nothing else."""
        start = self._starts[place]
        answer = np.array_equal(labels[start:], tokens[start:])
        return bool(answer and (labels[:start] == IGNORED).all())


def _digest(tokens: NDArray[np.int32]) -> int:
    return int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "big")
