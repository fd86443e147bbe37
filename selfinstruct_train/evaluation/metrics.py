"""Figures of answers against references."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.records import Prediction, SystemScore

Scores = NDArray[np.float64]


class AnswerScores(NamedTuple):
    """Scores of each answer, all x 100, in the order of the answers."""

    rouge_l: Scores
    exact_match: Scores
    oracle_accuracy: Scores | None
    """NaN where the oracle has no say; None where the suite has no oracle."""


def rouge_l(prediction: str, target: str) -> float:
    """ROUGE-L F1 x 100 of one pair, by rouge_score with its stemmer.

    Its tokenizer sees ASCII letters and digits alone: a pair without any scores 0.
    """
    return float(_scorer().score(target, prediction)["rougeL"].fmeasure) * 100.0


def exact_match(prediction: str, target: str) -> bool:
    """Whether two texts are equal in lower case, without punctuation, white space folded.

    This is the normalisation of the official Super-NaturalInstructions evaluation (Wang et al.,
    arXiv 2204.07705); unlike SQuAD's it keeps articles.
    """
    return _normalise(prediction) == _normalise(target)


def score_answers(predictions: Sequence[Prediction], suite: Suite) -> AnswerScores:
    """Score each answer; the microworld's oracle judges where the suite is of its world.

    Where an instance has several references the nearest counts, as in the official
    Super-NaturalInstructions evaluation.
    """
    references = _references(predictions, suite)
    pairs = list(zip(predictions, references, strict=True))
    return AnswerScores(
        rouge_l=np.array([max(rouge_l(p.response, r) for r in right) for p, right in pairs]),
        exact_match=np.array(
            [100.0 * any(exact_match(p.response, r) for r in right) for p, right in pairs]
        ),
        oracle_accuracy=_judge(predictions) if suite.is_microworld else None,
    )


def summarise(system: str, predictions: Sequence[Prediction], scores: AnswerScores) -> SystemScore:
    """The means of a system's scores.

    Raises:
        DataError: there is nothing to score.
    """
    if not predictions:
        raise DataError(f"'{system}' has no answers to score")
    words = [len(p.response.split()) for p in predictions]
    reasons = [p.finish_reason for p in predictions]
    judged = scores.oracle_accuracy
    if judged is not None:
        judged = judged[~np.isnan(judged)]
    return SystemScore(
        system=system,
        n=len(predictions),
        rouge_l=float(scores.rouge_l.mean()),
        exact_match=float(scores.exact_match.mean()),
        mean_words=float(np.mean(words)),
        empty=100.0 * words.count(0) / len(words),
        ended=None if None in reasons else 100.0 * reasons.count("eos") / len(reasons),
        oracle_accuracy=None if judged is None or not judged.size else float(judged.mean()),
    )


def score_predictions(system: str, predictions: Sequence[Prediction], suite: Suite) -> SystemScore:
    """How a system did on a suite.

    Args:
        system: its name.
        predictions: its answers to the whole suite, from `suites.read_predictions`.
        suite: the suite.

    Raises:
        DataError: there is nothing to score.
    """
    return summarise(system, predictions, score_answers(predictions, suite))


def _references(predictions: Sequence[Prediction], suite: Suite) -> list[tuple[str, ...]]:
    if suite.references is None:
        return [(p.target,) for p in predictions]
    known: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for item in suite.items:
        # One question may stand twice; its target then tells which one was answered.
        key = item.task_id, item.input, item.target
        known[key] = (*known.get(key, ()), *item.references)
    return [known.get((p.task_id, p.input, p.target), (p.target,)) for p in predictions]


def _judge(predictions: Sequence[Prediction]) -> Scores:
    # Only the microworld's suites need its grammar, which takes a moment to build.
    from selfinstruct_train.embedded.oracle import judge

    value = {"right": 100.0, "wrong": 0.0, "unknown": np.nan}
    return np.array([value[judge(p.instruction, p.input, p.response)] for p in predictions])


def _normalise(text: str) -> str:
    kept = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(kept.split())


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
