"""Best of several answers: which of those drawn for one input is kept, and whether any is.

Drawing and choosing is rejection sampling with the model's own judgement. What was not chosen is
kept too: it is what a preference is made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from selfinstruct_train.config import InstanceStep
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.chooser_program import score_answers
from selfinstruct_train.judging.arbiter import Answered, Arbiter
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.text.words import RougeTokenizer, TokenizerName, normalised


class Draw(NamedTuple):
    """One of the answers drawn for an input."""

    text: str
    is_cut: bool
    """It met the limit of tokens."""
    mean_logprob: float | None


class Drawn(NamedTuple):
    """All answers drawn for an input."""

    instruction: str
    input: str
    draws: tuple[Draw, ...]


class Choice(NamedTuple):
    """The answer that is kept, or why none is."""

    place: int | None
    scores: tuple[float | None, ...]
    evidence: str
    """Of the reason ``no_choice``, where there is no place."""


def choose(
    step: InstanceStep,
    questions: Sequence[Drawn],
    engine: Engine,
    pack: Pack,
    tokenizer: TokenizerName,
) -> list[Choice]:
    """Choose one answer for each question by the config's ``chooser``.

    Args:
        step: the settings.
        questions: what was asked and drawn.
        engine: the writer, which is asked again where the chooser is ``arbiter``.
        pack: words the arbiter's question.
        tokenizer: of ROUGE-L, where likeness chooses.

    Raises:
        ConfigError: the engine gives no log-probabilities, or the program is at fault.
        EngineError: the engine failed.
    """
    match step.chooser:
        case "majority":
            scored = [_votes(q.draws) for q in questions]
        case "minimum_bayes_risk":
            scored = [_likeness(q.draws, tokenizer) for q in questions]
        case "likelihood":
            scored = [_likelihood(q.draws) for q in questions]
        case "arbiter":
            scored = _spread(questions, Arbiter(engine, pack).margins(_flat(questions)))
        case "program":
            assert step.chooser_program is not None  # the config has seen to it
            found = score_answers(step.chooser_program, _flat(questions), step.chooser_seconds)
            scored = _spread(questions, found)
    least = {"majority": 0.5, "program": 0.0}.get(step.chooser)
    return [
        _best(q.draws, scores, least, step.chooser)
        for q, scores in zip(questions, scored, strict=True)
    ]


def _best(
    draws: Sequence[Draw], scores: Sequence[float], least: float | None, chooser: str
) -> Choice:
    usable = [
        None if draw.is_cut or not draw.text else score
        for draw, score in zip(draws, scores, strict=True)
    ]
    ranked = [(score, -place) for place, score in enumerate(usable) if score is not None]
    if not ranked:
        return Choice(None, tuple(usable), f"all {len(draws)} answers are empty or cut")
    score, place = max(ranked)
    if least is not None and score <= least:
        return Choice(None, tuple(usable), f"the best of {len(draws)} has {score:.2f} by {chooser}")
    return Choice(-place, tuple(usable), "")


def _votes(draws: Sequence[Draw]) -> list[float]:
    """Share of all draws that say the same; those that were cut say nothing."""
    said = [None if draw.is_cut else normalised(draw.text) or draw.text for draw in draws]
    counts = Counter(said)
    return [0.0 if text is None else counts[text] / len(draws) for text in said]


def _likeness(draws: Sequence[Draw], tokenizer: TokenizerName) -> list[float]:
    """Mean ROUGE-L F1 with the other draws: minimum Bayes risk (Kumar and Byrne, 2004)."""
    # Brings nltk, which takes seconds to load; few runs choose so.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=RougeTokenizer(tokenizer))
    size = len(draws)
    total = [0.0] * size
    for i in range(size):
        for j in range(i):
            found = scorer.score(draws[j].text, draws[i].text)["rougeL"].fmeasure
            # Marks and symbols have no words to compare.
            like = found or float(draws[i].text == draws[j].text)
            total[i] += like
            total[j] += like
    return [round(found / (size - 1), 6) for found in total]


def _likelihood(draws: Sequence[Draw]) -> list[float]:
    scores = [draw.mean_logprob for draw in draws]
    if any(score is None for score in scores):
        raise ConfigError(
            "generation.instances.chooser: 'likelihood' needs log-probabilities, which this engine "
            "does not give; set another chooser"
        )
    return [score for score in scores if score is not None]


def _flat(questions: Sequence[Drawn]) -> list[Answered]:
    return [Answered(q.instruction, q.input, draw.text) for q in questions for draw in q.draws]


def _spread(questions: Sequence[Drawn], scores: Sequence[float]) -> list[list[float]]:
    waiting = iter(scores)
    return [[round(next(waiting), 6) for _ in question.draws] for question in questions]
