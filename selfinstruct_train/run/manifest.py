"""manifest.json: every start of a run, with the machine and the packages of each."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.run import machine
from selfinstruct_train.run.marks import FORMAT, require_known_format
from selfinstruct_train.run.stores import write_atomically

_PACKAGES = (
    "selfinstruct-train",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "rouge-score",
)


class Start(BaseModel):
    """One start of a run: by which command, on which machine, with which packages."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: str = ""
    """UTC, ISO 8601."""
    command: tuple[str, ...] = ()
    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    cores: int | None = None
    memory_gib: float | None = None
    accelerators: tuple[str, ...] = ()
    """Names of the CUDA devices."""
    commit: str | None = None
    """Of the package's checkout; None where it is installed from a wheel."""
    packages: Mapping[str, str | None] = {}


class Manifest(BaseModel):
    """manifest.json: every start of a run, the first one first."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = FORMAT
    starts: tuple[Start, ...] = ()


def read_manifest(path: Path) -> Manifest:
    """The starts so far; a damaged file is put aside, for no result depends on it.

    Raises:
        RunError: a newer version of the package wrote it.
    """
    if not path.exists():
        return Manifest()
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except ValidationError:
        path.replace(path.with_name(f"{path.name}.damaged"))
        return Manifest()
    require_known_format(path, found.format)
    return found


def add_start(path: Path, before: Manifest) -> tuple[str, ...]:
    """Write down this start.

    Args:
        path: of the file.
        before: the starts until now.

    Returns:
        Packages that changed since the last one, in one sentence, or nothing.
    """
    start = Start(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(sys.argv),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=machine.processor(),
        cores=os.cpu_count(),
        memory_gib=machine.memory_gib(),
        accelerators=machine.accelerators(),
        commit=machine.commit(),
        packages={name: _version(name) for name in _PACKAGES},
    )
    manifest = before.model_copy(update={"starts": (*before.starts, start)})
    write_atomically(path, manifest.model_dump_json(indent=1) + "\n")
    last = before.starts[-1].packages if before.starts else {}
    changed = [
        f"{name} {last[name]} -> {now}"
        for name, now in start.packages.items()
        if name in last and last[name] != now
    ]
    if not changed:
        return ()
    return (
        f"packages changed since the last start: {', '.join(changed)}; what is written from here "
        f"on may differ from what they would have written before ({path.name} keeps every start)",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
