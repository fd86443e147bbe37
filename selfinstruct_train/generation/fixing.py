"""Answers that the arbiter holds wrong: each is written once more, and judged once more.

How low the arbiter's margin must be for an answer to count as wrong is calibrated on the seeds, as
in step 2: their own answers are right, those of other seeds are wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from selfinstruct_train.engines.asking import Journal
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.calibration import CONTENT_FREE, Calibration, calibrate
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.filters import FilterResult
from selfinstruct_train.generation.pool import derived_seed
from selfinstruct_train.generation.reanswer import (
    Reanswer,
    Written,
    WrittenInstance,
    answer_output,
    answer_provenance,
    answerer,
    filter_again,
    reanswer_prompt,
)
from selfinstruct_train.judging.arbiter import Answered, Arbiter
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.records import Instance, Sampling, SeedTask

_FEWEST = 8
"""Seeds that the arbiter is not shown, below which those that it is shown are asked about too."""
_AT_ONCE = 64
"""Answers that are judged between two signs of life."""


class _Wrong(NamedTuple):
    """An answer that is held wrong, and the request for another."""

    task: int
    place: int
    margin: float
    request: Request
    shown: tuple[str, ...]


class Fixer:
    """Has the answers of a round judged, and those that are wrong written again."""

    def __init__(self, context: StageContext, journal: Journal, seeds: Sequence[SeedTask]) -> None:
        self._context, self._journal, self._seeds = context, journal, seeds
        self.fixed = self.dropped = 0
        """Answers that were right when written again, and those that were dropped."""

    @functools.cached_property
    def _arbiter(self) -> Arbiter:
        return Arbiter(self._context.engine, self._context.pack)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Margin above which an answer counts as right."""
        counts = Counts(f"round {self._context.round} arbiter", self._context.report)

        def show(done: int, total: int) -> None:
            counts.show(done, total, note="calibrating on the seeds' answers")

        return calibrate_arbiter(self._arbiter, self._context.pack, self._seeds, show)

    def fix(self, written: Sequence[Written], first: int, counts: Counts) -> list[Written]:
        """Judge all kept answers of a batch, and write the wrong ones again.

        An answer that is wrong again, or that fails the filters, is dropped. What does not fit into
        the arbiter's context stays as it is.

        Args:
            written: tasks and their instances.
            first: number of the batch's first task, for request ids.
            counts: told of the tokens written.

        Raises:
            EngineError: the engine failed or gives no log-probabilities.
        """
        result = [one._replace(instances=list(one.instances)) for one in written]
        writer = answerer(self._context)
        wrong = self._wrong(result, first, writer)
        if not wrong:
            return result
        answers = self._journal.ask([one.request for one in wrong], writer.adapter)
        counts.tokens += sum(answer.completion_tokens for answer in answers)
        outputs = [answer_output(self._context, writer, answer) for answer in answers]
        new = [
            Answered(
                result[one.task].task.row.instruction,
                result[one.task].instances[one.place].instance.input,
                output,
            )
            for one, output in zip(wrong, outputs, strict=True)
        ]
        margins = self._margins(new)
        for one, answer, written_again, margin in zip(wrong, answers, new, margins, strict=True):
            before = result[one.task].instances[one.place]
            cut = answer.finish_reason == "length" or not written_again.output
            found = None if cut else margin
            after = self._judge(one, before, written_again.output, found, writer)
            result[one.task].instances[one.place] = after
        for i in dict.fromkeys(one.task for one in wrong):
            filter_again(self._context, result[i])
        fixed = sum(result[one.task].instances[one.place].fault is None for one in wrong)
        self.fixed += fixed
        self.dropped += len(wrong) - fixed
        return result

    def figures(self) -> dict[str, float | int | None]:
        """What the completion mark keeps of it."""
        found = self.calibration
        return {
            "fixed": self.fixed,
            "not_fixed": self.dropped,
            "arbiter_threshold": found.threshold,
            "arbiter_recall_on_seeds": found.recall,
            "arbiter_precision_on_seeds": found.precision,
            "arbiter_auc_on_seeds": found.auc,
        }

    def _wrong(self, written: Sequence[Written], first: int, writer: Reanswer) -> list[_Wrong]:
        places = [
            (i, j)
            for i, (_, instances, *_) in enumerate(written)
            for j, found in enumerate(instances)
            if found.fault is None
        ]
        answers = [
            Answered(written[i].task.row.instruction, found.input, found.output)
            for i, j in places
            for found in [written[i].instances[j].instance]
        ]
        return [
            self._question(written[i], first + i, i, j, margin, writer)
            for (i, j), margin in zip(places, self._margins(answers), strict=True)
            if margin is not None and margin <= self.calibration.threshold
        ]

    def _question(
        self, written: Written, number: int, i: int, j: int, margin: float, writer: Reanswer
    ) -> _Wrong:
        context, task = self._context, written.task.row
        step = context.config.generation.instances
        given = written.instances[j].instance.input
        text, shown = reanswer_prompt(context, writer, task.instruction, given)
        sampling = Sampling(
            max_tokens=step.max_tokens,
            # The likeliest answer may be the one that is wrong.
            temperature=step.draw_temperature,
            stop=writer.stop,
            seed=derived_seed(context.config.seed, context.round, "fix", task.id, j),
        )
        request = Request(f"{context.request_id('fix', number)}-{j}", text, sampling)
        return _Wrong(i, j, margin, request, shown)

    def _margins(self, answers: Sequence[Answered]) -> list[float | None]:
        fits = self._arbiter.fits(answers)
        asked = [answer for answer, fit in zip(answers, fits, strict=True) if fit]
        found = iter(self._arbiter.margins(asked))
        return [next(found) if fit else None for fit in fits]

    def _judge(
        self,
        one: _Wrong,
        before: WrittenInstance,
        output: str,
        margin: float | None,
        writer: Reanswer,
    ) -> WrittenInstance:
        """The instance with its new answer, or why it is dropped; without a margin it is."""
        threshold = self.calibration.threshold
        if margin is None or margin <= threshold:
            again = "cut, empty or too long" if margin is None else f"{margin:+.2f}"
            evidence = (
                f"margin {one.margin:+.2f}, written again {again}, right above {threshold:+.2f}"
            )
            return before._replace(fault=FilterResult("judged_wrong", evidence))
        instance = Instance(input=before.instance.input, output=output)
        provenance = answer_provenance(self._context, writer, one.request, one.shown)
        return WrittenInstance(instance, None, provenance)


def calibrate_arbiter(
    arbiter: Arbiter,
    pack: Pack,
    seeds: Sequence[SeedTask],
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Choose the margin that tells the seeds' own answers from those of other seeds.

    Args:
        arbiter: whom to ask.
        pack: its input-first demonstrations are what the arbiter is shown.
        seeds: at least one; those that it is shown are left out where enough others are there.
        show: told how many of how many answers are judged.

    Raises:
        EngineError: the engine failed or gives no log-probabilities.
    """
    answers, labels = calibration_answers(pack, seeds)
    fits = arbiter.fits(answers)
    kept = [
        (answer, label) for answer, label, fit in zip(answers, labels, fits, strict=True) if fit
    ]
    free = arbiter.margins([Answered(text, "", text) for text in CONTENT_FREE])
    margins: list[float] = []
    for start in range(0, len(kept), _AT_ONCE):
        margins += arbiter.margins([answer for answer, _ in kept[start : start + _AT_ONCE]])
        show(len(margins), len(kept))
    return calibrate(margins, [label for _, label in kept], free)


def calibration_answers(pack: Pack, seeds: Sequence[SeedTask]) -> tuple[list[Answered], list[bool]]:
    """Answers to seeds, their own and those of others, and whether each is right."""
    shown = {task.instruction for task in pack.input_first}
    others = [task for task in seeds if task.instruction not in shown]
    asked = others if len(others) >= _FEWEST else list(seeds)
    answers, labels = [], []
    for place, task in enumerate(asked):
        own, other = task.instances[0], asked[(place + 1) % len(asked)].instances[0]
        answers.append(Answered(task.instruction, own.input, own.output))
        labels.append(True)
        if other.output != own.output:
            answers.append(Answered(task.instruction, own.input, other.output))
            labels.append(False)
    return answers, labels
