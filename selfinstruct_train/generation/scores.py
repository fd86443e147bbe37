"""What each row of a round scores: by the writer's own judgement, by its likelihood, by its words.

Only those scores are computed that the selection counts. None of them changes a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.judging.arbiter import Answered, Arbiter
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.records import GeneratedInstance, Instruction, RowScores
from selfinstruct_train.text.words import length

_DIGITS = 6


def score_rows(context: StageContext) -> None:
    """Score all instances of the round into ``scores.jsonl``, or those that a stopped run left.

    A batch is stored whole or not at all: beside other prompts a score may differ in its last
    digit.

    Raises:
        ConfigError: the engine gives no log-probabilities of whole answers, but ``ifd`` counts.
        EngineError: the engine failed or gives no log-probabilities.
        DataError: a row of the round is damaged.
    """
    directory, select = context.directory, context.config.generation.select
    counts = Counts(f"round {context.round} scores", context.report)
    store = directory.store(directory.scores, RowScores)
    done = store.resume(select.requests_per_batch)
    total = sum(1 for _ in _instances(context))
    rows = islice(_instances(context), done, None)
    if done < total:
        scorer = _Scorer(context)
        while batch := list(islice(rows, select.requests_per_batch)):
            store.emit(scorer.scores(batch))
            done += len(batch)
            counts.show(done, total)
    store.emit(())
    directory.finish(
        "scores", counts.seconds, rows=total, scores=", ".join(select.by.asked) or None
    )


def instruction_following_difficulty(engine: Engine, pack: Pack, answer: Answered) -> float | None:
    """Perplexity of an answer given its prompt over that of the answer alone (arXiv 2402.00530).

    The prompt has the labels of step 3 without demonstrations, and before the answer alone stands
    the label that ends it, so that both score the same tokens.

    Args:
        engine: the base model scores.
        pack: words the prompt.
        answer: of which the output is scored.

    Returns:
        Above 0; None where prompt and answer do not fit into the context, or the answer has no
        token.

    Raises:
        EngineError: the engine failed or gives no log-probabilities.
    """
    wording = pack.wording
    given_input = f"{wording.input}{wording.gap}{answer.input}\n" if answer.input else ""
    task = f"{wording.task}{wording.gap}{one_line(answer.instruction)}"
    prompt = f"{task}\n{given_input}{wording.output}"
    text = f"{wording.gap}{answer.output}"
    given, whole = engine.count_tokens([prompt, prompt + text])
    tokens = whole - given
    if tokens < 1 or whole > engine.context_length:
        return None
    (with_prompt,), (alone,) = engine.score("", [prompt, pack.wording.output], [text])
    return math.exp((alone - with_prompt) / tokens)


class _Scorer:
    """Scores rows by what the config asks for."""

    def __init__(self, context: StageContext) -> None:
        self._engine, self._pack = context.engine, context.pack
        self._asked = context.config.generation.select.by.asked
        self._arbiter = Arbiter(self._engine, self._pack) if "arbiter" in self._asked else None
        self._novelty = _novelty(context) if "novelty" in self._asked else {}
        if "ifd" in self._asked and context.config.generation.engine.kind == "server":
            _require_whole_answers(self._engine)

    def scores(self, rows: Sequence[GeneratedInstance]) -> Iterator[RowScores]:
        """One row for each, in order."""
        answers = [Answered(row.instruction, row.input, row.output) for row in rows]
        margins = self._margins(answers)
        for row, answer, margin in zip(rows, answers, margins, strict=True):
            yield RowScores(
                id=row.id,
                arbiter=_rounded(margin),
                ifd=_rounded(self._ifd(answer)),
                length=(
                    length(row.output, self._pack.rules.units) if "length" in self._asked else None
                ),
                novelty=self._novelty.get(row.instruction_id),
            )

    def _margins(self, answers: Sequence[Answered]) -> list[float | None]:
        if self._arbiter is None:
            return [None] * len(answers)
        fits = self._arbiter.fits(answers)
        asked = [answer for answer, fit in zip(answers, fits, strict=True) if fit]
        found = iter(self._arbiter.margins(asked))
        return [next(found) if fit else None for fit in fits]

    def _ifd(self, answer: Answered) -> float | None:
        if "ifd" not in self._asked:
            return None
        return instruction_following_difficulty(self._engine, self._pack, answer)


def _instances(context: StageContext) -> Iterator[GeneratedInstance]:
    return context.directory.store(context.directory.instances, GeneratedInstance).stream()


def _novelty(context: StageContext) -> dict[str, float]:
    """1 - ROUGE-L F1 with the nearest neighbour by id of the instruction, where it is stored."""
    rows = context.directory.store(context.directory.instructions, Instruction).stream()
    return {row.id: round(1 - row.nearest.score, _DIGITS) for row in rows if row.nearest}


def _require_whole_answers(engine: Engine) -> None:
    """See that a server scores more than the first token of a continuation."""
    ((first, whole),) = engine.score("", ["Output:"], [" one", " one two three four five six"])
    if first == whole:
        raise ConfigError(
            "generation.select.by.ifd: this server gives log-probabilities of the first token "
            "alone, and ifd needs those of whole answers; set it to 0, or use a server that echoes "
            "prompts with log-probabilities"
        )


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, _DIGITS)
