"""Seeds, evaluation suites and demonstrations of the microworld, kept in ``data/microworld``.

Run ``python -m dev.embedded.suites`` to write them again; the same code writes the
same bytes. The seeds cover about half of the families and three of the seven ways to dress an
answer, so that there is something left for the model to find by itself. Development and test tasks
use the reserved wordings and problems of their own splits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from dev.embedded.corpus import labelled
from selfinstruct_train.microworld.dressing import Effect
from selfinstruct_train.microworld.instructions import (
    RESERVED_WORDINGS,
    Composed,
    draw_problem,
    takes_input,
    world,
)
from selfinstruct_train.microworld.world import Family
from selfinstruct_train.records import EvalTask, Instance, Row, SeedTask

DATA = Path(__file__).parents[2] / "data" / "microworld"

SEED_EFFECTS: tuple[Effect, ...] = ("stop", "quotes", "answer")
"""The only ways to dress an answer that the seeds show."""
OPEN_SEEDS, CLOSED_SEEDS = 150, 25
"""Seed tasks that are not classification, and that are."""
WITH_INPUT, WITHOUT_INPUT, CLOSED_FAMILIES = 36, 2, 10
"""Families among the seeds: not classification with and without input, and classification."""
CLASSIFICATION_SHARE, RESERVED_SHARE = 0.22, 0.06
"""Of the tasks of a suite."""
RESERVED_DRESS = 0.33
"""Chance that a task draws from the reserved contexts and modifiers; some then have neither."""


def write_suites(folder: Path) -> None:
    """Write seed tasks, suites and demonstrations into a folder, which is made if need be."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    _write(folder / "seed_tasks.jsonl", seed_tasks())
    _write(folder / "test.jsonl", suite("test", "test", -1, 252))
    _write(folder / "dev.jsonl", suite("dev", "dev", -2, 126))
    _write(folder / "seen.jsonl", suite("seen", "pretraining", -2, 126))
    for name, tasks in demonstrations().items():
        _write(folder / "prompts" / f"{name}.jsonl", tasks)


def seed_families() -> tuple[Family, ...]:
    """The families that the seeds cover, evenly spread over all that can be asked."""
    families = _askable("seed", closed=False)
    with_input = [family for family in families if takes_input(family)]
    without = [family for family in families if not takes_input(family)]
    return (
        *_spread(with_input, WITH_INPUT),
        *_spread(without, WITHOUT_INPUT),
        *_spread(_askable("seed", closed=True), CLOSED_FAMILIES),
    )


def seed_tasks() -> tuple[SeedTask, ...]:
    """The seed tasks, in random order."""
    rng = random.Random("seeds")
    families = seed_families()
    tasks = [
        task
        for closed, count in ((False, OPEN_SEEDS), (True, CLOSED_SEEDS))
        for task in _tasks(
            rng, [f for f in families if f.is_classification == closed], count, most=2
        )
    ]
    rng.shuffle(tasks)
    return _numbered("seed_task", tasks)


def demonstrations() -> dict[str, tuple[SeedTask, ...]]:
    """File name -> the demonstrations of the prompts of steps 2 and 3, drawn like seeds."""
    rng = random.Random("demonstrations")
    families = seed_families()
    closed = [f for f in families if f.is_classification]
    with_input = [f for f in families if not f.is_classification and takes_input(f)]
    without = [f for f in families if not f.is_classification and not takes_input(f)]
    questions = [*_tasks(rng, closed, 12, most=1), *_tasks(rng, with_input + without, 12, most=1)]
    inputs = [*_tasks(rng, with_input, 6, least=2, most=3), *_tasks(rng, without, 2, most=1)]
    labels = _tasks(rng, closed, 6, most=1)
    rng.shuffle(questions)
    rng.shuffle(inputs)
    return {
        "classification": _numbered("classification", questions),
        "input_first": _numbered("input_first", inputs),
        "output_first": _numbered("output_first", labels),
    }


def suite(name: str, split: str, wording: int, count: int) -> tuple[EvalTask, ...]:
    """An evaluation suite of one instance a task.

    Args:
        name: name of the suite; it opens the ids and seeds the draw.
        split: where the problems come from.
        wording: index of the wording of every task, counted from the end.
        count: number of tasks.
    """
    rng = random.Random(f"suite {name}")
    reserved = round(RESERVED_SHARE * count)
    closed = round(CLASSIFICATION_SHARE * count)
    rows = [
        row
        for families, wanted in (
            ([f for f in world().families if f.reserved], reserved),
            (_askable(split, closed=True), closed),
            (_askable(split, closed=False), count - reserved - closed),
        )
        for row in _rows(rng, families, split, wording, wanted)
    ]
    rng.shuffle(rows)
    return tuple(
        row.model_copy(update={"id": f"microworld_{name}_{i}"}) for i, row in enumerate(rows)
    )


def _rows(
    rng: random.Random, families: Sequence[Family], split: str, wording: int, count: int
) -> list[EvalTask]:
    rows: list[EvalTask] = []
    used: set[str] = set()
    for family in _rounds(rng, families):
        if len(rows) == count:
            break
        if (problem := draw_problem(rng, family, split)) is None:
            continue
        key = f"{family.name} {sorted(problem.slots.items())} {problem.input}"
        if key in used:
            continue
        used.add(key)
        composed = world().compose(
            rng,
            family,
            reserved="only" if rng.random() < RESERVED_DRESS else "never",
            wording=wording % len(family.wordings),
            slots=problem.slots,
        )
        instance = Instance(input=problem.input, output=composed.answers(problem.input)[0])
        group = "reserved" if family.reserved else family.group
        rows.append(
            EvalTask(
                id="-",
                motivation_app=group,
                instruction=composed.instruction,
                instances=(instance,),
            )
        )
    return rows


def _tasks(
    rng: random.Random, families: Sequence[Family], count: int, *, least: int = 1, most: int
) -> list[SeedTask]:
    """Tasks of the seed split, the families in turn, no wording twice.

    Each has ``least`` to ``most`` instances; a classification task has one for each label.
    """
    tasks: list[SeedTask] = []
    used: set[tuple[str, int]] = set()
    for family in _rounds(rng, families):
        if len(tasks) == count:
            break
        # A narrow family may need many draws before the split yields an input for every label.
        for _ in range(60):
            wording = rng.randrange(len(family.wordings) - RESERVED_WORDINGS)
            task = _task(rng, family, wording, rng.randint(least, most))
            if task and (family.name, wording) not in used:
                used.add((family.name, wording))
                tasks.append(task)
                break
    return tasks


def _task(rng: random.Random, family: Family, wording: int, count: int) -> SeedTask | None:
    if (problem := draw_problem(rng, family, "seed")) is None:
        return None
    composed = world().compose(
        rng, family, wording=wording, slots=problem.slots, effects=SEED_EFFECTS
    )
    instances = _instances(rng, composed, count)
    if not instances:
        return None
    return SeedTask(
        id="-",
        name=family.name,
        instruction=composed.instruction,
        instances=instances,
        is_classification=family.is_classification,
    )


def _instances(rng: random.Random, composed: Composed, count: int) -> tuple[Instance, ...]:
    """Instances of the seed split; none if the wanted labels or number are not to be had."""
    family = composed.family
    if family.labels is not None:
        found = labelled(rng, composed, "seed", each=1)
        return found if len(found) == len(family.labels(composed.slots)) else ()
    count = count if takes_input(family) else 1
    inputs: dict[str, None] = {}
    for _ in range(20):
        if len(inputs) < count and (problem := draw_problem(rng, family, "seed", composed.slots)):
            inputs[problem.input] = None
    found = tuple(Instance(input=text, output=composed.answers(text)[0]) for text in inputs)
    return found if len(found) == count else ()


def _askable(split: str, closed: bool) -> list[Family]:
    """Families that may be asked, with problems enough in the split not to repeat any."""
    rng = random.Random(0)
    found = []
    for family in world().families:
        if family.reserved or family.is_classification != closed:
            continue
        problems = [draw_problem(rng, family, split) for _ in range(12)]
        if len({(str(p.slots), p.input) for p in problems if p}) >= 4:
            found.append(family)
    return found


def _rounds(rng: random.Random, families: Sequence[Family]) -> list[Family]:
    """The families in random order, many times over: each comes again only after all others."""
    return [family for _ in range(200) for family in rng.sample(families, len(families))]


def _spread(families: Sequence[Family], count: int) -> list[Family]:
    return [families[i * len(families) // count] for i in range(count)]


def _numbered(prefix: str, tasks: Sequence[SeedTask]) -> tuple[SeedTask, ...]:
    return tuple(task.model_copy(update={"id": f"{prefix}_{i}"}) for i, task in enumerate(tasks))


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    write_suites(DATA)
