"""How a pack words operations: each makes a new instruction of one that is there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.text.yaml_text import WordsLoader, read_yaml

OPERATIONS_FILE = "operations.yaml"


class OperationExample(BaseModel):
    """An instruction before and after."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(min_length=1)
    value: str | None = None
    """Which of the operation's values it shows; None where it has none."""
    result: str = Field(min_length=1)


class Operation(BaseModel):
    """An operation: a header, worked examples, and the label after which the result stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    header: str
    """Says what becomes of each task."""
    label: str
    """Stands before the result; holds ``{value}`` where the operation has values."""
    answer_changes: bool = False
    """Whether the new instruction wants another answer: one that has the answer of the instruction
    it was made of asks for nothing new."""
    values: tuple[str, ...] = ()
    """What it can be done to, such as the fields that a task is carried over to; one is drawn."""
    examples: tuple[OperationExample, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _values_are_shown(self) -> Operation:
        if ("{value}" in self.label) != bool(self.values):
            raise ValueError("label must hold {value} where there are values, and only there")
        for example in self.examples:
            if (example.value is not None) != bool(self.values):
                raise ValueError(
                    f"the example {example.task[:40]!r} must name a value where there are values, "
                    "and only there"
                )
        return self

    def label_of(self, value: str | None) -> str:
        """The label before a result."""
        return self.label if value is None else self.label.replace("{value}", value)

    def shown(self, value: str | None) -> tuple[OperationExample, ...]:
        """Examples for a prompt: those of the value where there are any, else all."""
        own = tuple(example for example in self.examples if example.value == value)
        return own or self.examples

    @property
    def hash(self) -> str:
        """16 hex digits that change when any text of the operation's prompts changes."""
        return hashlib.sha256(
            self.model_dump_json(exclude={"answer_changes"}).encode()
        ).hexdigest()[:16]


Operations = dict[str, Operation]
"""By name."""
_OPERATIONS = TypeAdapter(Operations)


def read_operations(folder: Path) -> Operations:
    """The operations that a pack words; none where it has no ``operations.yaml``.

    Raises:
        ConfigError: the file is malformed.
    """
    path = folder / OPERATIONS_FILE
    if not path.is_file():
        return {}
    try:
        return _OPERATIONS.validate_python(read_yaml(path, WordsLoader))
    except ValidationError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def require_operations(known: Operations, asked: list[str], pack: str) -> None:
    """See that a pack words what is asked for.

    Raises:
        ConfigError: it does not word one of them.
    """
    if missing := [name for name in asked if name not in known]:
        raise ConfigError(
            f"generation.augment.operations: the pack '{pack}' does not word '{missing[0]}', only "
            f"{', '.join(known) or 'none'}; add it to the pack's {OPERATIONS_FILE}, or leave it out"
        )
