"""Who judges, what is judged, and where the verdicts are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_train.config import Config, JudgeConfig
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.engines.base import Engine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.evaluation.compare import read_systems
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.judging.ask import (
    Answers,
    Judge,
    grade_answers,
    judge_pairs,
    load_judge_prompts,
)
from selfinstruct_train.judging.results import (
    GradeSummary,
    GradeVerdict,
    PairVerdict,
    PairwiseSummary,
    summarise_grades,
    summarise_pairs,
)
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.progress import Report
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore, read_json, write_atomically
from selfinstruct_train.templates import cut_at_new_example, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

JUDGE_FOLDER = "judge"
SUMMARY_FILE = "summary.json"
PAIRS_FILE = "pairs.jsonl"


class Judgement(Row):
    """judge/summary.json: what a judge made of two systems' answers to a suite."""

    pairwise: PairwiseSummary | None
    grades: tuple[GradeSummary, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a user is told, one finding each."""
        pairwise = (self.pairwise.sentence,) if self.pairwise else ()
        return (*pairwise, *(summary.sentence for summary in self.grades))


class Match(NamedTuple):
    """Two systems' answers to a suite, ready to be judged."""

    suite: Suite
    a: Answers
    b: Answers

    @property
    def folder_name(self) -> str:
        """A name that tells this match from others."""
        parts = (JUDGE_FOLDER, self.suite.name, self.a.name, self.b.name)
        return "-".join(re.sub(r"[^\w.]+", "_", part).strip("_") for part in parts)


def judge_config(config: Config) -> Config:
    """The settings with the judge in the place of the writer: its model and its engine."""
    judge = config.evaluation.judge or JudgeConfig()
    generation = config.generation
    engine = judge.engine or generation.engine
    if judge.model is not None and judge.engine is None:
        # The run's server knows the writer by that name, not the judge.
        engine = engine.model_copy(update={"server_model": None})
    return config.model_copy(
        update={
            "model": judge.model or config.model,
            "generation": generation.model_copy(update={"engine": engine}),
            "evaluation": config.evaluation.model_copy(update={"judge": judge}),
        }
    )


def open_judge(config: Config) -> Judge:
    """Open the judge that the config names.

    A judge behind a server needs no model here: its tokens are estimated from the bytes. One in
    vLLM needs its tokenizer and config alone.

    Raises:
        ConfigError: a setting of the judge is at fault, or a package is not installed.
        EngineError: its model cannot be loaded.
    """
    # Only here, for torch is slow to load and who reads a judgement needs none.
    from selfinstruct_train.engines import select
    from selfinstruct_train.models import describe, load

    asked = judge_config(config)
    engine, judge = asked.generation.engine, asked.evaluation.judge
    assert judge is not None
    if engine.kind == "server":
        name, length = asked.model.name_or_path, judge.server_context_length
        batches = select.batches_of(config)
        return make_judge(asked, select.make_server_engine(engine, name, length, batches))
    here = engine.kind == "transformers"
    model = load.load_model(asked.model) if here else describe.describe_model(asked.model)
    return make_judge(asked, select.make_engine(asked, model), model.tokenizer)


def make_judge(
    config: Config, engine: Engine, tokenizer: PreTrainedTokenizerBase | None = None
) -> Judge:
    """A judge that is asked as the config says.

    Args:
        config: the settings, ``evaluation.judge`` where it is set.
        engine: the judge's, made from `judge_config`.
        tokenizer: the judge's; needed for ``evaluation.judge.chat_template`` alone.

    Raises:
        ConfigError: a prompt file is at fault, or there is no chat template.
    """
    settings = config.evaluation.judge or JudgeConfig()
    served = judge_config(config).generation.engine
    # A server may serve another model than the config's, and that one judges.
    name = served.server_model if served.kind == "server" else None
    return Judge(
        name=name or engine.model_id,
        engine=engine,
        prompts=load_judge_prompts(settings, config.generation.prompts),
        max_tokens=settings.max_tokens,
        frame=_chat_frame(tokenizer) if settings.chat_template else str,
    )


def judge_round(
    config: Config, judge: Judge, run: RunDirectory, number: int, report: Report
) -> list[Judgement]:
    """Let the judge compare, or grade, a round's tuned model and the stop-controlled base.

    Verdicts are kept in ``eval/<suite>/judge/`` of the round, from which a stopped judge resumes.

    Args:
        config: the run's settings.
        judge: who is asked; every process must make this call.
        run: the run directory; the round must be evaluated.
        number: the round, counted from 0.
        report: is told how far it is.

    Returns:
        A judgement per suite, as written to ``summary.json``.

    Raises:
        DataError: a suite or a file of answers is at fault.
        RunError: stored verdicts are those of another judge, prompt or answer.
        EngineError: the engine failed.
    """
    directory = run.round(number).training(config.training.name)
    answers = load_answers(config.generation.prompts)
    judgements = []
    for name in config.evaluation.suites:
        suite = load_suite(name)
        folder = directory.evaluation(suite.name)
        base = read_predictions(folder / "base.jsonl", suite)
        cut = [
            p.model_copy(update={"response": cut_at_new_example(p.response, answers)}) for p in base
        ]
        match = Match(
            suite,
            Answers("base-stopped", tuple(cut)),
            Answers("tuned", read_predictions(folder / "tuned.jsonl", suite)),
        )
        folder = folder / JUDGE_FOLDER
        judgements.append(judge_match(config, judge, match, folder, report, run.world))
    return judgements


def read_match(a: Path, b: Path, suite: str) -> Match:
    """Read two sets of answers, each a predictions file or a run directory, as `compare` does.

    A run stands for the tuned model of its best round. Answers are judged as they are written: a
    base that goes on to another example is not cut.

    Raises:
        DataError: the suite or a file is at fault, or a file does not answer the suite.
        RunError: a folder is not a run, or the run was not evaluated on the suite.
    """
    loaded = load_suite(suite)
    first, second = read_systems(a, b, loaded)
    return Match(
        loaded,
        Answers(first.name, first.predictions),
        Answers(second.name, second.predictions),
    )


def judge_match(
    config: Config,
    judge: Judge,
    match: Match,
    folder: Path,
    report: Report,
    world: World = ALONE,
) -> Judgement:
    """Let the judge say what it is asked for of two systems' answers, and keep every verdict.

    Args:
        config: the settings; ``evaluation.judge`` says what is asked for.
        judge: who is asked.
        match: the answers; B is measured against A.
        folder: for the verdicts and ``summary.json``; verdicts in it are not asked for again.
        report: is told how far it is.
        world: the processes, of which one writes.

    Raises:
        RunError: stored verdicts are those of another judge, prompt or answer.
        EngineError: the engine failed.
    """
    suite, a, b = match
    tasks = (config.evaluation.judge or JudgeConfig()).tasks
    confidence = config.evaluation.confidence
    pairwise, grades = None, []
    if "pairwise" in tasks:
        pair_store = RowStore(folder / PAIRS_FILE, PairVerdict, world.is_main)
        pairs = judge_pairs(judge, pair_store, suite.name, a, b, report)
        pairwise = summarise_pairs(pairs, a.name, b.name, suite.name, judge.name, confidence)
    if "grade" in tasks:
        for side, answers in zip("ab", (a, b), strict=True):
            grade_store = RowStore(grades_file(folder, side), GradeVerdict, world.is_main)
            levels = grade_answers(judge, grade_store, suite.name, answers, report)
            grades.append(
                summarise_grades(levels, answers.name, suite.name, judge.name, confidence)
            )
    judgement = Judgement(pairwise=pairwise, grades=tuple(grades))
    text = judgement.model_dump_json(indent=1) + "\n"
    world.on_main(lambda: write_atomically(folder / SUMMARY_FILE, text))
    return judgement


def grades_file(folder: Path, side: str) -> Path:
    """Where the grades of one side, ``a`` or ``b``, are kept."""
    return folder / f"grades-{side}.jsonl"


def read_judgement(path: Path) -> Judgement:
    """Read a judge's summary.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(
        path, Judgement, "delete it and run 'selfinstruct evaluate', which asks for nothing twice"
    )


def _chat_frame(tokenizer: PreTrainedTokenizerBase | None) -> Callable[[str], str]:
    if tokenizer is None or not tokenizer.chat_template:
        raise ConfigError(
            "evaluation.judge.chat_template: the judge has no chat template here; name an "
            "instruction-tuned model in evaluation.judge.model, set server_endpoint: chat where a "
            "server judges, or leave the setting out"
        )
    return lambda prompt: encode_chat(prompt, "", tokenizer)
