"""Public benchmarks through lm-evaluation-harness: base and tuned model on the same tasks.

The harness (EleutherAI, the package ``lm_eval``) does the asking and the scoring. Here it is given
the model that is loaded already, with the adapter on or off, and its figures are stored and set
against each other.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from selfinstruct_train.config import Config, HarnessConfig
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run import RoundDirectory, RunDirectory, read_json, write_atomically

if TYPE_CHECKING:
    from selfinstruct_train.engines.models import LoadedModel

HARNESS_FOLDER = "harness"
DIFFERENCES_FILE = "differences.json"
_MEND = "delete it and evaluate again"


class HarnessScore(Row):
    """One figure of one task, in the task's own unit; a group is a task as well."""

    task: str
    metric: str
    filter: str
    """How the harness took the answer out of the text; mostly ``none``."""
    value: float
    stderr: float | None
    """Standard error as the harness gives it; None where it gives none."""
    higher_is_better: bool | None
    """None where the task does not say."""
    n: int | None
    """Items; None for a group."""


class HarnessTask(Row):
    """What the harness found on a task that the config names, subtasks included."""

    name: str
    scores: tuple[HarnessScore, ...]


class HarnessSettings(Row):
    """What figures depend on; they are compared with none of other settings."""

    package: str
    """Version of lm_eval."""
    num_fewshot: int | None
    limit: int | None
    apply_chat_template: bool
    seed: int


class HarnessResult(Row):
    """eval/harness/base.json (in round 0 alone) and tuned.json: the tasks finished so far."""

    system: Literal["base", "tuned"]
    settings: HarnessSettings
    tasks: tuple[HarnessTask, ...] = ()


class HarnessDifference(Row):
    """Tuned against base on one figure."""

    task: str
    metric: str
    filter: str
    n: int | None
    higher_is_better: bool | None
    base: float
    tuned: float
    delta: float
    """Tuned minus base."""
    ci_low: float | None
    """None where a standard error is missing, or both are 0, which leaves no spread."""
    ci_high: float | None

    @property
    def outcome(self) -> Literal["better", "worse", "unclear"]:
        """What tuning did, where the interval is clear of zero and the task says what is good."""
        if self.ci_low is None or self.ci_high is None or self.higher_is_better is None:
            return "unclear"
        if self.ci_low <= 0 <= self.ci_high:
            return "unclear"
        return "better" if (self.delta > 0) == self.higher_is_better else "worse"


class HarnessComparison(Row):
    """eval/harness/differences.json: every figure that base and tuned model share."""

    settings: HarnessSettings
    confidence: float
    differences: tuple[HarnessDifference, ...]

    @property
    def sentence(self) -> str:
        """What was found, claiming no more than the intervals allow."""
        better, worse = (
            [
                f"{d.task} ({d.metric} {d.base:.3g} to {d.tuned:.3g})"
                for d in self.differences
                if d.outcome == outcome
            ]
            for outcome in ("better", "worse")
        )
        said = [
            f"{what} on {', '.join(found)}"
            for what, found in (("better", better), ("worse", worse))
            if found
        ]
        open_ = len(self.differences) - len(better) - len(worse)
        if open_:
            said.append(f"not to be told apart on {open_} of {len(self.differences)} figures")
        return f"On tasks of lm-evaluation-harness the tuned model is {'; '.join(said)}."


def check_harness(config: HarnessConfig) -> None:
    """Check, without a model, that the package is there and knows the tasks.

    Raises:
        ConfigError: it is not installed, the folder of own tasks is none, or a task is unknown.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluation.harness: lm-evaluation-harness is not installed; run pip install "
            "'selfinstruct-train[harness]', or leave evaluation.harness out"
        )
    known = _task_manager(config).all_tasks
    if unknown := [task for task in config.tasks if task not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise ConfigError(
            f"evaluation.harness.tasks: lm-evaluation-harness knows no task '{unknown[0]}'"
            + (f"; did you mean '{near[0]}'?" if near else "")
            + "; own tasks are YAML files in the folder evaluation.harness.include_path"
        )


def measure_harness(
    config: Config, loaded: LoadedModel, run: RunDirectory, number: int
) -> HarnessComparison | None:
    """Put the config's tasks to the base and to a round's tuned model.

    A task that is finished is not run again; the base is asked once for all rounds. With several
    processes each takes its share of every task.

    Args:
        config: the run's settings.
        loaded: the model; every process must make this call.
        run: the run directory; the round must be trained.
        number: the round, counted from 0.

    Returns:
        What is written to ``eval/harness/differences.json``; None where no tasks are named.

    Raises:
        ConfigError: see `check_harness`.
        RunError: the harness failed on a task; what was finished before is kept.
        EngineError: the adapter cannot be put in force.
    """
    if config.evaluation.harness is None:
        return None
    directory = run.round(number)
    base = _evaluate(config, loaded, run.round(0), "base", None)
    tuned = _evaluate(config, loaded, directory, "tuned", directory.adapter)
    found = compare_harness(base, tuned, config.evaluation.confidence)
    path = directory.evaluation(HARNESS_FOLDER) / DIFFERENCES_FILE
    text = found.model_dump_json(indent=1) + "\n"
    run.world.on_main(functools.partial(write_atomically, path, text))
    return found


def compare_harness(
    base: HarnessResult, tuned: HarnessResult, confidence: float
) -> HarnessComparison:
    """Set the figures of two systems against each other.

    The interval is that of a difference of two independent means, from the harness's standard
    errors. Both models answered the same items, so it is wider than a paired one would be.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    before = {
        (task.name, s.task, s.metric, s.filter): s for task in base.tasks for s in task.scores
    }
    differences = []
    for task in tuned.tasks:
        for after in task.scores:
            known = before.get((task.name, after.task, after.metric, after.filter))
            if known is None:
                continue
            delta = after.value - known.value
            reach = None
            if known.stderr is not None and after.stderr is not None:
                reach = z * math.hypot(known.stderr, after.stderr) or None
            differences.append(
                HarnessDifference(
                    task=after.task,
                    metric=after.metric,
                    filter=after.filter,
                    n=after.n,
                    higher_is_better=after.higher_is_better,
                    base=known.value,
                    tuned=after.value,
                    delta=delta,
                    ci_low=None if reach is None else delta - reach,
                    ci_high=None if reach is None else delta + reach,
                )
            )
    return HarnessComparison(
        settings=tuned.settings, confidence=confidence, differences=tuple(differences)
    )


def read_harness(path: Path) -> HarnessComparison:
    """Read a differences.json.

    Raises:
        DataError: the file is missing or damaged.
    """
    return read_json(path, HarnessComparison, _MEND)


def read_scores(results: Mapping[str, Any]) -> tuple[HarnessScore, ...]:
    """The figures in what ``lm_eval.simple_evaluate`` returns, in its order.

    Its keys have the form ``metric,filter`` and ``metric_stderr,filter``; a standard error that it
    cannot give is a text, and one of a single item is not a number.
    """
    scores = []
    for task, figures in results["results"].items():
        items = results["n-samples"].get(task)
        for key, value in figures.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or (number := _finite(value)) is None:
                continue
            scores.append(
                HarnessScore(
                    task=task,
                    metric=metric,
                    filter=filtered,
                    value=number,
                    stderr=_finite(figures.get(f"{metric}_stderr,{filtered}")),
                    higher_is_better=results["higher_is_better"].get(task, {}).get(metric),
                    n=int(items["effective"]) if items else None,
                )
            )
    return tuple(scores)


def _finite(value: object) -> float | None:
    # Figures come as floats and as numpy's.
    if isinstance(value, str) or value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def _evaluate(
    config: Config,
    loaded: LoadedModel,
    directory: RoundDirectory,
    system: Literal["base", "tuned"],
    adapter: Path | None,
) -> HarnessResult:
    """The system's figures on all tasks: those in its file, then the rest from the harness."""
    harness = config.evaluation.harness
    assert harness is not None
    settings = HarnessSettings(
        package=version("lm_eval"),
        num_fewshot=harness.num_fewshot,
        limit=harness.limit,
        apply_chat_template=harness.apply_chat_template,
        seed=config.seed,
    )
    path = directory.evaluation(HARNESS_FOLDER) / f"{system}.json"
    world = directory.world
    stored = world.on_main(lambda: read_json(path, HarnessResult, _MEND) if path.exists() else None)
    # Figures of other settings or of another version are of no use here.
    known = stored.tasks if stored is not None and stored.settings == settings else ()
    finished = {task.name: task for task in known}
    for name in harness.tasks:
        if name in finished:
            continue
        loaded.adapters.activate(adapter)
        results = _run_task(harness, loaded, directory, name, config.seed)
        scores = world.on_main(functools.partial(_read_results, results))
        finished[name] = HarnessTask(name=name, scores=scores)
        partial = HarnessResult(system=system, settings=settings, tasks=tuple(finished.values()))
        text = partial.model_dump_json(indent=1) + "\n"
        world.on_main(functools.partial(write_atomically, path, text))
    return HarnessResult(
        system=system, settings=settings, tasks=tuple(finished[name] for name in harness.tasks)
    )


def _read_results(results: Mapping[str, Any] | None) -> tuple[HarnessScore, ...]:
    assert results is not None, "the main process gets the results"
    return read_scores(results)


def _run_task(
    harness: HarnessConfig, loaded: LoadedModel, directory: RoundDirectory, task: str, seed: int
) -> Mapping[str, Any] | None:
    manager = _task_manager(harness)
    from accelerate import Accelerator
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # A model that has just been tuned may still drop out.
    loaded.model.eval()
    try:
        model = HFLM(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            max_length=loaded.context_length,
            batch_size=harness.batch_size,
            trust_remote_code=False,
        )
        if directory.world.size > 1:
            # What HFLM does by itself only for a model that it has loaded itself.
            model.accelerator = Accelerator()
            model._rank, model._world_size = directory.world
        results: Mapping[str, Any] | None = simple_evaluate(
            model,
            tasks=[task],
            num_fewshot=harness.num_fewshot,
            limit=harness.limit,
            apply_chat_template=harness.apply_chat_template,
            task_manager=manager,
            log_samples=False,
            # The generators of this process are not the harness's to seed.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            fewshot_random_seed=seed,
        )
    except Exception as error:  # tasks, data sets and the hub fail with a dozen unrelated classes
        detail = (str(error).splitlines() or [""])[0][:200]
        raise RunError(
            f"evaluation.harness: task '{task}' failed ({type(error).__name__}: {detail}); mend it "
            "or leave it out, and run the same command again: finished tasks are kept"
        ) from error
    return results


def _task_manager(config: HarnessConfig) -> Any:
    # Loaded first, or the harness's own imports run into a circle within huggingface_hub.
    import datasets  # noqa: F401
    from lm_eval.tasks import TaskManager

    folder = config.include_path
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(
            f"evaluation.harness.include_path: no folder '{folder}'; name one with YAML files of "
            "tasks"
        )
    return TaskManager(include_path=folder)
