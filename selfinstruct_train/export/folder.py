"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfinstruct_train.errors import RunError, write_fault

CARD = "README.md"
TAG = "selfinstruct-train"
"""In every card: a folder whose card has it is an export, and may be written again."""


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Write a folder beside its place, and put it there when it is complete.

    Args:
        target: the folder; an earlier export there is replaced.

    Yields:
        An empty folder to write to.

    Raises:
        RunError: the place holds something else, or cannot be written.
    """
    scratch = target.with_name(f"{target.name}.partial")
    try:
        if target.is_file() or (target.is_dir() and any(target.iterdir()) and not _is_own(target)):
            raise RunError(
                f"{target}: holds something that is no export; give another folder with --output"
            )
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    except Exception as error:
        if (reason := write_fault(error)) is None:
            raise
        raise RunError(
            f"{target}: cannot be written ({reason}); make room, or give another folder with "
            "--output"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    card = folder / CARD
    return card.is_file() and TAG in card.read_text("utf-8", errors="replace")
