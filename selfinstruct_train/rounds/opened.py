"""One run, opened: what all steps of all rounds share."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import DEFAULT_TRAINING, Config
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.distributed import World, join_world
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.select import make_engine
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.generation.domain import shown_pack
from selfinstruct_train.generation.prompting import few_shot_prompt
from selfinstruct_train.generation.style import settle_style
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.models.meaning import mean_hidden_states
from selfinstruct_train.models.precision import Precision, settle_precision
from selfinstruct_train.models.tokenizer import freeze_clock
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.progress import Progress, ProgressUpdate, Said
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.rounds.held_out import HELD_OUT, held_out_file, with_held_out
from selfinstruct_train.rounds.inputs import STAGES, Inputs, Stage, read_inputs
from selfinstruct_train.rounds.preflight import preflight
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.log import RunLog
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.run.tracking import PrometheusFile, Tracking, open_tracker
from selfinstruct_train.templates import encode
from selfinstruct_train.text.words import choose_tokenizer


class OpenedRun:
    """Settings, data, model and engine of a run that may go on: all of it has been checked."""

    def __init__(
        self,
        config: Config,
        stages: tuple[Stage, ...] = STAGES,
        redo: str | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        """Check everything that can be checked, then load the model if it writes in this process.

        Args:
            config: the run's settings.
            stages: what will be done; to generate with a server, no weights are needed here.
            redo: a stage to make again, with all that depends on it.
            inputs: what `read_inputs` has read of these settings; by default it is read here.

        Raises:
            SelfInstructError: a setting, a data file, the run directory or the model is at fault.
        """
        inputs = inputs or read_inputs(config, stages)
        self.world: World = join_world(config.process_timeout_minutes)
        self.run = RunDirectory(config.output_dir, self.world)
        checked = preflight(config, stages, self.world, inputs)
        config, style = settle_style(with_held_out(config), checked.model)
        self.seeds, self.pack, self.described = inputs.seeds, inputs.pack, checked.model
        settled = self.world.on_main(lambda: self._settle_precision(config))
        if settled is not None:
            model = config.model.model_copy(update={"dtype": settled.name})
            config = config.model_copy(update={"model": model})
            self.described = self.described._replace(dtype=settled.dtype)
        self.config = config
        self.own, self.suites = inputs.own, inputs.suites
        self.passages, self.replay_prompts = inputs.passages, inputs.replay_prompts
        self.chat = ChatTemplate(checked.model.tokenizer, inputs.pack.wording.system)
        self.suite_tasks = [SuiteTasks(suite.name, suite.tasks) for suite in inputs.suites]
        self.selection = selection_of(config.evaluation)
        self.rows = LiveRows(self.run)
        source = self.described.source
        contents = read_contents(
            config,
            source,
            self.seeds,
            self.own,
            inputs.suites,
            self.rows.pruned,
            self.passages,
            self.replay_prompts,
        )
        notes = self.run.open(config, contents, redo)
        self.world.on_main(self._write_held_out)
        freeze_clock(self.described.tokenizer, self.run.begun())
        self.tracking = _tracking(config)
        # Nothing that this holds may hold it: its end gives back the lock and the model's memory.
        record = functools.partial(_record, self.run.log, self.tracking)
        self.progress = Progress(quiet=not self.world.is_main, record=record)
        for note in (*notes, style, *([settled.note] if settled else [])):
            self.progress.say(note)
        asked = config.generation.filters.tokenizer
        self.tokenizer_choice = self.pack.rules.tokenizer_choice(asked)
        if asked == "auto":
            texts = (task.instruction for task in self.seeds)
            tokenizer = choose_tokenizer(self.tokenizer_choice, texts)
            why = "the pack says" if self.tokenizer_choice != "auto" else "the seeds are written"
            self.progress.say(f"words are compared by the tokenizer '{tokenizer}', as {why}")
        chooses = config.rounds > 1 or len(config.training.trainings) > 1
        if chooses and self.selection.warning:
            self.progress.warn(self.selection.warning)
        self._writes_here = config.generation.engine.kind == "transformers"
        writer = self.model if self._writes_here else self.described
        self.engine = self.parallel(make_engine(config, writer, self.progress.say))

    def _settle_precision(self, config: Config) -> Precision | None:
        try:
            saved = self.run.config().model.dtype
        except RunError:
            saved = None  # no run yet, or a damaged config.yaml, which is written again
        return settle_precision(config.model, self.described, saved)

    def _write_held_out(self) -> None:
        for suite in (s for s in self.suites if s.name == HELD_OUT and self.config.seeds.hold_out):
            text = "".join(task.model_dump_json() + "\n" for task in suite.tasks)
            write_atomically(held_out_file(self.config), text)

    @functools.cached_property
    def model(self) -> LoadedModel:
        """The base model, loaded when it is first needed."""
        loaded = load_model(self.config.model, self.described)
        for note in loaded.notes:
            self.progress.say(note)
        return loaded

    @functools.cached_property
    def evaluation_engine(self) -> Engine:
        """The engine that base and tuned models answer with, made when it is first needed."""
        # Adapters are made during the run, so only this process's own model is sure to have them.
        if self._writes_here:
            return self.engine
        engine = self.config.generation.engine
        return self.parallel(TransformersEngine(self.model, engine, self.progress.say))

    @property
    def variants(self) -> tuple[Config, ...]:
        """The settings of each training: one, or each of a sweep."""
        return tuple(
            self.config.model_copy(update={"training": training})
            for training in self.config.training.trainings
        )

    def parallel(self, engine: Engine) -> Engine:
        """The engine, shared out over the processes where there are several."""
        return ParallelEngine(engine, self.world) if self.world.size > 1 else engine

    def close_engines(self) -> None:
        """Give back what the engines hold; they open again when they are next asked."""
        self.engine.close()
        if "evaluation_engine" in vars(self):
            self.evaluation_engine.close()

    def meanings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Mean hidden states of the base, (texts, hidden size); engines make room for it."""
        self.close_engines()
        return mean_hidden_states(self.model, texts)

    def question(self, instruction: str, given: str) -> str:
        """The prompt in the template that models are tuned in."""
        template = (
            "plain" if self.config.training.template == "varied" else self.config.training.template
        )
        return encode(
            template, instruction, given, self.pack.answers, tokenizer=self.described.tokenizer
        )

    def few_shot_question(self, instruction: str, given: str) -> str:
        """The prompt for an untuned model, with the demonstrations of step 3 before it."""
        pack = self._shown
        shown = pack.input_first[: self.config.evaluation.few_shot_demonstrations]
        return few_shot_prompt(pack.wording, shown, instruction, given).text

    @functools.cached_property
    def _shown(self) -> Pack:
        """The pack with the demonstrations that the writer is shown."""
        return shown_pack(self.pack, self.config, self.seeds)


def _record(log: RunLog, tracking: Tracking, shown: ProgressUpdate | Said) -> None:
    log.record(shown)
    tracking.record(shown)


def _tracking(config: Config) -> Tracking:
    run = config.output_dir
    trackers = [functools.partial(open_tracker, name, run) for name in config.training.report_to]
    file = config.metrics_file
    watched = None if file is None else PrometheusFile(file, run.absolute().name)
    return Tracking(trackers, watched)


def describe(config: Config, number: int) -> str:
    """A round's name for the user, and its training's where a sweep has several."""
    name = config.training.name
    return f"round {number}" if name == DEFAULT_TRAINING else f"round {number}, training {name}"
