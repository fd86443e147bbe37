"""What ships the package: images, the release workflow, the notebook. Nothing is built here."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def instructions(image: Path) -> list[tuple[str, str]]:
    """Keyword and argument of each instruction of a Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", image.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


@pytest.mark.parametrize("image", IMAGES, ids=lambda p: p.name)
def test_an_image_copies_what_the_package_is_built_of_and_nothing_that_is_not_there(
    image: Path,
) -> None:
    copied: set[str] = set()
    for keyword, argument in instructions(image):
        if keyword == "COPY" and not argument.startswith("--from="):
            *sources, _ = argument.split()
            assert all((ROOT / source).exists() for source in sources), argument
            copied |= set(sources)
    # The links of the package lead to folders at the top.
    package = ROOT / "selfinstruct_train"
    linked = {link.resolve().name for link in package.iterdir() if link.is_symlink()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", *linked} <= copied


@pytest.mark.parametrize("image", IMAGES, ids=lambda p: p.name)
def test_an_image_names_a_version_runs_as_nobody_special_and_starts_the_program(
    image: Path,
) -> None:
    found = instructions(image)
    bases = [argument for keyword, argument in found if keyword == "FROM"]
    assert bases and all(re.match(r"python:3\.\d+-slim( AS \w+)?$", base) for base in bases)
    assert not any(keyword == "ADD" for keyword, _ in found)
    users = [argument for keyword, argument in found if keyword == "USER"]
    assert users and users[-1] not in ("root", "0")
    (entry,) = (json.loads(argument) for keyword, argument in found if keyword == "ENTRYPOINT")
    assert entry[0] in PROJECT["project"]["scripts"]
    for keyword, argument in found:
        if keyword == "RUN" and "apt-get install" in argument:
            assert "apt-get update" in argument and "rm -rf /var/lib/apt/lists" in argument
        if keyword == "ARG" and argument.startswith("EXTRAS="):
            extras = argument.partition("=")[2].split(",")
            assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()


def test_a_release_is_published_without_a_token_and_only_of_the_version_that_the_tag_names() -> (
    None
):
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    flow = yaml.load(text, yaml.BaseLoader)
    assert flow["on"] == {"push": {"tags": ["v*"]}}
    assert flow["permissions"] == {"contents": "read"}
    assert "secrets." not in text and "password" not in text
    jobs = flow["jobs"]
    may_sign = [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})]
    assert may_sign == ["publish"] and jobs["publish"]["environment"] == "pypi"
    assert set(jobs["publish"]["needs"]) == {"source", "wheels"}
    assert all(jobs[job]["needs"] == "version" for job in jobs["publish"]["needs"])
    check = jobs["version"]["steps"][-1]["run"]
    assert "GITHUB_REF_NAME" in check and "CHANGELOG.md" in check
    for job in jobs.values():
        for step in job["steps"]:
            assert re.search(r"@(v\d|release/v\d)", step.get("uses", "@v0")), step


def test_wheels_are_built_for_each_python_that_the_project_takes_and_are_tried() -> None:
    wheels = PROJECT["tool"]["cibuildwheel"]
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=").replace(".", "")
    assert f"cp{lowest}-*" in wheels["build"].split()
    command = wheels["test-command"].split()
    assert command[:2] == ["selfinstruct", "validate"] and (ROOT / command[2]).is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_is_valid_holds_no_output_and_its_cells_compile(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.match(r"[\w-]{1,64}$", i) for i in ids)
    defined: set[str] = set()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        assert cell["cell_type"] in ("markdown", "code") and cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            # Lines for the shell are not Python; the variables that they take must be there.
            tree = ast.parse(re.sub(r"^[!%].*$", "pass", source, flags=re.MULTILINE))
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    defined.add(node.id)
            for line in re.findall(r"^!(.*)$", source, re.MULTILINE):
                assert set(re.findall(r"\{(\w+)\}", line)) <= defined, line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_obeys_the_format_of_notebooks(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))
