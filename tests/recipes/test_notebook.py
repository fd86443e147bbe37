"""The notebook for a free GPU, its cells run one after another on the embedded model."""

import ast
import builtins
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.recipes.conftest import ROOT, SMALL, environment

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TINY = (
    *SMALL,
    "generation.instructions_per_round=2",
    "training.max_steps=2",
    "evaluation.seeds_only=false",
    "evaluation.few_shot_demonstrations=0",
    "rounds=1",
)


def shell(line: str, names: dict[str, object]) -> str:
    """A line of a cell for the shell, with this checkout's program."""
    program, *arguments = shlex.split(line.format(**names))
    if program == "pip":  # what it installs is here
        assert arguments[-1] == "selfinstruct-train"
        return ""
    assert program == "selfinstruct"
    if arguments[0] == "run":
        arguments += TINY
    command = [sys.executable, "-m", "selfinstruct_train.cli.app", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def as_python(source: str) -> ast.Module:
    """A cell as Jupyter would run it: lines for the shell and the folder become calls."""
    lines = []
    for line in source.split("\n"):
        if line.startswith("!"):
            line = f"_shell({line[1:]!r})"
        elif line.startswith("%cd "):
            line = f"_cd({line[4:]!r})"
        lines.append(line)
    return ast.parse("\n".join(lines))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_the_cells_run_from_the_top_to_the_end(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    display = ModuleType("IPython.display")
    display.HTML = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    names: dict[str, object] = {"_cd": os.chdir}
    names["_shell"] = lambda line: shell(line, names)
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            # The one thing that is another here: the model.
            source = "".join(cell["source"]).replace('"HuggingFaceTB/SmolLM2-360M"', '"embedded"')
            builtins.exec(compile(as_python(source), path.name, "exec"), names)
    assert names["MODEL"] == "embedded"
    (page,) = shown
    assert page.startswith("<!doctype html>")
    merged = tmp_path / "mydomain/runs/short"
    assert list(merged.rglob("model.safetensors")) and list(merged.rglob("*.jsonl"))
