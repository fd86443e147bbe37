"""Arguments and options that several commands take, and how figures are printed as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, overload

import typer


@overload
def shipped_config(path: Path) -> Path: ...
@overload
def shipped_config(path: None) -> None: ...
def shipped_config(path: Path | None) -> Path | None:
    """The config file of a name: where the program runs, else one that ships with the package.

    Args:
        path: such as ``configs/quickstart.yaml``.
    """
    from selfinstruct_train.sources.fetch import find_own

    if path is None or path.parts[:1] != ("configs",) or path.exists():
        return path
    return find_own(str(path)) or path


ConfigArgument = Annotated[
    Path,
    typer.Argument(
        help="YAML file with the settings of the run; --config FILE too.", callback=shipped_config
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, as key.sub=value.", show_default=False),
]
OutputDir = Annotated[Path | None, typer.Option(help="Run directory, instead of the config's.")]
Redo = Annotated[
    str | None,
    typer.Option(
        help="Stage to make again, with all that depends on it: instructions, classification, "
        "instances, train, seeds-only, evaluate or judge. Old results are moved to replaced/."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
SuiteOption = Annotated[
    str, typer.Option(help="Suite: a name that 'data list' shows, or a JSONL file.")
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]


def to_json(row: dict[str, object]) -> str:
    """A row as one line of JSON."""
    import json

    return json.dumps(row, ensure_ascii=False)
