"""Has the exam been seen? What is trained on or shown, held against every suite of a run.

A row is compared with each suite in three ways: is it the same question, how alike are the
instructions (ROUGE-L F1, as in the novelty test of Self-Instruct), and which share of a suite row's
8-grams does it hold (as Chowdhery et al., arXiv 2204.02311, but within a single training row).
A resemblance is one of three things, the gravest first:

- ``exact``: instruction and input are the suite's. The answer can be learnt by heart.
- ``similar``: the instructions are alike and so are the inputs (or neither row has one), or the row
  holds the 8-grams that make up the suite row's own problem.
- ``instruction``: the instructions are alike, but the input is another one. This is what a suite is
  to test: the same kind of task on material not seen. "Answer the following question." stands in
  the official seeds and in the 252 tasks, with questions that have nothing in common; the seed
  that wants a cover letter is alike a task that wants a review. In the microworld, whose
  instructions come from a grammar, what is alike in this way alone mostly asks for something else
  with the same trimmings.

So by default generated rows and those of ``data`` are dropped down to ``similar``, where a gain
could be memory, and the third kind is listed; ``drop: instruction`` drops it as well. Seeds and
demonstrations are listed alone: they are the user's to fix, and a seed left out of training would
still be shown in prompts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.contamination.suite_index import (
    GRAVITY,
    ExampleRow,
    Finding,
    Resemblance,
    SuiteIndex,
    SuiteTasks,
    examples,
)
from selfinstruct_train.errors import DataError
from selfinstruct_train.records import (
    ContaminatedRow,
    Neighbour,
    Rejection,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.text.words import TokenizerChoice

_ROWS_AT_ONCE = 4096


class Contamination(NamedTuple):
    """What resembles the suites, and what is not to be trained on."""

    left_out: frozenset[int]
    """Places of the rows that are dropped."""
    found: tuple[Rejection, ...]
    """The gravest resemblance of each row with each suite; the evidence says if it was dropped."""

    @property
    def sentence(self) -> str:
        """What a user is told."""
        count = Counter(row.reason for row in self.found)
        return (
            f"{len(self.found)} times a row resembles one of a suite ({count['suite_exact']} ask "
            f"the same, {count['suite_rouge']} by instruction, {count['suite_ngram']} by 8-grams); "
            f"{len(self.left_out)} rows are left out of training"
        )


def check(
    rows: Iterable[TrainingRow],
    seeds: Sequence[SeedTask],
    demonstrations: Sequence[SeedTask],
    suites: Iterable[SuiteTasks],
    config: ContaminationConfig,
    tokenizer: TokenizerChoice = "auto",
) -> Contamination:
    """Hold training rows, seeds and demonstrations against every suite.

    The time grows with the different instructions of rows times those of a suite, for ROUGE-L, and
    with the words of all rows, for 8-grams. Memory holds a few rows at a time, and what was found.

    Args:
        rows: what would be trained on; gone through once for each suite and once more.
        seeds: the seed tasks; those among the rows are not looked at twice.
        demonstrations: the tasks that prompts show.
        suites: what the run is measured on.
        config: thresholds, and what to drop.
        tokenizer: as of the novelty filter; ``auto`` looks at each suite.

    Raises:
        DataError: no row would be left to train on.
    """
    total, known = 0, set()
    for row in rows:
        total += 1
        if row.source == "seed":
            known.add(row.id)
    shown = [row for row in examples(seeds, "seed") if row.id not in known]
    shown += examples(demonstrations, "demonstration")
    found: list[Rejection] = []
    out: set[int] = set()
    for suite in suites:
        index = SuiteIndex(suite, config, tokenizer)
        for place, own, finding in _find(index.find, rows):
            dropped = _is_dropped(own, finding.level, config)
            if dropped:
                out.add(place)
            found.append(_rejection(own, suite.name, finding, dropped))
        for place, finding in index.find(shown):
            found.append(_rejection(shown[place], suite.name, finding, False))
    if total and len(out) == total:
        raise DataError(
            "every training row resembles a row of an evaluation suite (first: "
            f"{found[0].evidence}); measure on another suite, or set "
            "evaluation.contamination.drop=none"
        )
    return Contamination(frozenset(out), tuple(found))


def contaminated_rows(
    rows: Iterable[TrainingRow],
    suite: SuiteTasks,
    config: ContaminationConfig,
    tokenizer: TokenizerChoice = "auto",
) -> tuple[ContaminatedRow, ...]:
    """The rows of a suite that rows trained on give away: ``similar`` or ``exact``.

    What was trained on cannot be dropped any more; so a suite that joins a run late, or whose rows
    were only listed, is measured as it is, and this says how far it can be trusted.

    Args:
        rows: what was trained on.
        suite: what the model is measured on.
        config: thresholds.
        tokenizer: as of the novelty filter; ``auto`` looks at each suite.

    Returns:
        In the suite's order; of several training rows, the gravest resemblance.
    """
    index = SuiteIndex(suite, config, tokenizer)
    worst: dict[str, tuple[Finding, str]] = {}
    for _, row, finding in _find(index.find_all, rows):
        known = worst.get(finding.item.id)
        if finding.level != "instruction" and (known is None or finding.rank > known[0].rank):
            worst[finding.item.id] = finding, row.id
    return tuple(
        ContaminatedRow(
            id=item.id,
            level="exact" if finding.level == "exact" else "similar",
            training_row=row_id,
            what=finding.what,
        )
        for item in index.items
        if item.id in worst
        for finding, row_id in [worst[item.id]]
    )


def _find(
    find: Callable[[Sequence[ExampleRow]], Iterable[tuple[int, Finding]]],
    rows: Iterable[TrainingRow],
) -> Iterator[tuple[int, ExampleRow, Finding]]:
    """Findings of one suite with the row and its place, a few rows at a time."""
    waiting, first = iter(rows), 0
    while few := [
        ExampleRow(r.id, r.source, r.instruction, r.input, r.output)
        for r in islice(waiting, _ROWS_AT_ONCE)
    ]:
        for place, finding in find(few):
            yield first + place, few[place], finding
        first += len(few)


def _is_dropped(row: ExampleRow, level: Resemblance, config: ContaminationConfig) -> bool:
    least = math.inf if config.drop == "none" else GRAVITY[config.drop]
    return GRAVITY[level] >= least and (row.source != "seed" or config.drop_seeds)


def _rejection(row: ExampleRow, suite: str, finding: Finding, dropped: bool) -> Rejection:
    item = finding.item
    return Rejection(
        stage="contamination",
        reason=finding.reason,
        evidence=(
            f"{row.source} row {row.id} against suite '{suite}', row {item.id}: {finding.what}; "
            f"{'dropped' if dropped else 'listed alone'}"
        ),
        instruction=row.instruction,
        input=row.input,
        output=row.output,
        nearest=Neighbour(id=item.id, instruction=item.instruction, score=round(finding.score, 6)),
    )
