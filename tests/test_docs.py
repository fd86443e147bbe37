"""What README and docs tell the user to do exists and works."""

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

from dev import architecture
from selfinstruct_train.cli.app import app
from selfinstruct_train.config import Config, all_keys, load_config
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.packs.operations import Operation
from selfinstruct_train.records import SeedTask
from selfinstruct_train.sources.reader import read_seed_tasks

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "data/*/*.md",
        "configs/*.yaml",
        "recipes/*.py",
        "configs/*.md",
        "selfinstruct_train/starter/*.md",
    )
    for path in ROOT.glob(pattern)
    # The log and the changelog tell what was typed then.
    if path.name not in ("log.md", "CHANGELOG.md")
)
_SPAN = re.compile(r"`(selfinstruct (?:(?:data|pack) )?)([^`]+)`((?:\s·\s`[^`]+`)*)")
_LINE = re.compile(r"^[#\s]*(?:[A-Z]\w+:\s+)?(selfinstruct [a-z].*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_KEY = re.compile(r"`((?:model|seeds|generation|training|evaluation)\.[a-z0-9_.]+?)[=:`\s]")
_FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OVERRIDE = re.compile(r"(?<![\w.-])[a-z_]+(?:\.[a-z_0-9]+)*=[^\s`|]+")
_LEAST: dict[str, object] = {
    "model": {"name_or_path": "embedded"},
    "seeds": {"path": "microworld-seeds"},
    "evaluation": {"suites": ["microworld-dev"]},
    "output_dir": "run",
}
"""The settings that a config must have."""
_NOTATION = str.maketrans({"[": " ", "]": " ", "…": " "})


def commands(page: Path) -> Iterator[str]:
    """Commands that a page names, from lines of their own and from spans within text."""
    text = page.read_text("utf-8")
    found = _LINE.findall(text)
    if page.suffix == ".md":
        for start, first, more in _SPAN.findall(" ".join(text.split())):
            found += [start + rest for rest in (first, *re.findall(r"`([^`]+)`", more))]
    for command in found:
        yield from re.split(r"\s+&&\s+", command.split("  #")[0])


COMMANDS = sorted({(page.name, found) for page in PAGES for found in commands(page)})


def test_commands_are_found_in_readme_docs_and_configs() -> None:
    pages = {page for page, _ in COMMANDS}
    assert {"README.md", "rating.md", "judging.md", "quickstart.yaml"} <= pages


@pytest.mark.parametrize(("page", "text"), COMMANDS)
def test_every_command_that_is_named_exists_with_its_options(page: str, text: str) -> None:
    words = shlex.split(text.translate(_NOTATION))[1:]
    command: click.Command = typer.main.get_command(app)
    context = click.Context(command, info_name="selfinstruct")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{page}: no command '{name}' in '{text}'"
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_parser(context).parse_args(words)


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".md"], ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_programs_and_extras_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for recipe, config in re.findall(r"(recipes/\w+\.py) --config (\S+)", text):
        assert (ROOT / recipe).is_file() and (
            config in ("...", "CONFIG") or (ROOT / config).is_file()
        )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in re.findall(r"selfinstruct-train\[(\w+)\]", text):
        assert extra in project["optional-dependencies"], extra
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8"), target
    for module in re.findall(r"python -m (dev[\w.]*)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".md"], ids=lambda p: p.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    # A file of seeds has the name of a section.
    named = {key for key in _KEY.findall(text) if not key.endswith(".jsonl")}
    for block in _FENCE.findall(text):
        first = block.lstrip().partition(":")[0]
        if first in Config.model_fields:
            named |= set(keys(yaml.safe_load(block)))
    # What stands under these is the user's: settings to sweep, names of adapters, what is drawn.
    free = (
        *("training.sweep", "generation.engine.server_adapters"),
        *("generation.attributes", "generation.augment.operations"),
    )
    unknown = named - set(all_keys())
    assert {name for name in unknown if not name.startswith(free)} == set(), page


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".md"], ids=lambda p: p.name)
def test_every_example_of_settings_is_a_config_that_holds(page: Path) -> None:
    known = {key.rpartition(".")[2] for key in all_keys()}
    for block in _YAML.findall(page.read_text("utf-8")):
        first = re.match(r"(\s*)(\w+):", block)
        assert first is not None, block
        if first[1]:  # goes on with the block before it
            assert set(re.findall(r"^\s*(\w+):", block, re.MULTILINE)) <= known, block
        elif first[2] in Config.model_fields:
            Config.model_validate(joined(_LEAST, yaml.safe_load(block)))


def joined(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """Two configs in one; what the second says goes."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        found[key] = joined(under, value) if both else value  # type: ignore[arg-type]
    return found


def test_what_a_page_of_examples_would_not_let_pass() -> None:
    whole = joined({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}})
    assert whole == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    blocks = [b for page in PAGES for b in _YAML.findall(page.read_text("utf-8"))]
    assert len(blocks) >= 20 and any("toxicity" in block for block in blocks)


@pytest.mark.parametrize(("page", "text"), [(p, c) for p, c in COMMANDS if _OVERRIDE.search(c)])
def test_every_setting_on_a_command_line_is_taken(page: str, text: str, tmp_path: Path) -> None:
    overrides = [found for found in _OVERRIDE.findall(text) if found != "key=value"]
    named = re.search(r"configs/[\w.-]+\.yaml", text)
    config = ROOT / (named[0] if named else "configs/quickstart.yaml")
    load_config(config, [f"output_dir={tmp_path}", *overrides])


@pytest.mark.parametrize("page", [p for p in PAGES if p.suffix == ".md"], ids=lambda p: p.name)
def test_every_launcher_and_module_on_a_command_line_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for file in re.findall(r"--config_file (\S+)", text):
        assert (ROOT / file.strip("`")).is_file(), file
    for module in re.findall(r"-m (selfinstruct_train[\w.]*\w)", text):
        assert importlib.util.find_spec(module) is not None, module
    for module in re.findall(r"python -m (benchmarks[\w.]*\w)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for file in re.findall(r"^ *(?:sbatch|docker build .*-f|bash) (\S+)", text, re.MULTILINE):
        assert (ROOT / file).is_file(), file


def test_python_on_the_pages_runs() -> None:
    found = {
        page.name: block for page in PAGES for block in _PYTHON.findall(page.read_text("utf-8"))
    }
    assert found.keys() == {"better-answers.md", "export.md"}, "write a test for the new one"
    program: dict[str, Any] = {}
    exec(found["better-answers.md"], program)
    assert [program["score"]("Ask.", "", said) for said in ("Yes.", "Yes")] == [1.0, 0.0]
    # tests/export/test_data.py reads every export in this way.
    (imported, _) = ast.parse(found["export.md"]).body
    exec(ast.unparse(imported), program)
    assert callable(program["load_dataset"])


def test_rows_on_the_pages_are_read(tmp_path: Path) -> None:
    def row_of(name: str) -> Path:
        page = (ROOT / "docs" / name).read_text("utf-8")
        row = next(b for b in _FENCE.findall(page) if b.lstrip().startswith('{"id"'))
        path = tmp_path / f"{name}.jsonl"
        path.write_text(" ".join(row.split()) + "\n", "utf-8")
        return path

    (item,) = load_suite(str(row_of("evaluation.md"))).items
    assert item.target.startswith("Dear Ann")
    (seed,) = read_seed_tasks(row_of("tutorial.md"))
    assert seed.instances[0].output == "2 euros"


def test_the_examples_of_an_operation_and_of_a_labelled_seed_are_read() -> None:
    page = (ROOT / "docs" / "packs.md").read_text("utf-8")
    (block,) = (block for block in _FENCE.findall(page) if "examples:" in block)
    for name, operation in yaml.safe_load(block).items():
        assert Operation.model_validate(operation).label_of("formal") == "In a formal tone:", name
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith('{"id"'))
    assert SeedTask.model_validate_json(line).category == "medicines"


def keys(section: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def test_the_box_in_the_readme_names_what_there_is() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    box = text.split("## What is in the box")[1].split("```")[1]
    package, _, rest = box.partition("\nrecipes/")
    named = {word for line in package.splitlines()[2:] for word in line[:25].split()}
    assert {word.removesuffix("/").removesuffix(".py") for word in named} == set(
        architecture.parts()
    ) | {"data", "configs", "recipes", "starter"}
    for line in f"recipes/{rest}".strip().splitlines():
        for word in line[:25].split():
            assert (ROOT / word).exists(), word


def test_the_picture_of_the_architecture_is_as_the_code_says() -> None:
    assert architecture.PAGE.read_text("utf-8") == architecture.render(), (
        "run: python -m dev.architecture"
    )


def say(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_help_names_every_command_of_the_readme() -> None:
    said = say("--help")
    table = (ROOT / "README.md").read_text("utf-8").split("## Commands")[1].split("##")[0]
    for name in re.findall(r"^\| `selfinstruct (\w+)", table, re.MULTILINE):
        assert name in said


def test_the_quickstart_validates_and_its_data_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "valid" in say("validate", "configs/quickstart.yaml")
    listed = say("data", "list")
    assert all(name in listed for name in ("microworld-seeds", "everyday-test"))


def test_answers_can_be_scored_compared_and_deduplicated(tmp_path: Path) -> None:
    files = []
    for name, say_right in (("right", True), ("wrong", False)):
        rows = [
            {
                "task_id": item.task_id,
                "instruction": item.instruction,
                "input": item.input,
                "response": item.target if say_right else "no",
                "target": item.target,
            }
            for item in load_suite("everyday-dev").items
        ]
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = ("--suite", "everyday-dev")
    assert "constraints): 100.0 %" in say("score", *suite, "--predictions", str(files[0]))
    assert "B is better" in say("compare", str(files[1]), str(files[0]), *suite)
    seeds = str(ROOT / "data/everyday/seeds.jsonl")
    lines = say("dedup", "--pool", seeds, "--candidates", seeds).splitlines()
    assert len(lines) == 175 and not any(json.loads(line)["accepted"] for line in lines)
