"""The prompts of steps 1 to 3.

A prompt set is a folder: ``prompts.yaml`` holds the wording, and three JSONL files hold the
demonstrations for classification (``classification.jsonl``), input-first (``input_first.jsonl``)
and output-first (``output_first.jsonl``) prompts, all in the seed schema. A language or a domain
brings its own folder. No prompt ends in white space, so that the first token of the completion is
the one the model has seen in running text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import regex
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.sources.registry import find_own

BUILT_IN = Path(__file__).parent.parent / "packs"

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
    input_variants: tuple[str, ...] = ("Input text",)
    """Other names of the label that models write; they stand in no prompt."""
    output_variants: tuple[str, ...] = ("Expected output",)
    label_variants: tuple[str, ...] = ("Class label",)
    no_input: tuple[str, ...] = (
        "none",
        "n/a",
        "n.a",
        "noinput",
        "no input",
        "no input needed",
        "no input required",
        "no input necessary",
        "no input provided",
        "no input is needed",
        "no input is required",
        "none needed",
        "none required",
        "not applicable",
        "not needed",
    )
    """What models write where a task has no input, in lower case and without marks around it."""

    def means_no_input(self, text: str) -> bool:
        """Whether the text only says that there is no input."""
        return regex.sub(r"^[\W_]+|[\W_]+$", "", text).casefold() in self.no_input


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


class Prompt(NamedTuple):
    """A prompt in parts, so that demonstrations can be given up when it does not fit."""

    header: str
    demonstrations: tuple[str, ...]
    question: str

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join((self.header, *self.demonstrations, self.question))

    def without_first(self, count: int) -> Prompt:
        """The prompt less its first ``count`` demonstrations."""
        return self._replace(demonstrations=self.demonstrations[count:])


def prompt_folder(name_or_path: str) -> Path:
    """The folder of a prompt set.

    Raises:
        ConfigError: there is no such prompt set.
    """
    built_in = BUILT_IN / name_or_path
    folder = built_in if built_in.is_dir() else Path(name_or_path)
    if not folder.is_dir():
        folder = find_own(name_or_path) or folder
    if not (folder / "prompts.yaml").is_file():
        known = ", ".join(sorted(p.name for p in BUILT_IN.iterdir() if p.is_dir()))
        raise ConfigError(
            f"generation.prompts: no prompt set '{name_or_path}' (no file "
            f"{folder / 'prompts.yaml'}); use one of {known}, or a folder with prompts.yaml"
        )
    return folder


def load_prompt_set(name_or_path: str) -> PromptSet:
    """Load a prompt set: a built-in language such as ``en``, or a folder.

    Raises:
        ConfigError: there is no such prompt set, or its wording is malformed.
        DataError: one of its demonstration files is malformed.
    """
    folder = prompt_folder(name_or_path)
    source = folder / "prompts.yaml"
    try:
        wording = Wording.model_validate(yaml.safe_load(source.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"{source}: {error}") from error
    return PromptSet(
        wording,
        *(
            read_seed_tasks(folder / f"{name}.jsonl")
            for name in ("classification", "input_first", "output_first")
        ),
    )


def instruction_prompt(wording: Wording, demonstrations: Sequence[str]) -> Prompt:
    """Step 1: a numbered list of instructions for the model to continue (paper, section 2.2)."""
    lines = tuple(f"{i}. {one_line(text)}\n" for i, text in enumerate(demonstrations, 1))
    return Prompt(wording.instructions_header + "\n", lines, f"{len(lines) + 1}.")


def classification_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 2: few-shot question whether a task is classification; the answer is scored."""
    shown = tuple(
        f"\n{wording.task} {one_line(d.instruction)}\n{wording.classification} "
        f"{wording.yes if d.is_classification else wording.no}\n"
        for d in demonstrations
    )
    question = f"\n{wording.task} {one_line(instruction)}\n{wording.classification}"
    return Prompt(wording.classification_header + "\n", shown, question)


def input_first_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 3 for tasks that are not classification: inputs first, then the output of each."""
    shown = tuple(
        f"\n{wording.task} {one_line(d.instruction)}\n"
        + _input_first_examples(wording, d.instances)
        + "\n"
        for d in demonstrations
    )
    question = f"\n{wording.task} {one_line(instruction)}\n{wording.example} 1"
    return Prompt(wording.input_first_header + "\n", shown, question)


def few_shot_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str, given: str
) -> Prompt:
    """The input-first shape with the input already there: one question, asked few-shot."""
    prompt = input_first_prompt(wording, demonstrations, instruction)
    line = f"\n{wording.input} {given}" if given else ""
    return prompt._replace(question=f"{prompt.question}{line}\n{wording.output}")


def output_first_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 3 for classification: a label, then an input that has it, lest one label take all."""
    shown = tuple(
        f"\n{wording.task} {one_line(d.instruction)}\n"
        + "\n".join(_output_first_example(wording, i) for i in d.instances)
        + "\n"
        for d in demonstrations
    )
    question = f"\n{wording.task} {one_line(instruction)}\n{wording.label}"
    return Prompt(wording.output_first_header + "\n", shown, question)


def _input_first_examples(wording: Wording, instances: Sequence[Instance]) -> str:
    return "\n".join(
        f"{wording.example} {i}\n"
        + (f"{wording.input} {instance.input}\n" if instance.input else "")
        + f"{wording.output} {instance.output}"
        for i, instance in enumerate(instances, 1)
    )


def _output_first_example(wording: Wording, instance: Instance) -> str:
    return f"{wording.label} {instance.output}" + (
        f"\n{wording.input} {instance.input}" if instance.input else ""
    )


def one_line(text: str) -> str:
    """The text with all white space folded: a list item must not break its line."""
    return " ".join(text.split())


def require_demonstrations(prompts: PromptSet, source: str) -> None:
    """Check that every demonstration file says something.

    Raises:
        DataError: a file is empty, or classification shows only one of the two answers.
    """
    if len({task.is_classification for task in prompts.classification}) < 2:
        raise DataError(
            f"{source}/classification.jsonl: needs demonstrations of both kinds, Yes and No"
        )
