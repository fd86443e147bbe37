"""Closing the loop: each round adds data to one pool, trains on all of it, and is measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from selfinstruct_train.config import Config
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.compare import best_training
from selfinstruct_train.evaluation.trainings import compare_trainings
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.rounds.governor import Decision, RoundResult, decide
from selfinstruct_train.rounds.inputs import STAGES, Inputs, Stage
from selfinstruct_train.rounds.measuring import evaluate_training, judge_trainings
from selfinstruct_train.rounds.opened import OpenedRun
from selfinstruct_train.rounds.own_rows import require_own_rows
from selfinstruct_train.rounds.shown import read_result
from selfinstruct_train.rounds.tuning import train_round
from selfinstruct_train.run.stores import read_json, write_atomically


class Loop:
    """The steps of a round: one model is the writer, the student and both sides of the test."""

    def __init__(
        self,
        config: Config,
        stages: tuple[Stage, ...] = STAGES,
        redo: str | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        """Open the run, as `OpenedRun` says.

        Raises:
            SelfInstructError: a setting, a data file, the run directory or the model is at fault.
        """
        self.opened = OpenedRun(config, stages, redo, inputs)
        self.config = self.opened.config
        self.run, self.world = self.opened.run, self.opened.world
        self.progress = self.opened.progress

    def generate(self, number: int) -> None:
        """Steps 1 to 4: write this round's instructions and instances, if it is to write any."""
        if not self.config.generates:
            return
        generation = self.config.generation
        needs_tuned = number > 0 and (
            "tuned" in (generation.instruction_writer, generation.instance_writer)
            or generation.instances.consistency
        )
        opened = self.opened
        generate_round(
            self.config,
            opened.engine,
            self.run,
            number,
            opened.seeds,
            self._best_adapter(number) if needs_tuned else None,
            opened.question,
            self.progress,
            opened.chat,
            opened.passages,
            opened.meanings,
        )
        require_own_rows(opened.rows, self.run.round(number))

    def train(self, number: int) -> None:
        """Step 5: tune the base on the seeds and the data of all rounds so far.

        A sweep tunes one for each of its settings.
        """
        for config in self.opened.variants:
            train_round(self.opened, config, number)

    def evaluate(self, number: int) -> None:
        """Did it help? Score base, seeds-only and tuned on every suite."""
        for config in self.opened.variants:
            evaluate_training(self.opened, config, number)
        compared = compare_trainings(
            self.run.round(number),
            self.opened.suites,
            self.config.evaluation,
            self.opened.selection.description,
            self.config.seed,
        )
        if compared is not None:
            chosen = f"chosen on {compared.chosen_on}: {compared.chosen}"
            self.progress.say(f"round {number}, trainings side by side, {chosen}")
            for line in compared.lines:
                self.progress.say(line)

    def judge(self, number: int) -> None:
        """Let a model compare the round's answers, where the config names a judge."""
        judge_trainings(self.opened, number)

    def go_round(self, *steps: Callable[[int], None]) -> None:
        """Take the steps of each round, in this order, for as long as the governor lets it go on.

        What it decides after an evaluated round is kept in the round's ``decision.json``, and is
        not decided again by a later start.

        Args:
            steps: `generate`, `train`, `evaluate`, `judge`, or some of them.
        """
        with self.run.log.recording(", ".join(step.__name__ for step in steps)):
            self._go_round(steps)

    def _go_round(self, steps: Sequence[Callable[[int], None]]) -> None:
        history: list[RoundResult] = []
        for number in range(self.config.rounds):
            for step in steps:
                step(number)
                self.opened.tracking.close()
            decision = self.world.on_main(functools.partial(self._decision, history, number))
            history.append(decision.shown or RoundResult(number=number))
            if decision.rolled_back:
                self.progress.say(f"round {number} is rolled back: {decision.reason}")
            if decision.action == "stop" and number + 1 < self.config.rounds:
                self.progress.say(f"stopped after round {number}: {decision.reason}")
                break

    def _decision(self, history: Sequence[RoundResult], number: int) -> Decision:
        """What was decided after the round that follows a history, or is decided now."""
        path = self.run.round(number).decision
        if path.exists():
            return read_json(path, Decision, "restore it, or add --redo evaluate to the command")
        opened = self.opened
        suite = next(s for s in opened.suites if s.name == opened.selection.suite)
        shown = read_result(self.run, opened.rows, suite, self.config, number)
        decision = decide([*history, shown], self.config.governor)
        if shown.gain is not None:
            write_atomically(path, decision.model_dump_json(indent=1) + "\n")
        return decision

    def _best_adapter(self, number: int) -> Path:
        best = best_training(self.run.rounds(), self.config.evaluation)
        if best is None:
            raise RunError(
                f"{self.run.path}: round {number} is written with the help of a tuned model, but "
                "no earlier round is trained and evaluated; use 'selfinstruct run'"
            )
        return best.directory.tuned
