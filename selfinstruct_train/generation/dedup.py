"""The novelty test alone, over files: which candidates are new to a pool, and to each other?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import Row
from selfinstruct_train.sources.reader import read_json_line, read_lines
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import TokenizerChoice, choose_tokenizer

_BATCH = 64


class DedupRow(Row):
    """What became of one candidate."""

    text: str
    accepted: bool
    """True where it is new; it then bars those after it that resemble it."""
    score: float
    """Highest ROUGE-L F1 against the pool of the moment, 0 to 1; 0 where that was empty."""
    nearest: str | None
    """Text of the pool entry with that score, of equals the earliest; None where there was none."""


def dedup(
    pool_files: Sequence[Path],
    candidates: Sequence[Path],
    threshold: float,
    tokenizer: TokenizerChoice,
) -> Iterator[DedupRow]:
    """Resolve candidates in order against a pool, which those that are new join.

    Files hold one instruction a line; those that end in ``.jsonl`` hold one JSON object a line with
    an ``instruction``. Either may be gzipped (``.gz``). Rows come as candidates are read, so the
    candidates may be a pipe.

    Args:
        pool_files: instructions already known; these are not tested against each other.
        candidates: instructions that ask to join, file after file.
        threshold: highest ROUGE-L F1 that is new, 0 to 1.
        tokenizer: ``rouge`` or ``unicode``, see `words.words`; ``auto`` goes by the script of
            the pool, or of the first candidates where there is no pool.

    Yields:
        One row for each candidate, in order.

    Raises:
        ConfigError: the threshold is not between 0 and 1.
        DataError: a file is missing, unreadable or not in one of these forms.
    """
    known = [text for path in pool_files for text in read_instructions(path)]
    waiting = chain.from_iterable(read_instructions(path) for path in candidates)
    if tokenizer == "auto" and not known:
        first = list(islice(waiting, _BATCH))
        tokenizer = choose_tokenizer(tokenizer, first)
        waiting = chain(first, waiting)
    index = NoveltyIndex(threshold=threshold, tokenizer=choose_tokenizer(tokenizer, known))
    # A text is its own id: the nearest id is the nearest text.
    index.extend((text, text) for text in known)
    while batch := [(text, text) for text in islice(waiting, _BATCH)]:
        for verdict in index.admit(batch):
            yield DedupRow(
                text=verdict.id,
                accepted=verdict.accepted,
                score=verdict.score,
                nearest=verdict.nearest_id,
            )


def read_instructions(path: Path) -> Iterator[str]:
    """Yield the instructions of a text file or, by its suffix ``.jsonl``, of a JSONL file.

    Raises:
        DataError: the file is missing or unreadable, or a line is no JSON object with an
            ``instruction``.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind == ".json":
        raise DataError(
            f"{path}: a .json file is one document; give one JSON object a line (.jsonl) or one "
            "instruction a line (.txt)"
        )
    for number, line in read_lines(path):
        yield _instruction(path, number, line) if kind == ".jsonl" else line


def _instruction(path: Path, number: int, line: str) -> str:
    row = read_json_line(path, number, line)
    instruction = row.get("instruction") if isinstance(row, dict) else None
    if not isinstance(instruction, str):
        raise DataError(
            f"{path}, line {number}: no 'instruction'; each line is a JSON object with that text"
        )
    return instruction
