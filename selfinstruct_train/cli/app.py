"""The command line. Heavy imports stay inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from selfinstruct_train.cli import begin, chat, data, export, inspect, pack, plan, run, seeds
from selfinstruct_train.cli.program import guard

app = typer.Typer(
    name="selfinstruct",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Seed tasks, suites and published predictions.", no_args_is_help=True)
app.add_typer(data_app, name="data")
export_app = typer.Typer(
    help="Take the data or the model of a run elsewhere.", no_args_is_help=True
)
app.add_typer(export_app, name="export")
pack_app = typer.Typer(help="Packs: languages and domains.", no_args_is_help=True)
app.add_typer(pack_app, name="pack")
for command in (
    begin.quickstart,
    begin.init,
    begin.schema,
    run.run,
    run.generate,
    run.train,
    run.evaluate,
    inspect.score,
    inspect.compare,
    inspect.judge,
    data.dedup,
    plan.plan,
    run.validate,
    run.preview,
    run.doctor,
    inspect.status,
    run.prune,
    inspect.report,
    inspect.explain,
    inspect.stats,
    inspect.rounds,
    chat.chat,
    inspect.rate,
    inspect.ratings,
):
    app.command()(command)
seeds_app = typer.Typer(help="Seed tasks of your own.", no_args_is_help=True)
app.add_typer(seeds_app, name="seeds")
seeds_app.command("check")(seeds.seeds_check)
data_app.command("list")(data.data_list)
data_app.command("pull")(data.data_pull)
pack_app.command("check")(pack.pack_check)
export_app.command("data")(export.export_data)
export_app.command("model")(export.export_model)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """A language model teaches itself.

    It writes its own instruction data, is fine-tuned on it, is measured against the model it was,
    and goes round again.
    """
    if version:
        from importlib.metadata import version as installed

        print(f"selfinstruct-train {installed('selfinstruct-train')}")
        raise typer.Exit


def main() -> None:
    """Run the command line: user faults end in one sentence and exit code 2."""
    arguments = _config_first(_spread(sys.argv[1:], ("--pool", "--candidates", "--ids")))
    guard(lambda: app(args=arguments, prog_name="selfinstruct"))


def _config_first(arguments: list[str]) -> list[str]:
    """Let ``--config FILE`` stand for the first argument, as the recipes name it."""
    for place, argument in enumerate(arguments):
        option, mark, file = argument.partition("=")
        if option == "--config" and mark:
            return [arguments[0], file, *arguments[1:place], *arguments[place + 1 :]]
        if option == "--config" and place + 1 < len(arguments):
            file = arguments[place + 1]
            return [arguments[0], file, *arguments[1:place], *arguments[place + 2 :]]
    return arguments


def _spread(arguments: list[str], options: tuple[str, ...]) -> list[str]:
    """Let ``--pool a b`` stand for ``--pool a --pool b``, as shells expand a pattern."""
    spread: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else None
        elif option and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread


if __name__ == "__main__":
    main()
