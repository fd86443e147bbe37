"""Write docs/settings.md, every setting with its meaning, and configs/schema.json.

``python -m dev.settings`` after a change in ``selfinstruct_train/config``; a test compares.
"""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from selfinstruct_train import config
from selfinstruct_train.config import Config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"
SCHEMA = ROOT / "configs" / "schema.json"
_HEAD = """# Settings

Every key of a config file, written by `python -m dev.settings` from `selfinstruct_train/config/`.
On the command line a key is set in dotted form, as in `selfinstruct run configs/quickstart.yaml
rounds=3 training.lora_r=8`. A run saves all of them, defaults included, in its `config.yaml`.
Unknown keys are refused, and the nearest known one is named.
"""
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below", "min_length": "at least"}


class Part(NamedTuple):
    """A section of the config."""

    key: str
    """Dotted; empty for the whole."""
    model: type[BaseModel]
    optional: bool
    """Whether it is left out by default."""


def render() -> str:
    """The page as text."""
    said = _docstrings()
    page, first = _HEAD, dict[type[BaseModel], str]()
    for part in _parts():
        if (known := first.setdefault(part.model, part.key)) != part.key:
            page += f"\n## `{part.key}`\n\nThe settings of `{known}`. Left out by default.\n"
        else:
            page += _section(part, said[part.model.__name__])
    return page


def render_schema() -> str:
    """The schema of config files as text."""
    return json.dumps(config.config_schema(), indent=1, ensure_ascii=False) + "\n"


def _parts(
    model: type[BaseModel] = Config, key: str = "", optional: bool = False
) -> Iterator[Part]:
    yield Part(key, model, optional)
    for name, field in model.model_fields.items():
        if (inner := _model_in(field)) is not None:
            optional = type(None) in get_args(field.annotation)
            yield from _parts(inner, f"{key}.{name}".lstrip("."), optional)


def _section(part: Part, said: dict[str, str]) -> str:
    title = f"`{part.key}`" if part.key else "The whole"
    left_out = " Left out by default." if part.optional else ""
    rows = [
        f"| `{name}` | {_values(field)} | {_default(field)} | {said.get(name, '')} |\n"
        for name, field in part.model.model_fields.items()
        if _model_in(field) is None
    ]
    head = "| Setting | Values | Default | Meaning |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{said['']}{left_out}\n\n" + (head + "".join(rows) if rows else "")


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{word} {value}"
        for found in field.metadata
        for name, word in _BOUNDS.items()
        if (value := getattr(found, name, None)) is not None
    ]
    return " ".join([_type(field.annotation), *bounds])


def _type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"{_type(inner[0])}: {_type(inner[1])}"
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{json.dumps(value, default=str)}`"


def _docstrings() -> dict[str, dict[str, str]]:
    """Class -> setting -> what the docstring under it says; under "" what the class's says."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(Path(config.__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = {"": _plain(ast.get_docstring(node) or "")}
                for field, after in zip(node.body, node.body[1:], strict=False):
                    if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                        text = ast.literal_eval(after.value)
                        found[node.name][ast.unparse(field.target)] = _plain(text)
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
    SCHEMA.write_text(render_schema(), "utf-8")
