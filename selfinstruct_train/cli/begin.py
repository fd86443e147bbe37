"""Commands for the first day: the quickstart, a folder for one's own domain, the schema."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_train.cli.options import OutputDir, Overrides, shipped_config
from selfinstruct_train.cli.run import run

STARTER = Path(__file__).parents[1] / "starter"
"""The folder that ``init`` copies; what depends on the user stands there as an example."""
_NAME, _MODEL = "my-domain", "Qwen/Qwen2.5-1.5B"
_YAML_NEEDS_QUOTES = str.maketrans({"\\": "\\\\", '"': '\\"'})


def quickstart(overrides: Overrides = None, output_dir: OutputDir = None) -> None:
    """The whole loop in miniature on the embedded model: no network, no key, no GPU."""
    run(shipped_config(Path("configs/quickstart.yaml")), overrides, output_dir)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; its name is the domain's.")],
    model: Annotated[
        str, typer.Option(help="Model to begin with: a Hub name, a folder or a .gguf file.")
    ] = _MODEL,
) -> None:
    """Make a folder for your own domain: a config with comments, seeds, a test suite, a README."""
    from selfinstruct_train.config import config_schema
    from selfinstruct_train.errors import ConfigError

    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: already holds files; name a new folder")
        # File by file, because the installed ones may be read-only.
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(STARTER.iterdir()):
            shutil.copyfile(file, folder / file.name)
        _fill_in(folder / "README.md", f"# {_NAME}", f"# {folder.absolute().name}")
        _fill_in(folder / "config.yaml", f"name_or_path: {_MODEL}", f"name_or_path: {_yaml(model)}")
        (folder / "schema.json").write_text(_text(config_schema()), "utf-8")
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error.strerror}); name another folder"
        ) from None
    print(f"{folder}: put your tasks into seeds.jsonl and test.jsonl, then")
    print(f"  cd {folder} && selfinstruct validate config.yaml")


def schema() -> None:
    """Print the JSON schema of config files, by which editors complete and check them."""
    from selfinstruct_train.config import config_schema

    print(_text(config_schema()), end="")


def _fill_in(file: Path, example: str, own: str) -> None:
    file.write_text(file.read_text("utf-8").replace(example, own), "utf-8")


def _yaml(value: str) -> str:
    return value if value == _MODEL else f'"{value.translate(_YAML_NEEDS_QUOTES)}"'


def _text(found: dict[str, object]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
