"""Pairs of answers to prefer one of: how they are made, balanced in length, and tokenized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import DrawnAnswers, PairCounts, PreferencePair, TrainingRow
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import read_json, write_atomically
from selfinstruct_train.templates import choose_variant, completion_text, encode
from selfinstruct_train.text.words import count_words, normalised
from selfinstruct_train.training.dataset import encode_texts
from selfinstruct_train.training.encoded import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPair(NamedTuple):
    """A pair as tokens, and as the examples that it consists of."""

    chosen: Example
    rejected: Example
    prompt: int
    """Tokens that both begin with and that are not learned: the prompt."""


class Balanced(NamedTuple):
    """The pairs that are kept, in their order, and how many are not."""

    kept: tuple[PreferencePair, ...]
    left_out: int


def pairs_from_draws(
    drawn: Iterable[DrawnAnswers], outputs: Mapping[str, str]
) -> Iterator[PreferencePair]:
    """The answer that was kept against the worst that differs from it.

    Args:
        drawn: all answers drawn for each input.
        outputs: instance id -> its output, of the instances that are trained on.
    """
    for row in drawn:
        if row.chosen is None or outputs.get(row.id) != row.answers[row.chosen]:
            continue
        best, kept = row.scores[row.chosen], row.answers[row.chosen]
        worse = [
            (score, place)
            for place, (answer, score) in enumerate(zip(row.answers, row.scores, strict=True))
            if score is not None
            and best is not None
            and score < best
            and normalised(answer) != normalised(kept)
        ]
        if worse:
            yield PreferencePair(
                id=row.id,
                source="drawn",
                instruction=row.instruction,
                input=row.input,
                chosen=kept,
                rejected=row.answers[min(worse)[1]],
            )


def pairs_from_answers(
    rows: Sequence[TrainingRow], answers: Sequence[str]
) -> Iterator[PreferencePair]:
    """Each training answer against what an earlier model said to the same question.

    Args:
        rows: what is trained on.
        answers: the earlier model's, one for each row; those that say the same, or nothing, make
            no pair.
    """
    for row, answer in zip(rows, answers, strict=True):
        if answer and normalised(answer) != normalised(row.output):
            yield PreferencePair(
                id=row.id,
                source="earlier_model",
                instruction=row.instruction,
                input=row.input,
                chosen=row.output,
                rejected=answer,
            )


def balance_lengths(pairs: Sequence[PreferencePair]) -> Balanced:
    """Leave out pairs until chosen answers are no longer, nor shorter, than rejected ones.

    Those go first whose difference is largest in the direction of the mean, as long as the sum of
    all differences does not change its sign.
    """
    gaps = [count_words(pair.chosen) - count_words(pair.rejected) for pair in pairs]
    total = sum(gaps)
    sign = 1 if total > 0 else -1
    order = sorted(range(len(pairs)), key=lambda i: (-sign * gaps[i], i))
    out: set[int] = set()
    for i in order:
        if 0 < sign * gaps[i] <= sign * total:
            total -= gaps[i]
            out.add(i)
    return Balanced(tuple(p for i, p in enumerate(pairs) if i not in out), len(out))


def encode_pairs(
    pairs: Sequence[PreferencePair],
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    answers: AnswerFormat,
    max_length: int,
    seed: int,
) -> tuple[EncodedPair, ...]:
    """Tokenize pairs in the template that answers are trained in; too long ones are left out.

    Args:
        pairs: what to prefer.
        config: names the template.
        tokenizer: the model's.
        answers: the pack's templates.
        max_length: most tokens of prompt, answer and end token together.
        seed: chooses each pair's encoding where the template is ``varied``.

    Raises:
        ConfigError: the template is ``chat`` and the tokenizer has none.
    """
    ids = [pair.id for pair in pairs]
    prompts = [
        encode(
            config.template,
            pair.instruction,
            pair.input,
            answers,
            tokenizer=tokenizer,
            variant=choose_variant(seed, pair.id, answers),
        )
        for pair in pairs
    ]
    sides = [
        encode_texts(
            ids,
            prompts,
            [completion_text(text, answers, config.template) for text in texts],
            tokenizer,
        )
        for texts in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    ]
    return tuple(
        EncodedPair(chosen, rejected, min(chosen.answer_start, rejected.answer_start))
        for chosen, rejected in zip(*sides, strict=True)
        if max(len(chosen.tokens), len(rejected.tokens)) <= max_length
    )


def write_pairs(
    pairs: Sequence[PreferencePair],
    kept: Sequence[PreferencePair],
    trained: Sequence[EncodedPair],
    directory: RoundDirectory,
) -> PairCounts:
    """Write ``dataset/pairs.jsonl`` and ``dataset/pairs.json``; every process must call.

    Args:
        pairs: all that were made.
        kept: those whose lengths are balanced.
        trained: those of them that fit.
        directory: of the training.

    Raises:
        DataError: there is no pair to train on.
        RunError: the folder cannot be written, or holds other pairs.
    """
    ids = {pair.chosen.id for pair in trained}
    rows = [pair for pair in kept if pair.id in ids]
    if not rows:
        raise DataError(
            f"there is no pair to train on: of {len(pairs)} pairs {len(pairs) - len(kept)} were "
            f"left out to balance the lengths and {len(kept)} are too long; set "
            "generation.instances.best_of to 3 or more, name other training.preference.pairs, or "
            "set training.method=sft"
        )
    counts = PairCounts(
        pairs=len(rows),
        sources=dict(sorted(Counter(pair.source for pair in rows).items())),
        left_out=len(pairs) - len(kept),
        too_long=len(kept) - len(rows),
        chosen_words=_mean_words(pair.chosen for pair in rows),
        rejected_words=_mean_words(pair.rejected for pair in rows),
        chosen_words_before=_mean_words(pair.chosen for pair in pairs),
        rejected_words_before=_mean_words(pair.rejected for pair in pairs),
    )
    directory.store(directory.dataset / "pairs.jsonl", PreferencePair).emit(rows)
    if directory.world.is_main:
        text = counts.model_dump_json(indent=1) + "\n"
        write_atomically(directory.dataset / "pairs.json", text)
    return counts


def read_counts(directory: RoundDirectory) -> PairCounts:
    """What `write_pairs` counted.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = directory.dataset / "pairs.json"
    return read_json(path, PairCounts, "add --redo train to the command")


def _mean_words(texts: Iterable[str]) -> float:
    lengths = [count_words(text) for text in texts]
    return round(sum(lengths) / len(lengths), 3)
