"""What every section of the config is made of."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Base of every section: unknown keys, ``true`` for a number and blank texts are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _means_what_it_says(cls, given: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(given, bool) and not _takes_bool(field.annotation):
            raise ValueError("should not be true or false (yes, no, on and off mean the same)")
        # A field with a check of its own says better what it takes.
        blank = isinstance(given, str) and not given.strip() and not field.metadata
        if blank and field.default != "":
            left = "" if field.is_required() else "; leave the line out for the default"
            raise ValueError(f"should not be empty{left}")
        return given


def _takes_bool(kind: object) -> bool:
    return kind is bool or isinstance(kind, bool) or any(map(_takes_bool, get_args(kind)))
