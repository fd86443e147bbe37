"""A pack: all that is language or domain in what a model is shown, and in what is filtered.

A pack is a folder: ``pack.yaml`` holds the wording and what the filters must know, and three JSONL
files hold the demonstrations for classification (``classification.jsonl``), input-first
(``input_first.jsonl``) and output-first (``output_first.jsonl``) prompts, all in the seed schema.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import regex
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.records import SeedTask
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.sources.registry import find_own

BUILT_IN = Path(__file__).parent
_READ_ALONE = {"input_variants", "output_variants", "label_variants", "no_input"}
"""Parts of the wording that stand in no prompt, and so do not bear on its hash."""


class Wording(BaseModel):
    """The text of the prompts in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instructions_header: str
    """Opens the numbered list that the model continues (step 1)."""
    classification_header: str
    input_first_header: str
    output_first_header: str
    task: str = "Task:"
    example: str = "Example"
    input: str = "Input:"
    output: str = "Output:"
    label: str = "Label:"
    classification: str = "Fixed labels:"
    yes: str = "Yes"
    no: str = "No"
    input_variants: tuple[str, ...] = ()
    """Other names of the label that models write; they stand in no prompt."""
    output_variants: tuple[str, ...] = ()
    label_variants: tuple[str, ...] = ()
    no_input: tuple[str, ...] = ()
    """What models write where a task has no input, in lower case and without marks around it."""

    @property
    def few_shot_stop(self) -> tuple[str, ...]:
        """What ends a few-shot answer: the next task or the next example."""
        return f"\n{self.task}", f"\n{self.example} "

    def means_no_input(self, text: str) -> bool:
        """Whether the text only says that there is no input."""
        return regex.sub(r"^[\W_]+|[\W_]+$", "", text).casefold() in self.no_input


class Rules(BaseModel):
    """What the filters must know about a language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsuitable_words: tuple[str, ...]
    """Whole words or phrases that ask for what a text model cannot do."""
    program_prefix: str
    script: str | None
    """Unicode script of the first letter; None takes any."""


class PromptSet(NamedTuple):
    """A wording and its demonstrations."""

    wording: Wording
    classification: tuple[SeedTask, ...]
    input_first: tuple[SeedTask, ...]
    output_first: tuple[SeedTask, ...]

    @property
    def hash(self) -> str:
        """16 hex digits that change when any prompt text changes."""
        text = self.wording.model_dump_json(exclude=_READ_ALONE) + "".join(
            task.model_dump_json() for group in self[1:] for task in group
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class PackFile(BaseModel):
    """What ``pack.yaml`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wording: Wording
    rules: Rules


def prompt_folder(name_or_path: str) -> Path:
    """The folder of a pack.

    Raises:
        ConfigError: there is no such pack.
    """
    built_in = BUILT_IN / name_or_path
    folder = built_in if built_in.is_dir() else Path(name_or_path)
    if not folder.is_dir():
        folder = find_own(name_or_path) or folder
    if (folder / "prompts.yaml").is_file() and not (folder / "pack.yaml").is_file():
        raise ConfigError(
            f"generation.prompts: {folder} has prompts.yaml, which is now one file with rules.yaml:"
            f" write {folder / 'pack.yaml'} with the contents of the one, indented, under "
            "'wording:' and of the other under 'rules:'"
        )
    if not (folder / "pack.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in BUILT_IN.glob("*/pack.yaml")))
        raise ConfigError(
            f"generation.prompts: no pack '{name_or_path}' (no file {folder / 'pack.yaml'}); use "
            f"one of {known}, or a folder with pack.yaml"
        )
    return folder


def read_pack_file(path: Path) -> PackFile:
    """Read a ``pack.yaml``.

    Raises:
        ConfigError: it is malformed.
    """
    try:
        return PackFile.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def load_prompt_set(name_or_path: str) -> PromptSet:
    """Load the wording and demonstrations of a pack: a built-in one such as ``en``, or a folder.

    Raises:
        ConfigError: there is no such pack, or its pack.yaml is malformed.
        DataError: one of its demonstration files is malformed.
    """
    folder = prompt_folder(name_or_path)
    return PromptSet(
        read_pack_file(folder / "pack.yaml").wording,
        *(
            read_seed_tasks(folder / f"{name}.jsonl")
            for name in ("classification", "input_first", "output_first")
        ),
    )


def load_rules(name_or_path: str) -> Rules:
    """Load the rules of a pack.

    Raises:
        ConfigError: there is no such pack, or its pack.yaml is malformed.
    """
    return read_pack_file(prompt_folder(name_or_path) / "pack.yaml").rules


def require_demonstrations(prompts: PromptSet, source: str) -> None:
    """Check that every demonstration file says something.

    Raises:
        DataError: a file is empty, or classification shows only one of the two answers.
    """
    if len({task.is_classification for task in prompts.classification}) < 2:
        raise DataError(
            f"{source}/classification.jsonl: needs demonstrations of both kinds, Yes and No"
        )
