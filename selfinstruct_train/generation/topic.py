"""Is a row on the topic of the seeds? TF-IDF over pieces of words, against everyday tasks.

A row is compared with the mean of the seeds and the mean of everyday tasks; what is nearer to the
seeds by more than a threshold is on topic. The threshold is the one that best tells seeds from
everyday tasks, each compared with means that leave it out, and how well it does so is reported
beside the figure: twenty seeds do not hold the words of a whole domain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.text.words import is_unspaced, words

_PIECE = 4
"""Letters of a piece of a word, its ends marked; of unspaced scripts two characters in a row."""

Vector = NDArray[np.float64]


class TopicFigures(NamedTuple):
    """How well the threshold tells the seeds from everyday tasks, by leaving each of them out."""

    threshold: float
    seeds_on_topic: float
    """Share of the seeds that are found to be on topic, 0 to 1."""
    everyday_on_topic: float
    """Share of the everyday tasks that are, 0 to 1."""


class Topic:
    """What the seeds are about, beside everyday tasks.

    Args:
        seeds: the human-written tasks.
        everyday: tasks on everything, in the same language; those that are seeds are left out.
    """

    def __init__(self, seeds: Sequence[SeedTask], everyday: Sequence[SeedTask]) -> None:
        own = {task.instruction for task in seeds}
        ours = [_pieces(_task_text(task)) for task in seeds]
        others = [_pieces(_task_text(task)) for task in everyday if task.instruction not in own]
        seen = Counter(piece for counts in (*ours, *others) for piece in counts)
        documents = len(ours) + len(others)
        self._place = {piece: i for i, piece in enumerate(seen)}
        self._rarity = np.array([math.log((1 + documents) / (1 + n)) + 1 for n in seen.values()])
        vectors, background = self._vectors(ours), self._vectors(others)
        self._direction = _unit(vectors.sum(axis=0)) - _unit(background.sum(axis=0))
        self.figures = _calibrate(_left_out(vectors, background), -_left_out(background, vectors))

    def score(self, instruction: str, instance: Instance) -> float:
        """How much nearer a row is to the seeds than the threshold asks; above 0 is on topic."""
        vector = self._vector(_pieces(_text(instruction, [instance])))
        return float(vector @ self._direction) - self.figures.threshold

    def _vectors(self, counted: Iterable[Counter[str]]) -> Vector:
        rows = [self._vector(counts) for counts in counted]
        return np.array(rows).reshape(len(rows), len(self._rarity))

    def _vector(self, counts: Counter[str]) -> Vector:
        vector = np.zeros(len(self._rarity))
        for piece, count in counts.items():
            if (place := self._place.get(piece)) is not None:
                vector[place] = (1 + math.log(count)) * self._rarity[place]
        return _unit(vector)


def _left_out(vectors: Vector, others: Vector) -> Vector:
    """Each vector's similarity to the mean of the rest of its kind, less that to the others'."""
    total, other = vectors.sum(axis=0), _unit(others.sum(axis=0))
    return np.array([v @ (_unit(total - v) - other) for v in vectors])


def _calibrate(seeds: Vector, everyday: Vector) -> TopicFigures:
    values = np.unique(np.concatenate([seeds, everyday]))
    middles = (values[1:] + values[:-1]) / 2 if len(values) > 1 else np.zeros(1)
    # Of equal thresholds the lowest: seeds are few, and what is like them must not be lost.
    found = [float((seeds > t).mean() - (everyday > t).mean()) for t in middles]
    threshold = float(middles[int(np.argmax(np.round(found, 9)))])
    return TopicFigures(
        threshold, float((seeds > threshold).mean()), float((everyday > threshold).mean())
    )


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def _task_text(task: SeedTask) -> str:
    return _text(task.instruction, task.instances)


def _text(instruction: str, instances: Iterable[Instance]) -> str:
    return " ".join([instruction, *(f"{one.input} {one.output}" for one in instances)])


def _pieces(text: str) -> Counter[str]:
    """How often each piece of the words stands in a text."""
    found: Counter[str] = Counter()
    for unspaced, group in groupby(words(text, "unicode"), is_unspaced):
        if unspaced:
            run = "".join(group)
            found.update(run[i : i + 2] for i in range(max(1, len(run) - 1)))
        else:
            for word in group:
                marked = f"<{word}>"
                last = max(1, len(marked) - _PIECE + 1)
                found.update(marked[i : i + _PIECE] for i in range(last))
    return found
