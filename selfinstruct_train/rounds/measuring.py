"""What a round's trainings are worth: suites, held-out text, public benchmarks, a judge."""

from __future__ import annotations

import functools
import time
from itertools import chain

from selfinstruct_train.config import Config
from selfinstruct_train.contamination.check import contaminated_rows
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.beyond.forgetting import measure_forgetting
from selfinstruct_train.evaluation.beyond.harness import measure_harness
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    contamination_sentence,
)
from selfinstruct_train.evaluation.evaluate import evaluate_round
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.evaluation.win_rate import judge_round, make_judge, open_judge
from selfinstruct_train.records import Comparison, ContaminatedRow, TrainingRow
from selfinstruct_train.rounds.opened import OpenedRun, describe
from selfinstruct_train.rounds.tuning import train_seeds_only
from selfinstruct_train.run.directory import RoundDirectory


def evaluate_training(opened: OpenedRun, config: Config, number: int) -> None:
    """Score base, seeds-only and tuned on every suite that has no comparison yet.

    Args:
        opened: the run.
        config: the settings of the training.
        number: the round, counted from 0.

    Raises:
        RunError: the round is not trained.
    """
    directory = opened.run.round(number).training(config.training.name)
    trained = directory.mark("train")
    if trained is None:
        raise RunError(f"{directory.path}: has no tuned model; run 'selfinstruct train' first")
    if _is_evaluated(opened, directory):
        _check_beyond_suites(opened, config, number)
        return
    directory.begin("evaluate")
    steps = int(trained.figures.get("steps") or 0)
    if steps < 1:
        raise RunError(
            f"{directory.path / 'done/train.json'}: the mark does not say how many steps were "
            "trained; restore it, or add --redo train to the command"
        )
    seeds_only = train_seeds_only(opened, config, steps) if config.evaluation.seeds_only else []
    began = time.monotonic()
    comparisons = evaluate_round(
        config,
        opened.evaluation_engine,
        opened.run,
        number,
        adapter=directory.tuned,
        seeds_only=seeds_only,
        question=opened.question,
        few_shot_question=opened.few_shot_question,
        pack=opened.pack,
        report=opened.progress,
        contaminated=functools.partial(_contaminated, opened, config, number),
    )
    which = describe(config, number)
    for comparison in comparisons:
        opened.progress.say(_sentence(which, comparison))
        if warning := contamination_sentence(comparison):
            opened.progress.warn(f"{which}: {warning}")
    _check_beyond_suites(opened, config, number)
    directory.finish("evaluate", time.monotonic() - began, suites=len(comparisons))


def judge_trainings(opened: OpenedRun, number: int) -> None:
    """Let a model compare the answers of a round's trainings, where the config names a judge."""
    judge = opened.config.evaluation.judge
    if judge is None:
        return
    is_own = judge.model is None and judge.engine is None
    if is_own:
        asked = make_judge(opened.config, opened.engine, opened.described.tokenizer)
    else:
        opened.engine.close()
        asked = open_judge(opened.config)
        asked = asked._replace(engine=opened.parallel(asked.engine))
    for config in opened.variants:
        directory = opened.run.round(number).training(config.training.name)
        began = time.monotonic()
        judgements = judge_round(config, asked, opened.run, number, opened.progress)
        for judgement in judgements:
            for sentence in judgement.sentences:
                opened.progress.say(sentence)
        directory.finish("judge", time.monotonic() - began, suites=len(judgements))
    if not is_own:
        asked.engine.close()


def _is_evaluated(opened: OpenedRun, directory: RoundDirectory) -> bool:
    # Suites may be added to a finished run.
    return directory.mark("evaluate") is not None and all(
        (directory.evaluation(suite.name) / COMPARISON_FILE).exists() for suite in opened.suites
    )


def _check_beyond_suites(opened: OpenedRun, config: Config, number: int) -> None:
    """Held-out text and public benchmarks: what tuning did to everything else."""
    for measure in (measure_forgetting, measure_harness):
        found = measure(config, opened.model, opened.run, number)
        if found is not None:
            opened.progress.say(f"{describe(config, number)}: {found.sentence}")


def _contaminated(
    opened: OpenedRun, config: Config, number: int, suite: Suite
) -> tuple[ContaminatedRow, ...]:
    # A suite may join a run whose rounds were trained without regard to it.
    first = number if config.training.start == "base" else 0
    rounds = (
        opened.run.round(trained).training(config.training.name)
        for trained in range(first, number + 1)
    )
    stores = (
        directory.store(directory.dataset / "train.jsonl", TrainingRow) for directory in rounds
    )
    return contaminated_rows(
        chain.from_iterable(store.stream() for store in stores),
        SuiteTasks(suite.name, suite.tasks),
        opened.config.evaluation.contamination,
        opened.tokenizer_choice,
    )


def _sentence(which: str, comparison: Comparison) -> str:
    return (
        f"{which} on {comparison.suite}: tuned - stop-controlled base = "
        f"{comparison.delta:+.1f} ROUGE-L ({comparison.confidence:.0%} interval "
        f"{comparison.ci_low:+.1f} to {comparison.ci_high:+.1f}), {comparison.wins} wins, "
        f"{comparison.ties} ties, {comparison.losses} losses"
    )
