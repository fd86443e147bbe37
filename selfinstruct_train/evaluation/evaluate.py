"""Did it help? The same questions to the base and to the tuned models, answered and compared."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from selfinstruct_train.config import Config
from selfinstruct_train.engines.asking import ask_rows
from selfinstruct_train.engines.base import Completion, Engine, Request
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    compare_halves,
    compare_systems,
    make_comparison,
    make_system,
)
from selfinstruct_train.evaluation.metrics import score_answers
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Item, Suite, load_suite, read_predictions
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.progress import Report
from selfinstruct_train.records import Comparison, ContaminatedRow, Prediction, Sampling
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.templates import cut_at_new_example, split_reasoning
from selfinstruct_train.text.characters import without_surrogates

EvaluationPrompt = Callable[[str, str], str]
"""(instruction, input) -> prompt."""

Contaminated = Callable[[Suite], tuple[ContaminatedRow, ...]]
"""Suite -> those of its rows that were trained on."""


class _AskedSystem(NamedTuple):
    """A system that answers a suite, and the folder of the run that its answers belong to."""

    name: Literal["base", "base-few-shot", "seeds-only", "tuned"]
    home: RoundDirectory
    adapter: Path | None
    question: EvaluationPrompt
    stop: tuple[str, ...] = ()


def evaluate_round(
    config: Config,
    engine: Engine,
    run: RunDirectory,
    number: int,
    *,
    adapter: Path,
    seeds_only: Sequence[RoundDirectory],
    question: EvaluationPrompt,
    few_shot_question: EvaluationPrompt | None,
    pack: Pack,
    report: Report,
    contaminated: Contaminated | None = None,
) -> list[Comparison]:
    """Answer and compare every suite of the config, greedily.

    The base and the seeds-only model do not change from round to round: each answers once, and
    later rounds get a copy. The base is scored twice, raw and cut where it starts a new example
    (``base-stopped``), so that learning to stop is seen apart from learning to answer.

    A question that does not fit the model's context is not asked: its row says so by an empty
    answer of 0 tokens that ended by ``length``, and it is scored as the empty answer that it is,
    for every system alike. Leaving it out would flatter a model with a short context.

    Args:
        config: the run's settings.
        engine: the model; every process must make this call.
        run: the run directory.
        number: the round, counted from 0.
        adapter: the tuned model.
        seeds_only: folders of the models tuned on seed tasks alone, each for another number of
            steps. The one with the best mean ROUGE-L on the suite that chooses is the system
            ``seeds-only``, the others are ``seeds-only-steps-N``.
        question: the prompt in the template that the adapters were tuned in.
        few_shot_question: the same question with demonstrations before it; asked of the base
            where ``evaluation.few_shot_demonstrations`` is not 0.
        pack: says where an answer to ``few_shot_question`` ends, and where the base begins another
            example.
        report: is told how far it is.
        contaminated: finds the rows of a suite that the tuned model may have been trained on.

    Returns:
        A comparison per suite, as written to ``eval/<suite>/comparison.json``.

    Raises:
        ConfigError: two suites have one name.
        DataError: a suite is at fault.
        RunError: answers in the run belong to another version of the suite.
        EngineError: the engine failed.
    """
    suites = _load_suites(config)
    systems = {"base": _AskedSystem("base", run.round(0), None, question)}
    if few_shot_question is not None and config.evaluation.few_shot_demonstrations:
        systems["base-few-shot"] = _AskedSystem(
            "base-few-shot",
            run.round(0),
            None,
            few_shot_question,
            pack.wording.few_shot_stop,
        )
    shows = config.generates and config.generation.instances.reasoning == "shown"
    label = pack.wording.answer if shows else None
    candidates = [_AskedSystem("seeds-only", home, home.tuned, question) for home in seeds_only]

    def ask(asked: _AskedSystem, suite: Suite) -> tuple[Prediction, ...]:
        return _answer(config, engine, asked, suite, number, report, label)

    best = _best_seeds_only(config, candidates, suites, ask)
    for asked in candidates:
        systems["seeds-only" if asked is best else f"seeds-only-{asked.home.path.name}"] = asked
    home = run.round(number).training(config.training.name)
    systems["tuned"] = _AskedSystem("tuned", home, adapter, question)
    steps = int(best.home.path.name.removeprefix("steps-")) if best else None
    comparisons = []
    for suite in suites:
        answers: dict[str, tuple[Prediction, ...]] = {}
        for name, asked in systems.items():
            answers[name] = ask(asked, suite)
            if asked.home.path != home.path:
                _copy(home, name, suite, answers[name])
        comparison = _compare(config, run, number, suite, answers, pack.answers)
        comparison = comparison.model_copy(update={"seeds_only_steps": steps})
        if contaminated is not None:
            rows = run.world.on_main(functools.partial(contaminated, suite))
            comparison = comparison.model_copy(update={"contaminated": rows})
        text = comparison.model_dump_json(indent=1) + "\n"
        path = home.evaluation(suite.name) / COMPARISON_FILE
        # No process goes on before the file is there: the next round may ask which one is best.
        run.world.on_main(functools.partial(write_atomically, path, text))
        comparisons.append(comparison)
    return comparisons


def _load_suites(config: Config) -> list[Suite]:
    suites = [load_suite(name) for name in config.evaluation.suites]
    for name, count in Counter(suite.name for suite in suites).items():
        if count > 1:
            raise ConfigError(
                f"evaluation.suites: {count} suites go by the name '{name}'; rename a file, or "
                "name the suite once"
            )
    return suites


def _best_seeds_only(
    config: Config,
    candidates: Sequence[_AskedSystem],
    suites: Sequence[Suite],
    ask: Callable[[_AskedSystem, Suite], tuple[Prediction, ...]],
) -> _AskedSystem | None:
    """The model with the highest mean ROUGE-L where the config chooses, the first of equal ones."""
    if len(candidates) < 2:
        return next(iter(candidates), None)
    selection = selection_of(config.evaluation)
    suite = next(suite for suite in suites if suite.name == selection.suite)
    chooses = suite.choosing_half
    if not selection.half or not chooses.any():
        chooses = ~np.zeros_like(chooses)

    def mean(asked: _AskedSystem) -> float:
        scores = score_answers(ask(asked, suite), suite).rouge_l
        return float(np.nanmean(scores[chooses]))

    return max(candidates, key=mean)


def _answer(
    config: Config,
    engine: Engine,
    asked: _AskedSystem,
    suite: Suite,
    number: int,
    report: Report,
    label: str | None,
) -> tuple[Prediction, ...]:
    """The system's answers to the whole suite: those in its file, then the rest from the engine."""
    items = suite.items
    path = _file(asked.home, asked.name, suite)
    store = asked.home.store(path, Prediction)
    rows = store.read()
    _require_same_suite(path, rows, items)
    sampling = Sampling(max_tokens=config.evaluation.max_tokens, stop=asked.stop)
    requests = [
        Request(
            f"{asked.home.path.name}-eval-{suite.name}-{asked.name}-{place:06d}",
            asked.question(item.instruction, item.input),
            sampling,
        )
        for place, item in enumerate(items)
    ]
    return ask_rows(
        engine,
        store,
        rows,
        requests,
        lambda place, completion: _prediction(items[place], completion, label),
        report,
        f"round {number} evaluation, {suite.name}, {asked.name}",
        adapter=asked.adapter,
    )


def _prediction(item: Item, completion: Completion | None, label: str | None) -> Prediction:
    """The answer to an item; of one that reasons first, what stands after the label."""
    text = without_surrogates(completion.text) if completion else ""
    if label is not None:
        text = split_reasoning(text, label).answer or text
    return Prediction(
        task_id=item.task_id,
        instruction=item.instruction,
        input=item.input,
        response=text,
        target=item.target,
        finish_reason=completion.finish_reason if completion else "length",
        completion_tokens=completion.completion_tokens if completion else 0,
    )


def _require_same_suite(path: Path, rows: Sequence[Prediction], items: Sequence[Item]) -> None:
    for number, row in enumerate(rows, 1):
        item = items[number - 1] if number <= len(items) else None
        asked = (row.task_id, row.instruction, row.input, row.target)
        if item is None or asked != (item.task_id, item.instruction, item.input, item.target):
            raise RunError(
                f"{path}, line {number}: answers another version of the suite ('{row.task_id}'); "
                "restore the suite, give it another name, or add --redo evaluate to the command"
            )


def _copy(directory: RoundDirectory, name: str, suite: Suite, rows: Sequence[Prediction]) -> None:
    directory.store(_file(directory, name, suite), Prediction).emit(rows)


def _file(directory: RoundDirectory, name: str, suite: Suite) -> Path:
    return directory.evaluation(suite.name) / f"{name}.jsonl"


def _compare(
    config: Config,
    run: RunDirectory,
    number: int,
    suite: Suite,
    answers: dict[str, tuple[Prediction, ...]],
    form: AnswerFormat,
) -> Comparison:
    """Tuned against everything else; against the stop-controlled base also per application."""
    found = {name: make_system(name, rows, suite) for name, rows in answers.items()}
    stopped = make_system("base-stopped", [_stopped(row, form) for row in answers["base"]], suite)
    tuned = found["tuned"]
    others = [system for name, system in found.items() if name != "tuned"]
    if (before := LiveRows(run).last_live(number)) is not None:
        folder = before.training(config.training.name).evaluation(suite.name)
        # Only a finished evaluation has answered everything.
        if (folder / COMPARISON_FILE).exists():
            rows = read_predictions(folder / "tuned.jsonl", suite)
            others.append(make_system("previous", rows, suite))
    pairs = list(compare_systems(stopped, tuned, suite, config.evaluation, config.seed))
    for other in others:
        pairs += compare_systems(
            other, tuned, suite, config.evaluation, config.seed, by_group=False
        )
    shown = [found["base"], stopped, *(s for n, s in found.items() if n != "base")]
    rivals = [found[name] for name in ("seeds-only", "base-few-shot") if name in found]
    halves = compare_halves(stopped, tuned, suite, config.evaluation, config.seed, rivals)
    comparison = make_comparison(suite, shown, pairs, config.evaluation.confidence)
    return comparison.model_copy(update={"halves": halves})


def _stopped(row: Prediction, form: AnswerFormat) -> Prediction:
    response = cut_at_new_example(row.response, form)
    if response == row.response:
        return row
    # The model went on after the cut, so it did not end the answer by itself: that much is known.
    return row.model_copy(update={"response": response, "finish_reason": "length"})
