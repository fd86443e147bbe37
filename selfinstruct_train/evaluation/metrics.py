"""Figures of answers against references."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.constraints import ConstrainedTask, Constraint, meets
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.records import (
    ConstraintKindScore,
    ConstraintScore,
    Prediction,
    SystemScore,
)
from selfinstruct_train.text.words import (
    RougeTokenizer,
    TokenizerChoice,
    TokenizerName,
    choose_tokenizer,
    count_words,
    normalised,
    words,
)

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Scores = NDArray[np.float64]


class ConstraintChecks(NamedTuple):
    """Which constraints the answers meet; one entry an answer, empty where none are declared."""

    kinds: tuple[tuple[str, ...], ...]
    met: tuple[tuple[bool, ...], ...]

    @property
    def declared(self) -> Scores:
        """Number of constraints of each answer."""
        return np.array([len(found) for found in self.met], dtype=np.float64)

    @property
    def instruction_level(self) -> Scores:
        """Share of each answer's constraints that it meets, x 100; NaN where it has none."""
        return np.array([100.0 * float(np.mean(m)) if m else np.nan for m in self.met])

    @property
    def prompt_level(self) -> Scores:
        """100 where an answer meets all its constraints, else 0; NaN where it has none."""
        return np.array([100.0 * all(m) if m else np.nan for m in self.met])


class AnswerScores(NamedTuple):
    """Scores of each answer, all x 100, in the order of the answers."""

    rouge_l: Scores
    """NaN where the tokenizer sees no word of the references."""
    exact_match: Scores
    oracle_accuracy: Scores | None
    """NaN where the oracle has no say; None where the suite has no oracle."""
    constraints: ConstraintChecks | None = None
    """None where the suite declares none."""
    accuracy: Scores | None = None
    """100 where an answer is one of those accepted, where there are any, and meets all its
    constraints, else 0. NaN where a task has neither; None where no task has either."""


def rouge_l(prediction: str, target: str, tokenizer: TokenizerChoice = "auto") -> float:
    """ROUGE-L F1 x 100 of one pair, by rouge_score.

    Args:
        prediction: the answer.
        target: the reference.
        tokenizer: ``rouge`` is rouge_score's own with its stemmer, as published figures use it, and
            sees ASCII letters and digits alone; ``unicode`` sees every script and does not stem;
            ``auto`` goes by the script of the target.

    Returns:
        NaN where the target has words that the tokenizer does not see: such a pair cannot be
        scored. Where the target has no word in any script, 100 if the texts are the same, else 0.
    """
    tokenizer = choose_tokenizer(tokenizer, [target])
    if not words(target, tokenizer):
        if words(target, "unicode"):
            return math.nan
        return 100.0 * (prediction.split() == target.split())
    return float(_scorer(tokenizer).score(target, prediction)["rougeL"].fmeasure) * 100.0


def exact_match(prediction: str, target: str) -> bool:
    """Whether two texts are equal in lower case, without punctuation, white space folded.

    This is the normalisation of the official Super-NaturalInstructions evaluation (Wang et al.,
    arXiv 2204.07705); unlike SQuAD's it keeps articles.
    """
    return normalised(prediction) == normalised(target)


def suite_tokenizer(suite: Suite) -> TokenizerName:
    """The tokenizer for ROUGE-L on a suite, by the script of its references."""
    return choose_tokenizer("auto", (text for item in suite.items for text in item.references))


def score_answers(predictions: Sequence[Prediction], suite: Suite) -> AnswerScores:
    """Score each answer; the microworld's oracle judges where the suite is of its world.

    Where an instance has several references the nearest counts, as in the official
    Super-NaturalInstructions evaluation.

    Raises:
        DataError: the pattern of a constraint takes too long.
    """
    references = _references(predictions, suite)
    pairs = list(zip(predictions, references, strict=True))
    exact = np.array([100.0 * any(exact_match(p.response, r) for r in right) for p, right in pairs])
    checks = _check_constraints(predictions, suite)
    tokenizer = suite_tokenizer(suite)
    return AnswerScores(
        rouge_l=np.array([_nearest(p.response, right, tokenizer) for p, right in pairs]),
        exact_match=exact,
        oracle_accuracy=_judge(predictions) if suite.is_microworld else None,
        constraints=checks,
        accuracy=_accuracy(predictions, suite, exact, checks),
    )


def summarise(system: str, predictions: Sequence[Prediction], scores: AnswerScores) -> SystemScore:
    """The means of a system's scores.

    Raises:
        DataError: there is nothing to score.
    """
    if not predictions:
        raise DataError(f"'{system}' has no answers to score")
    lengths = [count_words(p.response) for p in predictions]
    scored = scores.rouge_l[~np.isnan(scores.rouge_l)]
    if not scored.size:
        raise DataError(
            f"'{system}': no answer can be scored, for no reference has a word that ROUGE-L sees; "
            "check the outputs of the suite"
        )
    reasons = [p.finish_reason for p in predictions]
    judged = scores.oracle_accuracy
    if judged is not None:
        judged = judged[~np.isnan(judged)]
    return SystemScore(
        system=system,
        n=len(predictions),
        rouge_l=float(scored.mean()),
        unscored=len(scores.rouge_l) - scored.size,
        exact_match=float(scores.exact_match.mean()),
        mean_words=float(np.mean(lengths)),
        empty=100.0 * lengths.count(0) / len(lengths),
        # Where a stop string cut an answer, whether the model would have ended it is not known.
        ended=None
        if {None, "stop"} & set(reasons)
        else 100.0 * reasons.count("eos") / len(reasons),
        oracle_accuracy=None if judged is None or not judged.size else float(judged.mean()),
        constraints=_summarise_constraints(scores.constraints) if scores.constraints else None,
        accuracy=None if scores.accuracy is None else float(np.nanmean(scores.accuracy)),
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


def _accuracy(
    predictions: Sequence[Prediction], suite: Suite, exact: Scores, checks: ConstraintChecks | None
) -> Scores | None:
    answered = {t.id for t in suite.tasks if isinstance(t, ConstrainedTask) and t.answers}
    if not answered and checks is None:
        return None
    right = np.where([p.task_id in answered for p in predictions], exact, np.nan)
    return right if checks is None else np.fmin(right, checks.prompt_level)


def _check_constraints(predictions: Sequence[Prediction], suite: Suite) -> ConstraintChecks | None:
    declared: dict[str, tuple[Constraint, ...]] = {
        item.task_id: item.constraints for item in suite.items if item.constraints
    }
    if not declared:
        return None
    own = [declared.get(p.task_id, ()) for p in predictions]
    return ConstraintChecks(
        kinds=tuple(tuple(c.kind for c in constraints) for constraints in own),
        met=tuple(
            tuple(meets(p.response, c) for c in constraints)
            for p, constraints in zip(predictions, own, strict=True)
        ),
    )


def _summarise_constraints(checks: ConstraintChecks) -> ConstraintScore:
    pairs = [
        (kind, met)
        for kinds, found in zip(checks.kinds, checks.met, strict=True)
        for kind, met in zip(kinds, found, strict=True)
    ]
    count = Counter(kind for kind, _ in pairs)
    right = Counter(kind for kind, met in pairs if met)
    return ConstraintScore(
        answers=int((checks.declared > 0).sum()),
        declared=len(pairs),
        instruction_level_strict=100.0 * right.total() / len(pairs),
        prompt_level_strict=float(np.nanmean(checks.prompt_level)),
        kinds=tuple(
            ConstraintKindScore(kind=kind, declared=count[kind], met=right[kind])
            for kind in sorted(count)
        ),
    )


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
    from selfinstruct_train.microworld.oracle import judge

    value = {"right": 100.0, "wrong": 0.0, "unknown": np.nan}
    return np.array([value[judge(p.instruction, p.input, p.response)] for p in predictions])


def _nearest(response: str, references: Sequence[str], tokenizer: TokenizerName) -> float:
    scores = [rouge_l(response, reference, tokenizer) for reference in references]
    return max((score for score in scores if not math.isnan(score)), default=math.nan)


@functools.cache
def _scorer(tokenizer: TokenizerName) -> RougeScorer:
    # Brings nltk, which takes seconds to load; most commands score nothing.
    from rouge_score.rouge_scorer import RougeScorer

    if tokenizer == "rouge":
        return RougeScorer(["rougeL"], use_stemmer=True)
    return RougeScorer(["rougeL"], tokenizer=RougeTokenizer(tokenizer))
