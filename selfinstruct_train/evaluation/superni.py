"""The test tasks of Super-NaturalInstructions (Wang et al., arXiv 2204.07705), from two sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfinstruct_train.errors import DataError
from selfinstruct_train.records import EvalTask, Instance

SUPERNI = "super-natural-instructions"
_SPLIT = Path("splits") / "default" / "test_tasks.txt"
_MOST_INSTANCES = 100
"""Instances of each task that the official evaluation takes, from the front."""
_PROMPT = re.compile(
    r"\s*Definition:(?P<instruction>.*?)"
    r"\n\s*Now complete the following example\s*-\s*\n\s*Input:(?P<input>.*)\n\s*Output:\s*",
    re.DOTALL,
)


class TaskSet(NamedTuple):
    """Tasks, and what else is right beside the first reference of each instance."""

    tasks: tuple[EvalTask, ...]
    references: tuple[tuple[tuple[str, ...], ...], ...]
    """All references of each instance of each task, the first one included."""


class _OfficialInstance(BaseModel):
    model_config = ConfigDict(extra="ignore")

    input: str
    output: tuple[str, ...] = Field(min_length=1)


class _OfficialTask(BaseModel):
    model_config = ConfigDict(extra="ignore")

    Definition: tuple[str, ...] | str = Field(min_length=1)
    Categories: tuple[str, ...] = Field(min_length=1)
    Instances: tuple[_OfficialInstance, ...] = Field(min_length=1)


def is_checkout(path: Path) -> bool:
    """Whether a folder is a checkout of the natural-instructions repository."""
    return (path / _SPLIT).is_file()


def read_checkout(folder: Path) -> TaskSet:
    """Read the official test tasks, the first 100 instances of each, grouped by category.

    This is the default track, which is English. As in the official encoding, definition and input
    lose the white space around them, the first of several definitions and categories counts, and
    every output is a reference.

    Args:
        folder: a checkout with ``splits/default/test_tasks.txt`` and ``tasks/<name>.json``.

    Raises:
        DataError: the split names no task or one twice, or a task is missing or malformed.
    """
    split = folder / _SPLIT
    names = [line.strip() for line in _read(split).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{split}: names no task; check the repository out again")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{split}: names task '{twice[0]}' twice; check the repository out again")
    tasks, references = [], []
    for name in names:
        path = folder / "tasks" / f"{name}.json"
        try:
            task = _OfficialTask.model_validate_json(_read(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "task"
            raise DataError(
                f"{path}: {where}: {first['msg']}; check the repository out again"
            ) from None
        definition = task.Definition if isinstance(task.Definition, str) else task.Definition[0]
        if not definition.strip():
            raise DataError(f"{path}: Definition: is blank; check the repository out again")
        chosen = task.Instances[:_MOST_INSTANCES]
        tasks.append(
            EvalTask(
                id=name,
                motivation_app=task.Categories[0],
                instruction=definition.strip(),
                instances=tuple(
                    Instance(input=i.input.strip(), output=i.output[0]) for i in chosen
                ),
            )
        )
        references.append(tuple(i.output for i in chosen))
    return TaskSet(tuple(tasks), tuple(references))


def read_parquet(path: Path) -> TaskSet:
    """Read the test split as the authors of Self-Instruct put it on the Hub.

    Its rows hold a prompt and one completion, no category and no further references: scores are a
    little lower than from a checkout. What lies between the words of the official prompt becomes
    instruction and input, with the full stop that the official encoding adds to an input without a
    mark at its end; a prompt without those words is all instruction.

    Raises:
        DataError: the file is not a parquet file, lacks the columns prompt and completion, or a row
            holds no text in one of them.
    """
    tasks = []
    for number, (prompt, completion) in enumerate(_rows(path), 1):
        match = _PROMPT.fullmatch(prompt)
        instruction = match["instruction"].strip() if match else prompt.strip()
        given = match["input"].strip() if match else ""
        if not instruction:
            raise DataError(f"{path}, row {number}: has no prompt; fetch the file again")
        tasks.append(
            EvalTask(
                id=f"row-{number:05d}",
                instruction=instruction,
                instances=(Instance(input=given, output=completion),),
            )
        )
    if not tasks:
        raise DataError(f"{path}: holds no rows; fetch the file again")
    return TaskSet(tuple(tasks), tuple(_references(tasks)))


def _references(tasks: Iterable[EvalTask]) -> Iterator[tuple[tuple[str, ...], ...]]:
    for task in tasks:
        yield tuple((instance.output,) for instance in task.instances)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    # Only this suite is a parquet file, and the library takes a moment to load.
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is not a parquet file ({str(error).splitlines()[0]})") from None
    if not {"prompt", "completion"} <= set(table.column_names):
        raise DataError(
            f"{path}: lacks the columns 'prompt' and 'completion' (it has "
            f"{', '.join(table.column_names)}); name the test split of super_natural_instructions"
        )
    prompts, completions = (table.column(name).to_pylist() for name in ("prompt", "completion"))
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True), 1):
        if not isinstance(prompt, str) or not isinstance(completion, str):
            raise DataError(
                f"{path}, row {number}: prompt or completion is not text; fetch the file again"
            )
        yield prompt, completion


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); check the repository out again"
        ) from None
