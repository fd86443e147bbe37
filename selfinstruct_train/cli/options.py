"""Arguments and options that several commands take, and how figures are printed as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    Path, typer.Argument(help="YAML file with the settings of the run; --config FILE too.")
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
