"""What a user can fix: one sentence, no traceback, exit code 2."""

from __future__ import annotations

import errno

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OF_TORCH = ("PytorchStreamWriter", "inline_container", "iostream")


class SelfInstructError(Exception):
    """A fault that the user can fix; its text names the place and the fix."""


class ConfigError(SelfInstructError):
    """A setting is unknown, malformed or contradicts another."""


class DataError(SelfInstructError):
    """A data file is missing, malformed or not what it should be."""


class EngineError(SelfInstructError):
    """A model cannot be loaded, reached or asked."""


class RunError(SelfInstructError):
    """A run directory is not in the state that the command needs."""


class TrainingError(SelfInstructError):
    """Training would not do, or did not do, what the settings promise."""


def is_disk_full(error: BaseException) -> bool:
    """Whether something could not be written for want of room, whoever says so.

    Torch writes its archives by itself, safetensors and tokenizers write in Rust: of these the
    first tells no number, and the others tell it in words, one of them in a bare ``Exception``.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    words = (*_OF_TORCH, *(f"os error {number}" for number in _NO_ROOM))
    return any(word in str(error) for word in words)


def write_fault(error: Exception) -> str | None:
    """What the system says of something that cannot be written; None where the error is another."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if is_disk_full(error) else None
