"""The command that forecasts what a run will take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from selfinstruct_train.cli.options import AsJson, Overrides, to_json

_UNITS = {"s": 1, "m": 60, "h": 3600}


def plan(
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file with the settings; without, --from RUN is held against it."),
    ] = None,
    overrides: Overrides = None,
    on: Annotated[
        Literal["H100", "A100-80", "L4", "4090", "cpu"],
        typer.Option(help="Machine to plan for; cpu is this one."),
    ] = "cpu",
    price: Annotated[float | None, typer.Option(min=0.0, help="Of an hour on it.")] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", help="Run directory whose yields are expected again."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            help="Write for so long, such as 2m, on this machine, and plan by what that shows."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast tokens, steps, memory, hours and money; without --probe no model is loaded."""
    from selfinstruct_train.config import explaining_paths, load_config
    from selfinstruct_train.errors import ConfigError
    from selfinstruct_train.planning.compare import compare
    from selfinstruct_train.planning.expected import read_earlier
    from selfinstruct_train.planning.words import compared_lines, plan_lines
    from selfinstruct_train.text.characters import printable

    if probe is not None and (config is None or earlier is not None):
        raise ConfigError("--probe: needs a config, and stands in place of --from; leave one out")
    seconds = 0.0 if probe is None else duration(probe)
    if config is None:
        if earlier is None:
            raise ConfigError("plan: no config and no run; name a config file, or --from RUN")
        compared = compare(earlier)
        rows = [to_json(row.model_dump()) for row in compared]
        print("\n".join(rows if as_json else compared_lines(compared)))
        return
    settings = load_config(config, overrides or ())
    from selfinstruct_train.rounds.inputs import read_files

    with explaining_paths(config, settings.model_dump(mode="json")):
        before = None if earlier is None else read_earlier(earlier)
        inputs = read_files(settings)
        probed = None
        if probe is not None:
            from selfinstruct_train.planning.probe import probe as write

            probed = write(settings, seconds, lambda text: print(text, file=sys.stderr))
        from selfinstruct_train.planning.plan import make_plan  # loads torch

        found = make_plan(settings, on, price, before, probed, inputs)
    if as_json:
        print(to_json(found.model_dump(mode="json")))
    else:
        print("\n".join(printable(line) for line in plan_lines(found)))


def duration(text: str) -> float:
    """Seconds of a time such as 90s, 2m or 1h; a number alone is seconds.

    Raises:
        ConfigError: it is none, or zero.
    """
    from selfinstruct_train.errors import ConfigError

    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdigit() or len(number) > 6 or int(number) == 0:
        raise ConfigError(f"--probe: {text!r} is not a time; write it like 90s, 2m or 1h")
    return float(int(number) * _UNITS[unit])
