"""The wheel holds all that a run needs: who installs it has no clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_SOURCE = (".git", ".venv", ".*_cache", "__pycache__", "build", "runs", "*.egg-info")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the wheel installs it, far from any clone."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT, folder / "clone", symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE)
    )
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(folder), str(folder / "clone")], check=True)
    shutil.rmtree(folder / "clone")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.mark.slow
def test_every_data_file_and_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    linked = ("data", "configs", "recipes")
    wanted = [
        path
        for folder in linked
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert wanted
    for path in wanted:
        assert (installed / "selfinstruct_train" / path.relative_to(ROOT)).is_file(), path
    package = ROOT / "selfinstruct_train"
    built = (".pyc", ".so", ".c")
    for path in package.rglob("*"):
        if path.is_file() and path.suffix not in built:
            assert (installed / path.relative_to(ROOT)).is_file(), path


@pytest.mark.slow
def test_quickstart_and_own_domain_are_valid_in_an_empty_folder_without_a_clone(
    installed: Path, tmp_path: Path
) -> None:
    def say(*arguments: str, folder: Path = tmp_path) -> str:
        main = "from selfinstruct_train.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", main, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "175 seed tasks" in say("validate", "configs/quickstart.yaml")
    say("init", "shop", "--model", "embedded")
    assert "8 seed tasks" in say("validate", "config.yaml", folder=tmp_path / "shop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
