"""Draw docs/architecture.md: the packages, and which imports which.

``python -m dev.architecture`` after a change; a test compares.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "selfinstruct_train"
PAGE = ROOT / "docs" / "architecture.md"

ORDER = (
    *("errors", "environment", "bounds", "records", "statistics", "microworld", "text", "progress"),
    *("distributed", "config", "sources", "packs", "templates", "chat", "run", "models", "engines"),
    *("contamination", "judging", "generation", "training", "evaluation"),
    *("rounds", "planning", "export", "rating", "report", "cli"),
)
"""From the bottom to the top: each imports only what stands before it."""

_HEAD = """# Architecture

Drawn by `python -m dev.architecture` from the import statements in the code, those inside functions
included; a test compares. Imports run downwards only (`tests/test_architecture.py`), and of the
stages `generation`, `training` and `evaluation` none imports another. What a run leaves on disk,
and why the parts are cut as they are, is in [design.md](design.md).

An arrow says "imports". An arrow that follows from others is left out of the picture; the table has
them all. The small modules at the bottom, which nearly all import, are left out too.
"""
_EVERYWHERE = frozenset(ORDER[: ORDER.index("config") + 1]) - {"text", "microworld"}


def parts() -> list[str]:
    """Packages and modules at the top of the package, from the bottom up; unknown ones last."""
    found = {path.stem for path in PACKAGE.glob("*.py")}
    found |= {p.parent.name for p in PACKAGE.glob("*/*.py") if not p.parent.is_symlink()}
    found.discard("__init__")
    known = [name for name in ORDER if name in found]
    return known + sorted(found - set(known))


def imports(part: str) -> set[str]:
    """The other parts that a part imports, wherever in its files."""
    module = PACKAGE / f"{part}.py"
    found: set[str] = set()
    for path in [module] if module.exists() else (PACKAGE / part).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= _part(node.module)
            elif isinstance(node, ast.Import):
                found = found.union(*(_part(alias.name) for alias in node.names))
    return (found & set(parts())) - {part}


def render() -> str:
    """The page as text."""
    names = parts()
    arrows = {name: imports(name) for name in names}
    shown = {name: arrows[name] - _EVERYWHERE for name in names if name not in _EVERYWHERE}
    lines = [
        f"  {name} --> {other}"
        for name in reversed(list(shown))
        for other in reversed(names)
        if other in _needed(name, shown)
    ]
    lone = [f"  {name}" for name in shown if not any(name in line.split() for line in lines)]
    picture = "\n".join(["```mermaid", "flowchart TD", *lines, *lone, "```"])
    rows = "".join(
        f"| `{name}` | {_purpose(name)} | {', '.join(n for n in names if n in arrows[name])} |\n"
        for name in reversed(names)
    )
    return f"{_HEAD}\n{picture}\n\n| Part | What it is | Imports |\n|---|---|---|\n{rows}"


def _part(module: str) -> set[str]:
    head, _, rest = module.partition(".")
    return {rest.split(".")[0]} if head == PACKAGE.name and rest else set()


def _needed(name: str, arrows: dict[str, set[str]]) -> set[str]:
    """The arrows that do not follow from others."""
    return {
        other
        for other in arrows[name]
        if not any(other in _reached(step, arrows) for step in arrows[name] - {other})
    }


def _reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = arrows.get(waiting.pop(), set()) - found
        found |= fresh
        waiting += fresh
    return found


def _purpose(part: str) -> str:
    module = PACKAGE / f"{part}.py"
    path = module if module.exists() else PACKAGE / part / "__init__.py"
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(said.split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
