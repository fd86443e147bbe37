"""Step 2: is it a classification task? Log-probabilities of Yes and No, calibrated on the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.generation.calibration import (
    CONTENT_FREE,
    FEWEST_OF_A_KIND,
    Calibration,
    calibrate,
)
from selfinstruct_train.generation.chat_prompting import chat_classification
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.fitting import fit_prompt, score_few_shot
from selfinstruct_train.generation.pool import Entry, derived_rng
from selfinstruct_train.generation.prompting import classification_prompt
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Classified, SeedTask
from selfinstruct_train.run.stores import read_json, write_atomically


class Task(NamedTuple):
    """An instruction that wants instances."""

    row: Entry
    is_classification: bool


class Classifier:
    """Says of each instruction of the round whether it is a classification task."""

    def __init__(self, context: StageContext, seeds: Sequence[SeedTask]) -> None:
        self._context = context
        self._calibration: Calibration | None = None
        self._store = context.directory.store(context.directory.classified, Classified)
        self._stored = self._store.stream()
        self._shown = choose_demonstrations(context.config, context.pack, seeds)
        self._counts = Counts(f"round {context.round} classification", context.report)
        self._done = 0

    def classify(self, instructions: Sequence[Entry]) -> list[Task]:
        """Sort the next instructions of the round into tasks.

        Raises:
            EngineError: the engine failed, or a prompt cannot fit the context.
        """
        size = self._context.config.generation.classification.requests_per_batch
        rows = list(islice(self._stored, len(instructions)))
        if len(rows) < len(instructions):
            # Beside other prompts a score may differ in its last digit: whole batches or none.
            del rows[len(rows) // size * size :]
        self._keep(rows)
        kinds = [row.is_classification for row in rows]
        total = self._done - len(rows) + len(instructions)
        for start in range(len(rows), len(instructions), size):
            batch = self._classify(instructions[start : start + size])
            self._keep(batch)
            kinds += [row.is_classification for row in batch]
            note = f"{self._counts.kept} are classification"
            self._counts.show(self._done, total, note=note)
        return [
            Task(instruction, is_classification)
            for instruction, is_classification in zip(instructions, kinds, strict=True)
        ]

    def finish(self) -> None:
        """Write the completion mark."""
        if self._done:
            self._threshold()
        self._context.directory.finish(
            "classification",
            self._counts.seconds,
            instructions=self._done,
            classification=self._counts.kept,
            trimmed_prompts=self._counts.trimmed,
            **(self._calibration.figures if self._calibration else {}),
        )

    def _keep(self, rows: Sequence[Classified]) -> None:
        self._store.emit(rows)
        self._done += len(rows)
        self._counts.kept += sum(row.is_classification for row in rows)

    def _classify(self, batch: Sequence[Entry]) -> list[Classified]:
        threshold = self._threshold()
        scores = self._scores([row.instruction for row in batch])
        return [
            Classified(
                id=row.id,
                is_classification=yes - no > threshold,
                logprob_yes=round(yes, 4),
                logprob_no=round(no, 4),
            )
            for row, (yes, no) in zip(batch, scores, strict=True)
        ]

    def _threshold(self) -> float:
        """The margin above which it is Yes; read where a stopped run has chosen it already."""
        context = self._context
        if not context.config.generation.classification.calibrate:
            return 0.0
        if self._calibration is None:
            path = context.directory.calibration
            self._calibration = self._read(path)
            if self._calibration is None:
                # The same seeds and the same base model, whatever was tuned since: what an earlier
                # round found holds.
                earlier = context.round and self._read(context.directory.first_calibration)
                self._calibration = earlier or self._calibrate()
                text = self._calibration.model_dump_json(indent=1) + "\n"
                context.directory.world.on_main(lambda: write_atomically(path, text))
        return self._calibration.threshold

    def _read(self, path: Path) -> Calibration | None:
        if not self._context.directory.world.on_main(path.exists):
            return None
        return read_json(path, Calibration, "delete it and run the same command again")

    def _calibrate(self) -> Calibration:
        def show(done: int, total: int) -> None:
            self._counts.show(done, total, note="calibrating on the seeds")

        size = self._context.config.generation.classification.requests_per_batch
        found = calibrate_on(self._shown.others, self._scores, size, show)
        total = len(self._shown.others) + len(CONTENT_FREE)
        self._counts.show(total, total, note=found.sentence)
        return found

    def _scores(self, texts: Sequence[str]) -> list[tuple[float, float]]:
        """Log P(Yes) and log P(No) after the question about each text."""
        context = self._context
        chats = context.style("classification") != "completion"
        template = context.template if chats else None
        found = score_kinds(
            context.engine, context.pack.wording, self._shown.tasks, texts, template
        )
        self._counts.trimmed += found.trimmed
        return found.scores


class KindScores(NamedTuple):
    """What the model makes of some instructions."""

    scores: list[tuple[float, float]]
    """Log P(Yes) and log P(No) of each."""
    trimmed: int
    """Prompts that gave up demonstrations to fit the context."""


def score_kinds(
    engine: Engine,
    wording: Wording,
    demonstrations: Sequence[SeedTask],
    texts: Sequence[str],
    template: ChatTemplate | None,
) -> KindScores:
    """Log P(Yes) and log P(No) as answers to: is this a classification task?

    Args:
        engine: whom to ask.
        wording: of the question.
        demonstrations: shown with their answers.
        texts: the instructions.
        template: asks in messages, and scores where the assistant answers; None asks by a text to
            continue.

    Raises:
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    asked: list[tuple[str, str]] = []
    trimmed = 0
    for text in texts:
        # A seed that is shown with its answer would tell nothing of how it is answered.
        others = [task for task in demonstrations if task.instruction != text]
        if template is None:
            prompt = classification_prompt(wording, others, text)
            fitted, kept = fit_prompt(engine, prompt, max_tokens=8)
            asked.append((fitted.prefix, fitted.question))
        else:
            turns = chat_classification(wording, others, text, template)
            chat, kept = fit_prompt(engine, turns, max_tokens=8)
            asked.append(("", chat.text))
        trimmed += len(kept) < len(others)
    answers = [wording.yes, wording.no]
    # After a chat template the answer begins at once.
    answers = answers if template else [f"{wording.gap}{answer}" for answer in answers]
    rows = score_few_shot(engine, asked, answers)
    return KindScores([(row[0], row[1]) for row in rows], trimmed)


class Shown(NamedTuple):
    """The demonstrations of step 2, and the seeds that are left to calibrate on."""

    tasks: tuple[SeedTask, ...]
    others: tuple[SeedTask, ...]
    source: Literal["pack", "seeds"]


def choose_demonstrations(config: Config, pack: Pack, seeds: Sequence[SeedTask]) -> Shown:
    """The pack's demonstrations, or seeds where the config wants them and there are enough.

    A seed that is shown is not scored: the model would read the answer in the prompt.
    """
    step = config.generation.classification
    rng = derived_rng(config.seed, "classification demonstrations")
    asked = ((True, step.yes_demonstrations), (False, step.no_demonstrations))
    by_kind = {kind: [s for s in seeds if s.is_classification == kind] for kind, _ in asked}
    enough = all(len(by_kind[kind]) >= count + FEWEST_OF_A_KIND for kind, count in asked)
    if step.demonstrations == "seeds" and enough:
        shown = [task for kind, count in asked for task in rng.sample(by_kind[kind], count)]
        ids = {task.id for task in shown}
        rng.shuffle(shown)
        return Shown(tuple(shown), tuple(s for s in seeds if s.id not in ids), "seeds")
    yes = [d for d in pack.classification if d.is_classification]
    no = [d for d in pack.classification if not d.is_classification]
    shown = yes[: step.yes_demonstrations] + no[: step.no_demonstrations]
    rng.shuffle(shown)
    return Shown(tuple(shown), tuple(seeds), "pack")


def calibrate_on(
    seeds: Sequence[SeedTask],
    score: Callable[[Sequence[str]], list[tuple[float, float]]],
    size: int,
    show: Callable[[int, int], None],
) -> Calibration:
    """Choose the threshold of step 2 on the labels of seeds.

    Args:
        seeds: none of them is shown in the prompts.
        score: instructions -> log P(Yes) and log P(No) of each.
        size: instructions to score at once.
        show: told how many of how many are scored.
    """
    texts = [*(task.instruction for task in seeds), *CONTENT_FREE]
    margins: list[float] = []
    for start in range(0, len(texts), size):
        margins += [yes - no for yes, no in score(texts[start : start + size])]
        show(len(margins), len(texts))
    labels = [task.is_classification for task in seeds]
    return calibrate(margins[: len(labels)], labels, margins[len(labels) :])
