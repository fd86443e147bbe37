"""Which rounds are rolled back, and which is the last, as their decision.json says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from selfinstruct_train.run.stage import ROLLED_BACK, Contents
from selfinstruct_train.run.stores import read_json


class _Decision(BaseModel):
    """What is read here of a round's decision.json."""

    model_config = ConfigDict(extra="ignore")

    rolled_back: bool = False
    action: str = ""


def is_rolled_back(decision: Path) -> bool:
    """Whether a round is rolled back; one that is not decided is not.

    Args:
        decision: the round's decision.json, there or not.

    Raises:
        DataError: the file is damaged.
    """
    return decision.exists() and read_json(decision, _Decision, "restore the file").rolled_back


def is_last(decision: Path) -> bool:
    """Whether no round follows, as was decided; before that it is not.

    Args:
        decision: the round's decision.json, there or not.

    Raises:
        DataError: the file is damaged.
    """
    if not decision.exists():
        return False
    return read_json(decision, _Decision, "restore the file").action == "stop"


def with_rolled_back(
    contents: Contents, run: Path, number: int, undecided: Collection[int] = ()
) -> Contents:
    """What a round depends on, with the earlier rounds of which it reads no row.

    Args:
        contents: hashes of the data and models that results depend on.
        run: the run directory.
        number: the round, counted from 0.
        undecided: rounds whose decision is about to be made again.
    """
    found = [
        str(i)
        for i in range(number)
        if i not in undecided and is_rolled_back(run / f"round-{i}" / "decision.json")
    ]
    return {**contents, ROLLED_BACK: ", ".join(found) or "none"}
