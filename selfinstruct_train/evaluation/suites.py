"""Evaluation suites, and files of answers matched to them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.beyond.forgetting import FORGETTING_FILE
from selfinstruct_train.evaluation.beyond.harness_figures import HARNESS_FOLDER
from selfinstruct_train.evaluation.constraints import ConstrainedTask, Constraint
from selfinstruct_train.evaluation.superni import (
    SUPERNI,
    is_checkout,
    read_checkout,
    read_parquet,
)
from selfinstruct_train.records import EvalTask, Prediction, Row
from selfinstruct_train.sources.fetch import identify, resolve
from selfinstruct_train.sources.reader import read_json_line, read_lines, read_rows
from selfinstruct_train.sources.registry import SOURCES, Source


class Item(NamedTuple):
    """One instance of a task: what is asked and scored."""

    task_id: str
    group: str
    """The application or category, empty where the suite names none."""
    instruction: str
    input: str
    target: str
    """The first reference."""
    references: tuple[str, ...]
    """All that is right, the target included; the nearest counts."""
    constraints: tuple[Constraint, ...] = ()
    """What form the answer must have, beside being right."""

    @property
    def question(self) -> tuple[str, str]:
        """Instruction and input with white space folded: published files differ in line ends."""
        return _fold(self.instruction), _fold(self.input)


class Suite(NamedTuple):
    """Tasks that models are compared on."""

    name: str
    tasks: tuple[EvalTask, ...]
    is_microworld: bool
    """Whether the microworld's oracle can judge the answers."""
    references: tuple[tuple[tuple[str, ...], ...], ...] | None = None
    """All references of each instance of each task; None where each has its output alone."""

    @property
    def items(self) -> tuple[Item, ...]:
        """The instances of all tasks, in order."""
        return tuple(
            Item(
                task.id,
                task.motivation_app,
                task.instruction,
                instance.input,
                instance.output,
                self.references[t][i] if self.references else (instance.output,),
                task.constraints if isinstance(task, ConstrainedTask) else (),
            )
            for t, task in enumerate(self.tasks)
            for i, instance in enumerate(task.instances)
        )

    @property
    def clusters(self) -> NDArray[np.int_]:
        """A number for each item, the same where the instruction is: such items hang together.

        The published rows of SuperNI name no tasks, but items of one task have its instruction.
        """
        numbers: dict[str, int] = {}
        return np.array(
            [numbers.setdefault(item.question[0], len(numbers)) for item in self.items],
            dtype=np.int_,
        )

    @property
    def choosing_half(self) -> NDArray[np.bool_]:
        """Which items belong to the half that may choose between models, whole tasks each.

        A task's half follows from the hash of its instruction, so it is the same in every run.
        """
        instructions = {item.question[0] for item in self.items}
        ranked = sorted(instructions, key=lambda text: hashlib.sha256(text.encode()).digest())
        chosen = set(ranked[: len(ranked) // 2])
        return np.array([item.question[0] in chosen for item in self.items])


class PublishedPrediction(Row):
    """An answer in the schema of the official prediction files."""

    prompt: str
    instruction: str
    input: str
    response: str
    target: str


def load_suite(name_or_path: str) -> Suite:
    """Load a suite by its name in ``selfinstruct data list``, or from a JSONL file.

    A file that is a known suite, wherever it lies, goes by the known name. A checkout of the
    natural-instructions repository, or a parquet file of its test split, is
    ``super-natural-instructions``; there alone one question may stand twice.

    Raises:
        DataError: the suite does not exist, its file's name cannot name a folder, a line is
            malformed, or two instances ask the same.
    """
    if is_checkout(Path(name_or_path)):
        found = read_checkout(Path(name_or_path))
        return Suite(SUPERNI, found.tasks, False, found.references)
    path = resolve(name_or_path)
    if path.suffix == ".parquet":
        found = read_parquet(path)
        return Suite(SUPERNI, found.tasks, False, found.references)
    if path.is_dir():
        raise DataError(f"'{name_or_path}' is a folder of answers, not a suite")
    source = _source(name_or_path, path)
    if source is not None and source.kind == "seeds":
        raise DataError(
            f"'{name_or_path}' holds seed tasks, not a suite: they are trained on; use one of "
            + ", ".join(s.name for s in SOURCES if s.kind == "suite")
        )
    tasks = read_rows(path, ConstrainedTask)
    suite = Suite(
        name=source.name if source else _own_name(path),
        tasks=tasks,
        is_microworld=source is not None and source.is_microworld,
        references=_accepted(tasks) if any(task.answers for task in tasks) else None,
    )
    seen: dict[tuple[str, str], str] = {}
    for item in suite.items:
        if item.question in seen:
            raise DataError(
                f"{path}: tasks '{seen[item.question]}' and '{item.task_id}' ask the same "
                "question (instruction and input); remove one, or answers cannot be told apart"
            )
        seen[item.question] = item.task_id
    return suite


def suite_name(name_or_path: str) -> str:
    """The name under which a run keeps a suite, also where the suite itself is out of reach."""
    path = Path(name_or_path)
    if is_checkout(path) or path.suffix == ".parquet":
        return SUPERNI
    if not path.is_file():
        return _stem(path)
    source = _source(name_or_path, path)
    return source.name if source else _stem(path)


def read_predictions(path: Path, suite: Suite) -> tuple[Prediction, ...]:
    """Read a file of answers, this package's own or in the published schema.

    Answers are matched to the suite by instruction and input, white space folded. The response is
    taken as it is; the target is the suite's, not the file's.

    Returns:
        One answer per instance of the suite, in the suite's order.

    Raises:
        DataError: a line is not an answer, answers nothing in the suite, or answers what an
            earlier line has answered; or an instance has no answer.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name one file of answers in it")
    items = suite.items
    # Of equal questions, the first that is still open gets the answer.
    open_items: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, item in reversed(list(enumerate(items))):
        open_items[item.question].append(place)
    found: dict[int, Prediction] = {}
    lines: dict[tuple[str, str], int] = {}
    for number, line in read_lines(path):
        row = _read_answer(path, number, line)
        question = _fold(row.instruction), _fold(row.input)
        if question not in open_items:
            raise DataError(
                f"{path}, line {number}: answers no task of '{suite.name}' "
                f"({row.instruction[:60]!r}); name the suite that the answers belong to"
            )
        if not open_items[question]:
            answered = next(item for item in items if item.question == question)
            raise DataError(
                f"{path}, line {number}: answers the same task as line {lines[question]} "
                f"('{answered.task_id}'); keep one"
            )
        lines[question] = number
        place = open_items[question].pop()
        found[place] = _prediction(items[place], row)
    missing = [item.task_id for place, item in enumerate(items) if place not in found]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(items)} instances of '{suite.name}' have no answer, "
            f"first '{missing[0]}'; a score needs them all"
        )
    return tuple(found[place] for place in range(len(items)))


def _read_answer(path: Path, number: int, line: str) -> Prediction | PublishedPrediction:
    data = read_json_line(path, number, line)
    try:
        if isinstance(data, dict) and "prompt" in data:
            return PublishedPrediction.model_validate(data)
        return Prediction.model_validate(data)
    except ValidationError as error:
        published, own = (", ".join(t.model_fields) for t in (PublishedPrediction, Prediction))
        raise DataError(
            f"{path}, line {number}: {_faults(error)}; an answer has the keys {published}, or {own}"
        ) from None


def _prediction(item: Item, row: Prediction | PublishedPrediction) -> Prediction:
    known = row if isinstance(row, Prediction) else None
    return Prediction(
        task_id=item.task_id,
        instruction=item.instruction,
        input=item.input,
        response=row.response,
        target=item.target,
        finish_reason=known.finish_reason if known else None,
        completion_tokens=known.completion_tokens if known else None,
    )


def _accepted(tasks: Sequence[ConstrainedTask]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    return tuple(
        tuple(task.answers or (instance.output,) for instance in task.instances) for task in tasks
    )


def _source(name_or_path: str, path: Path) -> Source | None:
    if not Path(name_or_path).is_file():
        return next((source for source in SOURCES if source.name == name_or_path), None)
    return identify(path)


def _own_name(path: Path) -> str:
    """The name of a suite after its file, which becomes a folder beside others of a round.

    Raises:
        DataError: such a folder would be another one, or would hold other things.
    """
    name = _stem(path)
    if name.startswith(".") or name in ("", FORGETTING_FILE, HARNESS_FOLDER):
        raise DataError(
            f"{path}: a suite is kept under the name of its file, and '{name}' is no name for its "
            "folder; rename the file"
        )
    return name


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _fold(text: str) -> str:
    return " ".join(text.split())


def _faults(error: ValidationError) -> str:
    return ", ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'row'}: {fault['msg']}"
        for fault in error.errors()
    )
