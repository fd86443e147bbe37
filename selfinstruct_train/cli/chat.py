"""Asking the base and the tuned model of a run in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_train.cli.options import RunArgument
from selfinstruct_train.text.characters import printable

if TYPE_CHECKING:
    from selfinstruct_train.export.chat import Answers


def chat(
    run_directory: RunArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Which round's model; the best by default.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
) -> None:
    """Ask base and tuned model side by side. From a pipe: a question a line, input after a tab."""
    from selfinstruct_train.export.chat import Chat
    from selfinstruct_train.run.directory import RunDirectory

    opened = Chat(RunDirectory(run_directory), round_number, max_tokens)
    print(f"tuned: {opened.trained.description}; an empty line ends", file=sys.stderr)
    for instruction, given in _questions():
        _show(opened.ask(instruction, given))


def _questions() -> Iterator[tuple[str, str]]:
    if not sys.stdin.isatty():
        for line in sys.stdin:
            instruction, _, given = line.rstrip("\r\n").partition("\t")
            if instruction.strip():
                yield instruction, given
        return
    try:
        while instruction := input("\ninstruction> ").strip():
            yield instruction, input("      input> ").strip()
    except EOFError:
        return


def _show(answers: Answers) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("base", "tuned", expand=True)
    # Text that a model wrote is no markup.
    table.add_row(Text(printable(answers.base)), Text(printable(answers.tuned)))
    Console().print(table)
