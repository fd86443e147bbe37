"""What a user can fix: one sentence, no traceback, exit code 2."""

from __future__ import annotations


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
