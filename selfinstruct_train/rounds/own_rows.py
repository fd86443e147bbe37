"""Did a round write enough to train on? Without rows of its own, a tuned model shows the seeds."""

from __future__ import annotations

import itertools
from collections import Counter

from selfinstruct_train.config import Config
from selfinstruct_train.errors import RunError
from selfinstruct_train.records import Rejection
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import RowStore


def require_finished_data(config: Config, directory: RoundDirectory) -> None:
    """See that the data of a round is finished, where the config has it written.

    Args:
        config: the run's settings.
        directory: the round.

    Raises:
        RunError: it is not.
    """
    last = "selection" if config.generation.select.is_on else "instances"
    if config.generates and directory.read_mark(last) is None:
        raise RunError(
            f"{directory.path}: has no finished data to train on; run 'selfinstruct generate' first"
        )


def require_own_rows(rows: LiveRows, directory: RoundDirectory) -> None:
    """See that a round has a row to train on.

    Args:
        rows: the live rows of the run.
        directory: the round, whose instances are finished.

    Raises:
        RunError: it has none.
    """
    if next(rows.instances_of(directory), None) is not None:
        return
    paths = (directory.rejected("instructions"), directory.rejected("instances"))
    dropped = (RowStore(path, Rejection, writable=False).stream() for path in paths)
    reasons = Counter(row.reason for row in itertools.chain(*dropped))
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    raise RunError(
        f"{directory.path}: nothing that the model wrote can be trained on "
        f"({'dropped: ' + told if told else 'it wrote nothing that could be read'}); see "
        f"{directory.rejected('instances').parent}, name a better model or change the settings "
        "under generation, and add --redo instructions to the command"
    )


def too_few_rows(count: int, fewest: int) -> str | None:
    """What to warn of where few rows of the model's own are trained on.

    Args:
        count: rows that the model wrote.
        fewest: ``training.min_rows``.
    """
    if count >= fewest:
        return None
    return (
        f"only {count} of the rows trained on were written by the model (training.min_rows is "
        f"{fewest}), so the comparison says little about its own data; raise "
        "generation.instructions_per_round, or rounds"
    )
