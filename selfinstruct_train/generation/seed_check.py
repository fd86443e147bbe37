"""Seed tasks before they are used: faults of the file all at once, then what makes seeds weak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.contamination.suite_index import SuiteIndex, SuiteTasks, examples
from selfinstruct_train.errors import DataError
from selfinstruct_train.generation.calibration import FEWEST_OF_A_KIND, Calibration
from selfinstruct_train.records import Row, SeedTask
from selfinstruct_train.sources.reader import read_json_line, read_lines
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import choose_tokenizer

_ALIKE = 0.7
"""ROUGE-L F1 above which the loop would not let one seed join the other (paper: 0.7)."""
_FEWEST_OF_A_LABEL = 4
"""Tasks of a group below which its prompts show others as well."""
_FIXES = {
    "missing": "add it",
    "extra_forbidden": "leave it out or correct its name",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": "write a text in quotes",
    "string_too_short": "write something in it",
    "tuple_type": "write a list in brackets",
    "too_short": "give at least one",
    "model_type": "write an object in braces",
}


class SeedFault(Row):
    """A line that cannot be read as a seed task, and what to do about it."""

    line: int
    where: str
    """The key, dotted where it lies within another."""
    what: str
    fix: str


class AlikeSeeds(Row):
    """Two seeds that ask for much the same."""

    id: str
    other: str
    score: float
    """ROUGE-L F1 of their instructions, 0 to 1."""


class LeakedSeed(Row):
    """A seed that resembles a row of a suite."""

    id: str
    suite: str
    evidence: str


class ThinLabel(Row):
    """A classification seed whose labels cannot show that they vary."""

    id: str
    labels: tuple[str, ...]
    instances: int


class KindFigures(Row):
    """How step 2 does on the labels of the seeds, by leaving folds out; 0 to 1."""

    recall: float | None
    precision: float | None
    auc: float | None
    """Area under the ROC curve of the margins."""
    share: float | None
    """Of the seeds, predicted as classification."""
    threshold: float
    true_share: float
    demonstrations: str
    """Whose classification demonstrations are shown: ``pack`` or ``seeds``."""

    @classmethod
    def of(cls, found: Calibration, demonstrations: str) -> KindFigures:
        """The figures of a calibration."""
        return cls(
            recall=found.recall,
            precision=found.precision,
            auc=found.auc,
            share=found.share,
            threshold=found.threshold,
            true_share=found.true_share,
            demonstrations=demonstrations,
        )


class SeedReport(Row):
    """All that is known of a seed file; printed as one line of JSON."""

    path: str
    tasks: int
    instances: int
    classification_tasks: int
    without_input: int
    """Tasks of which no instance has an input."""
    faults: tuple[SeedFault, ...] = ()
    alike: tuple[AlikeSeeds, ...] = ()
    leaks: tuple[LeakedSeed, ...] = ()
    thin_labels: tuple[ThinLabel, ...] = ()
    categories: dict[str, int] = {}
    """Tasks of each category, most first; those without one are left out."""
    task_types: dict[str, int] = {}
    advice: tuple[str, ...] = ()
    classification: KindFigures | None = None
    """None where no config names a model."""

    @property
    def sentences(self) -> Iterator[str]:
        """What a user is told, a line each."""
        yield (
            f"{self.path}: {self.tasks} tasks with {self.instances} instances, "
            f"{self.classification_tasks} of them classification, {self.without_input} without "
            "input"
        )
        for name, found in (("category", self.categories), ("task type", self.task_types)):
            if found:
                yield f"by {name}: {', '.join(f'{label} {n}' for label, n in found.items())}"
        for fault in self.faults:
            yield f"line {fault.line}: {fault.where}: {fault.what}; {fault.fix}"
        for pair in self.alike:
            yield (
                f"'{pair.id}' is much like '{pair.other}' (ROUGE-L {pair.score:.2f}); "
                "change or remove one"
            )
        for leak in self.leaks:
            yield f"'{leak.id}' resembles the suite {leak.suite}: {leak.evidence}"
        for thin in self.thin_labels:
            yield (
                f"'{thin.id}' is classification, but its {thin.instances} instances show "
                f"{len(thin.labels)} label; add one with another label"
            )
        yield from self.advice


def check_seeds(
    path: Path, suites: Iterable[SuiteTasks], config: ContaminationConfig | None = None
) -> tuple[SeedReport, tuple[SeedTask, ...]]:
    """Look at a seed file without a model.

    Args:
        path: the file, in the official schema.
        suites: what seeds must not resemble.
        config: thresholds of the resemblance; by default the settings' own.

    Returns:
        What was found, and the tasks of the lines that can be read.

    Raises:
        DataError: the file cannot be read as text, or holds nothing.
    """
    tasks, faults = _read(path)
    if not tasks and not faults:
        raise DataError(f"{path}: holds no rows; it needs one JSON object a line")
    kinds = Counter(task.is_classification for task in tasks)
    report = SeedReport(
        path=str(path),
        tasks=len(tasks),
        instances=sum(len(task.instances) for task in tasks),
        classification_tasks=kinds[True],
        without_input=sum(not any(i.input for i in task.instances) for task in tasks),
        faults=tuple(faults),
        alike=tuple(_alike(tasks)),
        leaks=tuple(_leaks(tasks, suites, config or ContaminationConfig())),
        thin_labels=tuple(_thin(tasks)),
        categories=_counted(task.category for task in tasks),
        task_types=_counted(task.task_type for task in tasks),
        advice=(*_advice(kinds), *_label_advice(tasks)),
    )
    return report, tuple(tasks)


def _read(path: Path) -> tuple[list[SeedTask], list[SeedFault]]:
    tasks: list[SeedTask] = []
    faults: list[SeedFault] = []
    ids: dict[str, int] = {}
    for number, line in read_lines(path):
        try:
            task = SeedTask.model_validate(read_json_line(path, number, line))
        except DataError as error:
            what = str(error).removeprefix(f"{path}, line {number}: ")
            faults.append(
                SeedFault(line=number, where="line", what=what, fix="write one JSON object a line")
            )
            continue
        except ValidationError as error:
            faults += _faults(number, error)
            continue
        if task.id in ids:
            what = f"'{task.id}' is already on line {ids[task.id]}"
            faults.append(SeedFault(line=number, where="id", what=what, fix="give it another"))
            continue
        ids[task.id] = number
        tasks.append(task)
    return tasks, faults


def _faults(line: int, error: ValidationError) -> Iterator[SeedFault]:
    for found in error.errors():
        yield SeedFault(
            line=line,
            where=".".join(str(part) for part in found["loc"]) or "row",
            what=found["msg"],
            fix=_FIXES.get(found["type"], "correct it"),
        )


def _alike(tasks: Sequence[SeedTask]) -> Iterator[AlikeSeeds]:
    tokenizer = choose_tokenizer("auto", (task.instruction for task in tasks))
    index = NoveltyIndex(threshold=_ALIKE, tokenizer=tokenizer)
    for task in tasks:
        for near in index.search([task.instruction])[0].nearest if len(index) else ():
            if near.score > _ALIKE:
                yield AlikeSeeds(id=task.id, other=near.id, score=round(near.score, 4))
        index.add(task.id, task.instruction)


def _leaks(
    tasks: Sequence[SeedTask], suites: Iterable[SuiteTasks], config: ContaminationConfig
) -> Iterator[LeakedSeed]:
    rows = examples(tasks, "seed")
    for suite in suites:
        for place, finding in SuiteIndex(suite, config, "auto").find(rows):
            evidence = f"row {finding.item.id}: {finding.what}"
            yield LeakedSeed(id=rows[place].id, suite=suite.name, evidence=evidence)


def _thin(tasks: Sequence[SeedTask]) -> Iterator[ThinLabel]:
    for task in tasks:
        labels = tuple(dict.fromkeys(i.output.strip() for i in task.instances))
        if task.is_classification and len(task.instances) > 1 and len(labels) == 1:
            yield ThinLabel(id=task.id, labels=labels, instances=len(task.instances))


def _counted(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(label for label in labels if label).most_common())


def _label_advice(tasks: Sequence[SeedTask]) -> Iterator[str]:
    for name, field in (("category", "category"), ("task type", "task_type")):
        labels = [getattr(task, field) for task in tasks]
        found = _counted(labels)
        if found and None in labels:
            yield f"{labels.count(None)} tasks have no {field}; give them one"
        if rare := [label for label, n in found.items() if n < _FEWEST_OF_A_LABEL]:
            yield (
                f"{name} with fewer than {_FEWEST_OF_A_LABEL} tasks: {', '.join(rare)}; prompts "
                "that show such a group are filled up with others"
            )


def _advice(kinds: Counter[bool]) -> Iterator[str]:
    for kind, name in ((True, "classification"), (False, "other")):
        if kinds.total() and kinds[kind] < FEWEST_OF_A_KIND:
            yield (
                f"only {kinds[kind]} {name} tasks: step 2 is calibrated on the labels of the "
                f"seeds, which takes {FEWEST_OF_A_KIND} of each kind; add some"
            )
