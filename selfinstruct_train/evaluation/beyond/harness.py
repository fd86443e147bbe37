"""Public benchmarks through lm-evaluation-harness: base and tuned model on the same tasks.

The harness (EleutherAI, the package ``lm_eval``) does the asking and the scoring. Here it is given
the model that is loaded already, with the adapter on or off, and its figures are stored and set
against each other.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfinstruct_train.config import Config, HarnessConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.evaluation.beyond.harness_figures import (
    DIFFERENCES_FILE,
    FIX,
    HARNESS_FOLDER,
    HarnessComparison,
    HarnessResult,
    HarnessScore,
    HarnessSettings,
    HarnessTask,
    compare_harness,
    read_scores,
)
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.stores import read_json, write_atomically

if TYPE_CHECKING:
    from selfinstruct_train.models.load import LoadedModel


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
    directory = run.round(number).training(config.training.name)
    # The index of all known tasks takes seconds to make, and a check that is done needs none.
    manager = functools.cache(functools.partial(_task_manager, config.evaluation.harness))
    base = _evaluate(config, loaded, manager, run.round(0), "base", None)
    tuned = _evaluate(config, loaded, manager, directory, "tuned", directory.tuned)
    found = compare_harness(base, tuned, config.evaluation.confidence)
    path = directory.evaluation(HARNESS_FOLDER) / DIFFERENCES_FILE
    text = found.model_dump_json(indent=1) + "\n"
    run.world.on_main(functools.partial(write_atomically, path, text))
    return found


def _evaluate(
    config: Config,
    loaded: LoadedModel,
    manager: Callable[[], Any],
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
        own_tasks=_digest(harness.include_path) if harness.include_path else None,
    )
    path = directory.evaluation(HARNESS_FOLDER) / f"{system}.json"
    world = directory.world
    stored = world.on_main(lambda: read_json(path, HarnessResult, FIX) if path.exists() else None)
    # Figures of other settings or of another version are of no use here.
    known = stored.tasks if stored is not None and stored.settings == settings else ()
    finished = {task.name: task for task in known}
    for name in harness.tasks:
        if name in finished:
            continue
        loaded.adapters.activate(adapter)
        results = _run_task(harness, loaded, manager(), world, name, config.seed)
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


def _digest(folder: str) -> str:
    """Of the files that define own tasks, so that figures of a changed task are not taken over."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".yaml", ".yml", ".py"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _run_task(
    harness: HarnessConfig,
    loaded: LoadedModel,
    manager: Any,
    world: World,
    task: str,
    seed: int,
) -> Mapping[str, Any] | None:
    """What the harness returns, None on all processes but the main one."""
    from accelerate import Accelerator
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # A model that has just been tuned may still drop out.
    loaded.model.eval()
    # It warns that a loaded model is handed over, which is meant, and of processes: see below.
    log = logging.getLogger(HFLM.__module__)
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        model = HFLM(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            max_length=loaded.context_length,
            batch_size=harness.batch_size,
            trust_remote_code=False,
        )
        log.setLevel(level)
        if world.size > 1:
            # What HFLM does by itself only for a model that it has loaded itself.
            model.accelerator = Accelerator()
            model._rank, model._world_size = world
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
            f"evaluation.harness: task '{task}' failed ({type(error).__name__}: {detail}); fix it "
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
