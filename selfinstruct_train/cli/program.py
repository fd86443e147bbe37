"""How every program of the package starts and ends, be it the command line or a recipe."""

from __future__ import annotations

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_train.cli.options import shipped_config
from selfinstruct_train.cli.signals import Stopped, end_with_launcher, stopping_on_signals
from selfinstruct_train.cli.steps import say_begin
from selfinstruct_train.distributed import has_lost_peer, is_launched
from selfinstruct_train.environment import prepare_environment
from selfinstruct_train.errors import SelfInstructError
from selfinstruct_train.text.characters import printable

if TYPE_CHECKING:
    from selfinstruct_train.config import Config
    from selfinstruct_train.rounds.inputs import Stage
    from selfinstruct_train.rounds.loop import Loop


def guard(program: Callable[[], None]) -> None:
    """Run a program; turn what the user can fix into one sentence and exit code 2."""
    prepare_environment()
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PrintableFormatter())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Rows are UTF-8 whatever the locale is; a name that is not is shown, not refused.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    end_with_launcher()
    try:
        with stopping_on_signals():
            program()
    except SelfInstructError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        _say_stopped(f" by {stopped.name}")
        sys.exit(128 + stopped.number)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except RuntimeError as error:
        # With the launcher's other processes; what the first of them said is the reason.
        if not is_launched() or not has_lost_peer(error):
            raise
        print(
            "error: another process of this run has ended or cannot be reached, so this one ends; "
            "run the same command again",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        _say_stopped()
        sys.exit(130)
    except SystemExit as end:
        # The command-line library turns Ctrl-C into this code by itself, without a word.
        if end.code == 130:
            _say_stopped()
        raise


def _say_stopped(by: str = "") -> None:
    print(f"\nstopped{by}; run the same command to go on", file=sys.stderr)


class _PrintableFormatter(logging.Formatter):
    """Warnings quote servers and files, whose control characters are not for the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def open_loop(config: Config, file: Path, stages: tuple[Stage, ...], redo: str | None) -> Loop:
    """Open the run of a config file: what is wrong with its settings and files is told at once.

    Args:
        config: the settings.
        file: where they are from.
        stages: what will be done.
        redo: a stage to make again, with all that depends on it.

    Raises:
        SelfInstructError: a setting, a data file, the run directory or the model is at fault.
    """
    from selfinstruct_train.config import explaining_paths
    from selfinstruct_train.rounds.inputs import read_inputs

    with explaining_paths(file, config.model_dump(mode="json")):
        inputs = read_inputs(config, stages)
        say_begin(stages, file)
        from selfinstruct_train.rounds.loop import Loop  # loads torch

        return Loop(config, stages, redo, inputs)


def finish_run(loop: Loop) -> None:
    """Write the report of a run and say where it is."""
    if not loop.world.is_main:
        return
    from selfinstruct_train.planning.compare import write_forecast
    from selfinstruct_train.report.facts import read_facts
    from selfinstruct_train.report.headline import closing_lines
    from selfinstruct_train.report.page import write_report
    from selfinstruct_train.run.directory import RunDirectory

    loop.progress.close()
    try:
        write_forecast(RunDirectory(loop.run.path))
    except SelfInstructError as error:  # a report without it is better than none
        print(printable(f"no forecast to compare with: {error}"), file=sys.stderr)
    facts = read_facts(loop.run)
    page = write_report(loop.run, facts)
    for line in closing_lines(facts):
        print(printable(line))
    print(f"report: {page.resolve()}")
    print(f"next: selfinstruct report {shlex.quote(str(loop.run.path))} --open")


def run_recipe(
    description: str | None,
    main: Callable[[Loop], None],
    stages: tuple[Stage, ...] = ("generate", "train", "evaluate"),
) -> None:
    """Open the run that the command line names and tell its story.

    Args:
        description: the recipe's docstring, shown by ``--help``.
        main: what the recipe does with the opened run.
        stages: which stages that takes; by default all.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the settings")
    parser.add_argument("--output-dir", type=Path, help="run directory, instead of the config's")
    parser.add_argument("--redo", help="stage to make again, with all that depends on it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    arguments = parser.parse_args()

    def program() -> None:
        # Imported here, because torch must find the environment that guard() prepares.
        from selfinstruct_train.config import load_config

        file = shipped_config(arguments.config)
        config = load_config(file, arguments.overrides, arguments.output_dir)
        main(open_loop(config, file, stages, arguments.redo))

    guard(program)
