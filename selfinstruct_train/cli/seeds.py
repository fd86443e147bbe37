"""Commands about seed tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_train.cli.options import AsJson, Overrides


def seeds_check(
    path: Annotated[Path, typer.Argument(help="Seed tasks, JSONL in the official schema.")],
    config: Annotated[
        Path | None,
        typer.Argument(help="Config: its model is tried on the labels.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Suite that seeds must not resemble; by default the config's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Faults of a seed file all at once; what is alike, leaks or is thin; how step 2 does on it."""
    from selfinstruct_train.config import load_config
    from selfinstruct_train.contamination.suite_index import SuiteTasks
    from selfinstruct_train.errors import DataError
    from selfinstruct_train.evaluation.suites import load_suite
    from selfinstruct_train.generation.seed_check import check_seeds
    from selfinstruct_train.sources.fetch import resolve

    file = path if path.exists() else resolve(str(path))
    settings = load_config(config, overrides or ()) if config else None
    names = suite or (settings.evaluation.suites if settings else ())
    suites = [SuiteTasks(found.name, found.tasks) for found in map(load_suite, names)]
    thresholds = settings.evaluation.contamination if settings else None
    report, tasks = check_seeds(file, suites, thresholds)
    if settings is not None and not report.faults:
        from selfinstruct_train.rounds.seed_figures import classification_figures

        figures = classification_figures(settings, tasks, lambda text: print(text, file=sys.stderr))
        report = report.model_copy(update={"classification": figures})
    print(report.model_dump_json() if as_json else "\n".join(report.sentences))
    if report.faults:
        raise DataError(
            f"{file}: {len(report.faults)} faults, the first on line {report.faults[0].line}; "
            "correct what is listed and check again"
        )
