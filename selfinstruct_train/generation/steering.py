"""What the tasks of a request shall be like: attributes and a person, drawn for each request."""

from __future__ import annotations

from pathlib import Path

from selfinstruct_train.config import Config
from selfinstruct_train.errors import DataError
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Attribute
from selfinstruct_train.sources.reader import read_json_line, read_lines

PERSONA = "persona"
"""Name of the attribute that says whose tasks they are."""


def read_personas(personas: Path | tuple[str, ...]) -> tuple[str, ...]:
    """The persons that a config lists or a file holds.

    Args:
        personas: the persons, or a file with a person a line; a line of JSON has a field
            ``persona``.

    Raises:
        DataError: the file cannot be read, holds no person, or a line of JSON has no such field.
    """
    if not isinstance(personas, Path):
        return personas
    found = [_person(personas, number, line) for number, line in read_lines(personas)]
    if not found:
        raise DataError(f"{personas}: names no person; write a person a line")
    return tuple(dict.fromkeys(found))


class Steering:
    """Draws from what the config offers.

    Each attribute is drawn by a generator of its own, so that one that joins or leaves changes
    none of the others.
    """

    def __init__(self, config: Config, wording: Wording) -> None:
        generation = config.generation
        self._seed, self._wording = config.seed, wording
        self._offers = dict(generation.attributes)
        if personas := read_personas(generation.personas):
            self._offers[PERSONA] = dict.fromkeys(personas, 1.0)

    def draw(self, *place: object) -> tuple[Attribute, ...]:
        """What the tasks of a request are like; it follows from the run's seed and the place."""
        return tuple(
            Attribute(
                name=name,
                value=derived_rng(self._seed, *place, "attribute", name).choices(
                    list(values), list(values.values())
                )[0],
            )
            for name, values in self._offers.items()
        )

    def said(self, drawn: tuple[Attribute, ...]) -> str:
        """What a prompt says of it, a line for the person and one for the rest; may be empty."""
        wording = self._wording
        named = [
            wording.attribute.format(name=one.name, value=one.value)
            for one in drawn
            if one.name != PERSONA
        ]
        lines = [wording.persona.format(persona=one.value) for one in drawn if one.name == PERSONA]
        if named:
            lines.append(wording.attributes.format(attributes=wording.attribute_gap.join(named)))
        return "\n".join(lines)


def _person(path: Path, number: int, line: str) -> str:
    if not line.lstrip().startswith("{"):
        return line.strip()
    data = read_json_line(path, number, line)
    persona = data.get(PERSONA)
    if not isinstance(persona, str) or not persona.strip():
        raise DataError(
            f"{path}, line {number}: has no text '{PERSONA}'; write one, or a person a line "
            "without JSON"
        )
    return " ".join(persona.split())
