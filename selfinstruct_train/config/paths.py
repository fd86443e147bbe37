"""Paths in a config file: relative to the file's folder first, then to the working folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfinstruct_train.errors import SelfInstructError

_SETTINGS = (
    "model.name_or_path",
    "seeds.path",
    "data",
    "generation.prompts",
    "generation.personas",
    "generation.texts",
    "generation.filters.toxicity.model",
    "generation.instances.chooser_program",
    "training.replay_prompts",
    "evaluation.suites",
    "evaluation.published",
    "evaluation.held_out_text",
    "evaluation.harness.include_path",
    "evaluation.judge.model.name_or_path",
    "evaluation.judge.pairwise_prompt",
    "evaluation.judge.grade_prompt",
)
"""Settings that may be paths of what is there already; ``output_dir`` is not one of them."""
_MARKERS = ("pack.yaml", "config.json", "splits/default/test_tasks.txt")
"""What makes a folder with the name of a pack, a model or a suite one of them."""


def settle_paths(data: dict[str, Any], folder: Path) -> None:
    """Replace the relative paths of a config that are found beside it, in place.

    Args:
        data: the config as it was read; sections may be missing or malformed.
        folder: of the config file.
    """
    for section, last in _sections(data):
        given = section[last]
        if isinstance(given, list):
            section[last] = [_beside(value, folder) for value in given]
        else:
            section[last] = _beside(given, folder)


@contextmanager
def explaining_paths(file: Path, data: dict[str, Any]) -> Iterator[None]:
    """Where an error names a path of a config that is nowhere, say where it was looked for.

    Args:
        file: the config file.
        data: the resolved config.

    Raises:
        SelfInstructError: the same error, with both places.
    """
    try:
        yield
    except SelfInstructError as error:
        nowhere = [value for value in _paths(data) if not Path(value).exists()]
        if not any(value in str(error) for value in nowhere):
            raise
        raise type(error)(
            f"{error} (relative paths are looked for in the folder of the config file, "
            f"{file.parent.absolute()}, and then in the working folder, {Path.cwd()})"
        ) from None


def _sections(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for setting in _SETTINGS:
        *parents, last = setting.split(".")
        section: Any = data
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and last in section:
            yield section, last


def _paths(data: dict[str, Any]) -> Iterator[str]:
    for section, last in _sections(data):
        given = section[last]
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str) and _is_relative(value) and not _is_name(value):
                yield value


def _beside(value: object, folder: Path) -> object:
    if not isinstance(value, str) or not _is_relative(value):
        return value
    path = folder / value
    try:
        there = _is_data(path) if _is_name(value) else path.exists()
    except (OSError, ValueError):  # no path at all, as the check of the setting will say
        return value
    return str(path.absolute()) if there else value


def _is_relative(value: str) -> bool:
    return bool(value) and not value.startswith("~") and not Path(value).is_absolute()


def _is_name(value: str) -> bool:
    return len(Path(value).parts) == 1 and not Path(value).suffix


def _is_data(path: Path) -> bool:
    return path.is_file() or any((path / marker).is_file() for marker in _MARKERS)
