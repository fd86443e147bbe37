"""Commands about data: what there is, how it comes here, and the novelty test alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def dedup(
    pool: Annotated[list[Path], typer.Option(help="Instructions already known; may be repeated.")],
    candidates: Annotated[list[Path], typer.Option(help="Instructions that ask to join.")],
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Highest ROUGE-L F1 that is new.")
    ] = 0.7,
    tokenizer: Annotated[
        Literal["auto", "rouge", "unicode"],
        typer.Option(help="rouge (ASCII, as the paper), unicode, or auto: by the script."),
    ] = "auto",
) -> None:
    """Exact ROUGE-L novelty test: a JSON line per candidate, in order."""
    from selfinstruct_train.generation.dedup import dedup as stream

    for row in stream(pool, candidates, threshold, tokenizer):
        print(row.model_dump_json(), flush=True)


def data_list() -> None:
    """Show what can be pulled or is here."""
    from selfinstruct_train.sources.fetch import describe_sources

    for line in describe_sources():
        print(line)


def data_pull(
    name: Annotated[str, typer.Argument(help="A name that 'data list' shows.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Local file or folder, or another address.")
    ] = None,
) -> None:
    """Fetch a data set once, check its hash and keep it."""
    from selfinstruct_train.sources.fetch import pull

    print(pull(name, source))
