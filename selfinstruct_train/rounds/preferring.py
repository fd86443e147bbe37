"""Pairs of answers to train on: from the drawn answers, an earlier model's, or the writer's taste.

Only rows that are trained on make pairs, so that the check for contamination covers them too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfinstruct_train.config import Config, JudgeConfig
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.evaluation.win_rate import make_judge
from selfinstruct_train.judging.ask import Answers, judge_pairs
from selfinstruct_train.judging.results import PairVerdict
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import (
    DrawnAnswers,
    Prediction,
    PreferencePair,
    Sampling,
    TrainingRow,
)
from selfinstruct_train.rounds.opened import OpenedRun
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.templates import cut_at_new_example
from selfinstruct_train.text.words import normalised
from selfinstruct_train.training.pairs import pairs_from_answers, pairs_from_draws

_BATCH = 128
"""Questions to the earlier model that are asked, and kept, together."""


def preference_pairs(
    opened: OpenedRun,
    config: Config,
    directory: RoundDirectory,
    number: int,
    rows: Sequence[TrainingRow],
    earlier: Path | None,
) -> list[PreferencePair]:
    """All pairs of a round that the config asks for, source by source.

    Args:
        opened: the run.
        config: the settings of the training.
        directory: of the training; what is asked for is kept there.
        number: the round, counted from 0.
        rows: what is trained on.
        earlier: the adapter of the model before this training; None is the base.

    Raises:
        EngineError: the engine failed.
        RunError: what is kept there is of another model or other data.
    """
    outputs = {row.id: row.output for row in rows}
    found: list[PreferencePair] = []
    for source in config.training.preference.pairs:
        match source:
            case "drawn":
                found += pairs_from_draws(_drawn(opened, number), outputs)
            case "earlier_model":
                answers = _answers_of(opened, config, directory, rows, earlier)
                found += pairs_from_answers(rows, answers)
            case "judged":
                live = [row for row in _drawn(opened, number) if row.id in outputs]
                found += _judged(opened, directory, live)
    return found


def _drawn(opened: OpenedRun, number: int) -> Iterator[DrawnAnswers]:
    for i in range(number + 1):
        path = opened.run.round(i).drawn
        yield from RowStore(path, DrawnAnswers, writable=False).stream()


def _answers_of(
    opened: OpenedRun,
    config: Config,
    directory: RoundDirectory,
    rows: Sequence[TrainingRow],
    adapter: Path | None,
) -> list[str]:
    """What a model answers to the questions of the rows, in the template that is trained in."""
    engine = opened.evaluation_engine
    path = directory.completions("earlier_model")
    journal = Journal(directory.store(path, StoredCompletion), engine)
    limit = config.evaluation.max_tokens
    found: list[str] = []
    tokens = 0
    began = time.monotonic()
    for start in range(0, len(rows), _BATCH):
        requests = [
            Request(
                f"earlier-{row.id}",
                opened.question(row.instruction, row.input),
                Sampling(max_tokens=limit),
            )
            for row in rows[start : start + _BATCH]
        ]
        completions = journal.ask(requests, adapter)
        tokens += sum(completion.completion_tokens for completion in completions)
        for completion in completions:
            answer = cut_at_new_example(completion.text, opened.pack.answers)
            # An answer that met the limit is not what the model would have said.
            is_cut = completion.finish_reason == "length" and answer == completion.text
            found.append("" if is_cut else answer.strip())
        seconds = time.monotonic() - began
        stage = "answers of the earlier model"
        opened.progress(ProgressUpdate(stage, len(found), len(rows), 0, Counter(), tokens, seconds))
    return found


def _judged(
    opened: OpenedRun, directory: RoundDirectory, drawn: Sequence[DrawnAnswers]
) -> Iterator[PreferencePair]:
    """Pairs of two answers of which the writer prefers one, whichever it is shown first."""
    asked: list[tuple[DrawnAnswers, str, str]] = []
    for row in drawn:
        usable = [a for a, s in zip(row.answers, row.scores, strict=True) if s is not None]
        other = next((a for a in usable if normalised(a) != normalised(usable[0])), None)
        if other is not None:
            asked.append((row, usable[0], other))
    config = opened.config
    judge_settings = config.evaluation.judge or JudgeConfig()
    evaluation = config.evaluation.model_copy(
        update={"judge": judge_settings.model_copy(update={"model": None, "engine": None})}
    )
    judge = make_judge(
        config.model_copy(update={"evaluation": evaluation}),
        opened.engine,
        opened.described.tokenizer,
    )
    sides = [
        Answers(
            name,
            tuple(
                Prediction(
                    task_id=row.id,
                    instruction=row.instruction,
                    input=row.input,
                    response=answers[side],
                    target="",
                )
                for row, *answers in asked
            ),
        )
        for side, name in enumerate(("one", "other"))
    ]
    store = directory.store(directory.completions("judged_pairs"), PairVerdict)
    verdicts = judge_pairs(judge, store, "drawn answers", sides[0], sides[1], opened.progress)
    for (row, one, other), first, second in zip(asked, verdicts[::2], verdicts[1::2], strict=True):
        if (first.choice, second.choice) == ("first", "second"):
            chosen, rejected = one, other
        elif (first.choice, second.choice) == ("second", "first"):
            chosen, rejected = other, one
        else:
            continue
        yield PreferencePair(
            id=row.id,
            source="judged",
            instruction=row.instruction,
            input=row.input,
            chosen=chosen,
            rejected=rejected,
        )
