import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dev import architecture

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "selfinstruct_train"
STAGES = ("generation", "training", "evaluation")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def own(path: Path) -> set[str]:
    prefix = "selfinstruct_train."
    return {name.removeprefix(prefix) for name in imported(path) if name.startswith(prefix)}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    others = {other for other in STAGES if other != stage}
    for path in files(stage):
        assert not {name.split(".")[0] for name in own(path)} & others, path


@pytest.mark.parametrize("folder", [*STAGES, "engines", "models", "text", "judging", "microworld"])
def test_nothing_below_imports_the_loop_the_report_or_the_programs(folder: str) -> None:
    above = {"rounds", "report", "cli"}
    for path in files(folder):
        assert not {name.split(".")[0] for name in own(path)} & above, path


def test_imports_run_downwards_only() -> None:
    unknown = set(architecture.parts()) - set(architecture.ORDER)
    assert not unknown, "give it its place in ORDER of dev/architecture.py"
    for place, part in enumerate(architecture.ORDER):
        below = set(architecture.ORDER[:place])
        if part in architecture.parts():
            assert architecture.imports(part) <= below, part


def test_only_the_report_and_the_command_line_know_the_ratings() -> None:
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        knows = any(name.split(".")[0] == "rating" for name in own(path))
        assert not knows or folder in ("rating", "report", "cli"), path


def test_the_ratings_know_no_report_and_no_loop() -> None:
    for path in files("rating"):
        assert not {name.split(".")[0] for name in own(path)} & {"rounds", "report", "cli"}, path


def test_engines_know_no_stage() -> None:
    for path in files("engines"):
        assert not {name.split(".")[0] for name in own(path)} & set(STAGES), path


def test_records_and_errors_stand_at_the_bottom() -> None:
    assert own(PACKAGE / "bounds.py") == set()
    assert {name.split(".")[0] for name in own(PACKAGE / "records.py")} == {"bounds"}
    assert own(PACKAGE / "errors.py") == set()
    for path in files("config"):
        assert {name.split(".")[0] for name in own(path)} <= {
            "bounds",
            "config",
            "errors",
            "text",
        }, path


def test_the_loop_knows_no_report() -> None:
    assert not any(name.startswith("report") for name in own(PACKAGE / "rounds" / "loop.py"))


def test_trl_and_peft_stay_where_adapters_are_made_or_switched() -> None:
    for path in PACKAGE.rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)}
        folder = path.relative_to(PACKAGE).parts[0]
        assert "trl" not in tops or folder == "training", path
        assert "peft" not in tops or folder in ("training", "models"), path


def test_no_remote_code_and_no_pickled_weights() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "recipes").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
            if isinstance(node, ast.keyword) and node.arg == "use_safetensors":
                assert isinstance(node.value, ast.Constant) and node.value.value is True, path


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from selfinstruct_train.cli.app import app; heavy = "
        "{'torch', 'transformers', 'datasets', 'numpy', 'pydantic'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_the_recipes() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not any(name.split(".")[0] == "recipes" for name in imported(path)), path
