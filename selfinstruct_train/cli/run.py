"""Commands that work on a run: the whole loop, a stage alone, the checks before it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_train.cli.options import (
    ConfigArgument,
    OutputDir,
    Overrides,
    Redo,
    RunArgument,
    shipped_config,
)
from selfinstruct_train.cli.program import finish_run, open_loop
from selfinstruct_train.cli.steps import Step, say_end


def run(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """The whole loop: generate, train, evaluate, round after round. Resumes what is there."""
    _stages(config, overrides, output_dir, redo, ("generate", "train", "evaluate"))


def generate(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """Steps 1 to 4 alone: instructions, classification, instances, filters."""
    _stages(config, overrides, output_dir, redo, ("generate",))


def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """Step 5 alone: tuning on what has been generated."""
    _stages(config, overrides, output_dir, redo, ("train",))


def evaluate(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """The comparison alone: base, seeds-only and tuned on every suite."""
    _stages(config, overrides, output_dir, redo, ("evaluate",))


def _stages(
    config: Path,
    overrides: list[str] | None,
    output_dir: Path | None,
    redo: str | None,
    stages: tuple[Step, ...],
) -> None:
    from selfinstruct_train.config import load_config

    settings = load_config(config, overrides or (), output_dir)
    loop = open_loop(settings, config, stages, redo)
    steps = {
        "generate": (loop.generate,),
        "train": (loop.train,),
        "evaluate": (loop.evaluate, loop.judge),
    }
    loop.go_round(*(step for stage in stages for step in steps[stage]))
    if "evaluate" in stages:
        finish_run(loop)
    else:
        say_end(loop, stages[-1])


def prune(
    run_directory: RunArgument,
    ids: Annotated[
        list[str] | None, typer.Option(help="Ids of instructions or instances; may be repeated.")
    ] = None,
    descendants_of: Annotated[
        str | None,
        typer.Option(help="A row or seed task: the row and all that was written from it."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="File with an id a line, or as rows.html saves it."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Is kept with each row.")] = "by hand",
) -> None:
    """Take rows out of a run: they stay in their files, but nothing reads them any more."""
    from selfinstruct_train.errors import ConfigError
    from selfinstruct_train.run.directory import RunDirectory
    from selfinstruct_train.run.pruning import descendants, read_list
    from selfinstruct_train.run.pruning import prune as take_out
    from selfinstruct_train.run.rows import Pruned

    run = RunDirectory(run_directory)
    if not ids and descendants_of is None and from_file is None:
        raise ConfigError("prune: name rows by --ids ID …, --descendants-of ID or --from FILE")
    rows = [Pruned(id=id, reason=reason) for id in ids or ()]
    rows += descendants(run, descendants_of, reason) if descendants_of is not None else []
    rows += read_list(from_file, reason) if from_file is not None else []
    done = take_out(run, rows)
    already = f" ({done.before} were so before)" if done.before else ""
    print(
        f"pruned: {done.pruned} rows{already}; training rows that are live no more: "
        f"{done.instances}; see {run.pruned}"
    )
    for line in done.stale:
        print(f"made of these rows, to be made again: {line}")
    if done.stale:
        print(f"selfinstruct run {shlex.quote(str(run.config_file))} --redo train")


def validate(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Check all that a run needs, as it would itself, without loading the weights of a model."""
    from selfinstruct_train.config import explaining_paths, load_config

    settings = load_config(config, overrides or ())
    from selfinstruct_train.rounds.inputs import read_inputs

    with explaining_paths(config, settings.model_dump(mode="json")):
        inputs = read_inputs(settings)
        from selfinstruct_train.rounds.preflight import preflight  # loads torch

        preflight(settings, inputs=inputs)
    print(
        f"{config}: valid; {len(inputs.seeds)} seed tasks, "
        + ", ".join(f"{len(suite.tasks)} tasks in {suite.name}" for suite in inputs.suites)
    )


def preview(
    config: ConfigArgument,
    overrides: Overrides = None,
    instructions: Annotated[
        int, typer.Option("--instructions", "-n", min=1, help="How many to write.")
    ] = 5,
) -> None:
    """Write a few rows and show every prompt, completion and filter result, and a forecast."""
    from selfinstruct_train.config import explaining_paths, load_config
    from selfinstruct_train.report.preview import preview as show
    from selfinstruct_train.text.characters import printable

    settings = load_config(config, overrides or ())
    with explaining_paths(config, settings.model_dump(mode="json")):
        for line in show(settings, instructions):
            print(printable(line))


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="Also check what this config needs.", show_default=False, callback=shipped_config
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """What is installed and here: versions, devices, memory, disk, compiler, extras, the Hub."""
    from selfinstruct_train.config import load_config

    settings = None if config is None else load_config(config, overrides or ())
    from selfinstruct_train.cli.doctor import describe_config, describe_machine  # loads torch

    for line in describe_machine():
        print(line)
    if config is not None and settings is not None:
        for line in describe_config(config, settings):
            print(line)
