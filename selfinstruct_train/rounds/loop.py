"""Closing the loop: each round adds data to one pool, trains on all of it, and is measured."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from selfinstruct_train.config import DEFAULT_TRAINING, Config
from selfinstruct_train.contamination.check import check, contaminated_rows
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.distributed import World, join_world
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.select import make_engine
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.beyond.forgetting import measure_forgetting
from selfinstruct_train.evaluation.beyond.harness import measure_harness
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    best_training,
    contamination_sentence,
    evaluated_trainings,
    read_comparison,
)
from selfinstruct_train.evaluation.evaluate import evaluate_round
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.evaluation.trainings import compare_trainings
from selfinstruct_train.evaluation.win_rate import judge_round, make_judge, open_judge
from selfinstruct_train.generation.prompting import few_shot_prompt
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.models.memory import release_memory
from selfinstruct_train.models.tokenizer import freeze_clock
from selfinstruct_train.progress import Progress, ProgressUpdate
from selfinstruct_train.records import (
    Comparison,
    ContaminatedRow,
    TrainingRow,
    TrainingStep,
)
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.rounds.governor import Decision, RoundResult, decide
from selfinstruct_train.rounds.preflight import STAGES, Stage, preflight
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.templates import encode
from selfinstruct_train.text.words import choose_tokenizer
from selfinstruct_train.training.arguments import seeds_only_lengths
from selfinstruct_train.training.dataset import training_rows
from selfinstruct_train.training.sft import train


class Loop:
    """One run, opened: one loaded model is the writer, the student and both sides of the test."""

    def __init__(
        self, config: Config, stages: tuple[Stage, ...] = STAGES, redo: str | None = None
    ) -> None:
        """Check everything that can be checked, then load the model if it writes in this process.

        Args:
            config: the run's settings.
            stages: what will be done; to generate with a server, no weights are needed here.
            redo: a stage to make again, with all that depends on it.

        Raises:
            SelfInstructError: a setting, a data file, the run directory or the model is at fault.
        """
        self.config = config
        self.world: World = join_world(config.process_timeout_minutes)
        self.run = RunDirectory(config.output_dir, self.world)
        checked = preflight(config, stages, self.world)
        self.seeds, self._pack, self._described = checked.seeds, checked.pack, checked.model
        self._checked_suites = checked.suites
        self._suites = [SuiteTasks(suite.name, suite.tasks) for suite in checked.suites]
        self._selection = selection_of(config.evaluation)
        self._rows = LiveRows(self.run)
        source = self._described.source
        contents = read_contents(config, source, self.seeds, checked.suites, self._rows.pruned)
        notes = self.run.open(config, contents, redo)
        freeze_clock(self._described.tokenizer, self.run.begun())
        self.progress = Progress(quiet=not self.world.is_main)
        for note in notes:
            self.progress.say(note)
        asked = config.generation.filters.tokenizer
        self._tokenizer = self._pack.rules.tokenizer_choice(asked)
        if asked == "auto":
            tokenizer = choose_tokenizer(self._tokenizer, (task.instruction for task in self.seeds))
            why = "the pack says" if self._tokenizer != "auto" else "the seeds are written"
            self.progress.say(f"words are compared by the tokenizer '{tokenizer}', as {why}")
        chooses = config.rounds > 1 or len(config.training.trainings) > 1
        if chooses and self._selection.warning:
            self.progress.say(self._selection.warning)
        self._writes_here = config.generation.engine.kind == "transformers"
        writer = self.model if self._writes_here else self._described
        self.engine = self._parallel(make_engine(config, writer))

    @functools.cached_property
    def model(self) -> LoadedModel:
        """The base model, loaded when it is first needed."""
        loaded = load_model(self.config.model, self._described)
        for note in loaded.notes:
            self.progress.say(note)
        return loaded

    @functools.cached_property
    def _evaluation_engine(self) -> Engine:
        # Adapters are made during the run, so only this process's own model is sure to have them.
        if self._writes_here:
            return self.engine
        return self._parallel(TransformersEngine(self.model, self.config.generation.engine))

    def generate(self, number: int) -> None:
        """Steps 1 to 4: write this round's instructions and instances."""
        generation = self.config.generation
        needs_tuned = number > 0 and (
            "tuned" in (generation.instruction_writer, generation.instance_writer)
            or generation.instances.consistency
        )
        adapter = self._best_adapter(number) if needs_tuned else None
        generate_round(
            self.config,
            self.engine,
            self.run,
            number,
            self.seeds,
            adapter,
            self._question,
            self.progress,
        )

    def train(self, number: int) -> None:
        """Step 5: tune a fresh adapter on the seeds and the data of all rounds so far.

        A sweep tunes one for each of its settings.
        """
        for config in self._variants:
            self._train_round(config, number)

    def _train_round(self, config: Config, number: int) -> None:
        name = config.training.name
        directory = self.run.round(number).training(name)
        if directory.mark("train") is not None:
            return
        if self.run.round(number).mark("instances") is None:
            raise RunError(
                f"{self.run.round(number).path}: has no finished data to train on; run "
                "'selfinstruct generate' first"
            )
        rows = training_rows(
            self.seeds, list(self._rows.instances(number + 1)), config.training.include_seeds
        )
        start = None
        if number > 0 and config.training.start == "previous":
            start = self.run.round(number - 1).training(name).adapter
        stage = f"{_describe(config, number)} training"
        self._train(config, directory, stage, rows, start, None)

    def evaluate(self, number: int) -> None:
        """Did it help? Score base, seeds-only and tuned on every suite."""
        for config in self._variants:
            self._evaluate(config, number)
        compared = compare_trainings(
            self.run.round(number),
            self._checked_suites,
            self.config.evaluation,
            self._selection.description,
            self.config.seed,
        )
        if compared is not None:
            chosen = f"chosen on {compared.chosen_on}: {compared.chosen}"
            self.progress.say(f"round {number}, trainings side by side, {chosen}")
            for line in compared.lines:
                self.progress.say(line)

    def _evaluate(self, config: Config, number: int) -> None:
        directory = self.run.round(number).training(config.training.name)
        trained = directory.mark("train")
        if trained is None:
            raise RunError(
                f"{directory.path}: has no trained adapter; run 'selfinstruct train' first"
            )
        if self._is_evaluated(directory):
            self._check_beyond_suites(config, number)
            return
        directory.begin("evaluate")
        steps = int(trained.figures["steps"] or 0)
        seeds_only = self._train_seeds_only(config, steps) if config.evaluation.seeds_only else []
        began = time.monotonic()
        comparisons = evaluate_round(
            config,
            self._evaluation_engine,
            self.run,
            number,
            adapter=directory.adapter,
            seeds_only=seeds_only,
            question=self._question,
            few_shot_question=self._few_shot_question,
            pack=self._pack,
            report=self.progress,
            contaminated=functools.partial(self._contaminated, config, number),
        )
        which = _describe(config, number)
        for comparison in comparisons:
            self.progress.say(_sentence(which, comparison))
            if warning := contamination_sentence(comparison):
                self.progress.say(f"{which}: {warning}")
        self._check_beyond_suites(config, number)
        directory.finish("evaluate", time.monotonic() - began, suites=len(comparisons))

    def judge(self, number: int) -> None:
        """Let a model compare the round's answers, where the config names a judge."""
        judge = self.config.evaluation.judge
        if judge is None:
            return
        is_own = judge.model is None and judge.engine is None
        if is_own:
            asked = make_judge(self.config, self.engine, self._described.tokenizer)
        else:
            self.engine.close()
            asked = open_judge(self.config)
            asked = asked._replace(engine=self._parallel(asked.engine))
        for config in self._variants:
            directory = self.run.round(number).training(config.training.name)
            began = time.monotonic()
            judgements = judge_round(config, asked, self.run, number, self.progress)
            for judgement in judgements:
                for sentence in judgement.sentences:
                    self.progress.say(sentence)
            directory.finish("judge", time.monotonic() - began, suites=len(judgements))
        if not is_own:
            asked.engine.close()

    def go_round(self, *steps: Callable[[int], None]) -> None:
        """Take the steps of each round, in this order, for as long as the governor lets it go on.

        What it decides after an evaluated round is kept in the round's ``decision.json``.

        Args:
            steps: `generate`, `train`, `evaluate`, `judge`, or some of them.
        """
        history: list[RoundResult] = []
        for number in range(self.config.rounds):
            for step in steps:
                step(number)
            shown = RoundResult(number=number, comparisons=self._comparisons(number))
            history.append(shown)
            decision = decide(history)
            if shown.comparisons:
                self._keep(number, decision)
            if decision.action == "stop":
                self.progress.say(f"stopped after round {number}: {decision.reason}")
                break

    def summary(self) -> str:
        """Which round is best, and how it did on each suite, one in a line."""
        best = best_training(self.run.rounds(), self.config.evaluation)
        if best is None:
            return "no round has been evaluated"
        lines = [f"best by the interval on {self._selection.description}: {best.description}"]
        for suite in self._suites:
            path = best.directory.evaluation(suite.name) / COMPARISON_FILE
            if path.exists():
                lines.append(self._reported(best.description, read_comparison(path)))
        return "\n".join(lines)

    def _reported(self, which: str, comparison: Comparison) -> str:
        """A suite's figures; where half of it chose, those of the half that did not."""
        halves = comparison.halves
        name = self._selection.suite
        chosen = len(evaluated_trainings(self.run.rounds(), name)) > 1 and self._selection.half
        if not chosen or halves is None or comparison.suite != name:
            return _sentence(which, comparison)
        half = halves.reported.model_dump(
            include={"n", "delta", "ci_low", "ci_high", "wins", "ties", "losses"}
        )
        suite = f"the other half of {comparison.suite}"
        return _sentence(which, comparison.model_copy(update=half | {"suite": suite}))

    @property
    def _variants(self) -> tuple[Config, ...]:
        """The settings of each training: one, or each of a sweep."""
        return tuple(
            self.config.model_copy(update={"training": training})
            for training in self.config.training.trainings
        )

    def _check_beyond_suites(self, config: Config, number: int) -> None:
        """Held-out text and public benchmarks: what tuning did to everything else."""
        for measure in (measure_forgetting, measure_harness):
            found = measure(config, self.model, self.run, number)
            if found is not None:
                self.progress.say(f"{_describe(config, number)}: {found.sentence}")

    def _comparisons(self, number: int) -> tuple[Comparison, ...]:
        best = best_training([self.run.round(number)], self.config.evaluation)
        if best is None:
            return ()
        paths = (best.directory.evaluation(s.name) / COMPARISON_FILE for s in self._suites)
        return tuple(read_comparison(path) for path in paths if path.exists())

    def _keep(self, number: int, decision: Decision) -> None:
        text = decision.model_dump_json(indent=1) + "\n"
        path = self.run.round(number).decision
        self.world.on_main(lambda: write_atomically(path, text))

    def _parallel(self, engine: Engine) -> Engine:
        return ParallelEngine(engine, self.world) if self.world.size > 1 else engine

    def _is_evaluated(self, directory: RoundDirectory) -> bool:
        # Suites may be added to a finished run.
        return directory.mark("evaluate") is not None and all(
            (directory.evaluation(suite.name) / COMPARISON_FILE).exists() for suite in self._suites
        )

    def _train(
        self,
        config: Config,
        directory: RoundDirectory,
        stage: str,
        rows: list[TrainingRow],
        start: Path | None,
        steps: int | None,
    ) -> None:
        directory.begin("train")
        rows = self._without_contamination(directory, rows)
        self.engine.close()
        own = self.config.training.load == "own"
        if "_evaluation_engine" in vars(self):
            self._evaluation_engine.close()
        model = load_model(self.config.model, self._described) if own else self.model
        began = time.monotonic()

        def on_step(step: TrainingStep, total: int) -> None:
            note = f"loss {step.loss:.3f}"
            seconds = time.monotonic() - began
            done = ProgressUpdate(stage, step.step, total, 0, Counter(), 0, seconds, note=note)
            self.progress(done)

        result = train(
            model,
            rows,
            config.training,
            directory,
            answers=self._pack.answers,
            seed=self.config.seed,
            world=self.world,
            start_adapter=start,
            on_step=on_step,
            max_steps_override=steps,
        )
        if own:
            del model
            release_memory(self._described.device)
        for warning in (*result.gate.warnings, *result.check.warnings):
            self.progress.say(f"{stage}: {warning}")
        directory.finish(
            "train",
            time.monotonic() - began,
            steps=result.steps,
            rows=result.rows,
            too_long=result.too_long,
            final_loss=result.final_loss,
            precision=result.precision,
            stopped_by_itself=result.check.stopped,
            stop_checked_on=result.check.prompts,
        )

    def _train_seeds_only(self, config: Config, most: int) -> list[RoundDirectory]:
        """Train on the seed tasks alone, for so many steps and for fewer."""
        rows = training_rows(self.seeds, (), include_seeds=True)
        epochs, training = config.evaluation.seeds_only_epochs, config.training
        found = []
        for steps in seeds_only_lengths(epochs, len(rows), training.batch_size, most):
            directory = self.run.seeds_only(steps, training.name)
            if directory.mark("train") is None:
                stage = f"seeds-only training, {steps} steps"
                self._train(config, directory, stage, rows, None, steps)
            found.append(directory)
        return found

    def _without_contamination(
        self, directory: RoundDirectory, rows: list[TrainingRow]
    ) -> list[TrainingRow]:
        pack = self._pack
        result = check(
            rows,
            self.seeds,
            (*pack.classification, *pack.input_first, *pack.output_first),
            self._suites,
            self.config.evaluation.contamination,
            self._tokenizer,
        )
        text = "".join(row.model_dump_json() + "\n" for row in result.found)
        self.world.on_main(lambda: write_atomically(directory.contamination, text))
        if result.found:
            self.progress.say(f"contamination: {result.sentence}; see {directory.contamination}")
        return list(result.kept)

    def _contaminated(
        self, config: Config, number: int, suite: Suite
    ) -> tuple[ContaminatedRow, ...]:
        # A suite may join a run whose rounds were trained without regard to it.
        first = 0 if config.training.start == "previous" else number
        rows: dict[str, TrainingRow] = {}
        for trained in range(first, number + 1):
            directory = self.run.round(trained).training(config.training.name)
            store = directory.store(directory.dataset / "train.jsonl", TrainingRow)
            rows |= {row.id: row for row in store.read()}
        return contaminated_rows(
            list(rows.values()),
            SuiteTasks(suite.name, suite.tasks),
            self.config.evaluation.contamination,
            self._tokenizer,
        )

    def _best_adapter(self, number: int) -> Path:
        best = best_training(self.run.rounds(), self.config.evaluation)
        if best is None:
            raise RunError(
                f"{self.run.path}: round {number} is written with the help of a tuned model, but "
                "no earlier round is trained and evaluated; use 'selfinstruct run'"
            )
        return best.directory.adapter

    def _question(self, instruction: str, given: str) -> str:
        template = (
            "plain" if self.config.training.template == "varied" else self.config.training.template
        )
        return encode(
            template, instruction, given, self._pack.answers, tokenizer=self._described.tokenizer
        )

    def _few_shot_question(self, instruction: str, given: str) -> str:
        shown = self._pack.input_first[: self.config.evaluation.few_shot_demonstrations]
        return few_shot_prompt(self._pack.wording, shown, instruction, given).text


def _describe(config: Config, number: int) -> str:
    name = config.training.name
    return f"round {number}" if name == DEFAULT_TRAINING else f"round {number}, training {name}"


def _sentence(which: str, comparison: Comparison) -> str:
    return (
        f"{which} on {comparison.suite}: tuned - stop-controlled base = "
        f"{comparison.delta:+.1f} ROUGE-L ({comparison.confidence:.0%} interval "
        f"{comparison.ci_low:+.1f} to {comparison.ci_high:+.1f}), {comparison.wins} wins, "
        f"{comparison.ties} ties, {comparison.losses} losses"
    )
