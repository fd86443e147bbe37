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
  that wants a cover letter is alike a task that wants a review. In the
  microworld, whose instructions come from a grammar, what is alike in this way alone mostly asks
  for something else with the same trimmings.

So by default generated rows are dropped down to ``similar``, where a gain could be memory, and the
third kind is listed; ``drop: instruction`` drops it as well. Seeds and demonstrations are listed
alone: they are the user's to mend, and a seed left out of training would still be shown in prompts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.generation.novelty import NoveltyIndex
from selfinstruct_train.generation.rouge import TokenizerName, words
from selfinstruct_train.records import (
    ContaminatedRow,
    EvalTask,
    Neighbour,
    Rejection,
    SeedTask,
    TrainingRow,
)

Level = Literal["instruction", "similar", "exact"]
Reason = Literal["suite_exact", "suite_rouge", "suite_ngram"]

NGRAM = 8
_GRAVITY: dict[Level, int] = {"instruction": 1, "similar": 2, "exact": 3}
_MARKS = ".,;:?!\"'“”‘’"
# F1 of exactly 7/10 comes out a hair below or above, by the lengths alone.
_ROUNDING = 1e-9


class SuiteTasks(NamedTuple):
    """An evaluation suite as far as it matters here."""

    name: str
    tasks: tuple[EvalTask, ...]


class Contamination(NamedTuple):
    """What resembles the suites, and what is left to train on."""

    kept: tuple[TrainingRow, ...]
    """The rows to train on, in their order."""
    found: tuple[Rejection, ...]
    """The gravest resemblance of each row with each suite; the evidence says if it was dropped."""
    dropped: int
    """Rows left out."""

    @property
    def sentence(self) -> str:
        """What a user is told."""
        count = Counter(row.reason for row in self.found)
        return (
            f"{len(self.found)} times a row resembles one of a suite ({count['suite_exact']} ask "
            f"the same, {count['suite_rouge']} by instruction, {count['suite_ngram']} by 8-grams); "
            f"{self.dropped} rows are left out of training"
        )


class _Row(NamedTuple):
    id: str
    source: Literal["seed", "generated", "demonstration"]
    instruction: str
    input: str
    output: str

    @property
    def text(self) -> str:
        return f"{self.instruction} {self.input} {self.output}"


class _Item(NamedTuple):
    """A row of a suite."""

    id: str
    instruction: str
    input: str
    grams: frozenset[int]
    own: frozenset[int]
    """Those that are not of the instruction alone; all where there is no input."""


class _Finding(NamedTuple):
    level: Level
    reason: Reason
    item: _Item
    score: float
    what: str

    @property
    def rank(self) -> tuple[int, float]:
        """The gravest is the highest."""
        return _GRAVITY[self.level], self.score


def check(
    rows: Sequence[TrainingRow],
    seeds: Sequence[SeedTask],
    demonstrations: Sequence[SeedTask],
    suites: Iterable[SuiteTasks],
    config: ContaminationConfig,
    tokenizer: TokenizerName = "rouge",
) -> Contamination:
    """Hold training rows, seeds and demonstrations against every suite.

    The time grows with the different instructions of rows times those of a suite, for ROUGE-L, and
    with the words of all rows, for 8-grams.

    Args:
        rows: what would be trained on.
        seeds: the seed tasks; those among the rows are not looked at twice.
        demonstrations: the tasks that prompts show.
        suites: what the run is measured on.
        config: thresholds, and what to drop.
        tokenizer: as of the novelty filter.

    Raises:
        DataError: no row would be left to train on.
    """
    training = [_Row(r.id, r.source, r.instruction, r.input, r.output) for r in rows]
    known = {row.id for row in training if row.source == "seed"}
    shown = [row for row in _examples(seeds, "seed") if row.id not in known]
    shown += _examples(demonstrations, "demonstration")
    found: list[Rejection] = []
    out: set[int] = set()
    for suite in suites:
        index = _SuiteIndex(suite, config, tokenizer)
        for place, finding in index.find([*training, *shown]):
            row = training[place] if place < len(training) else shown[place - len(training)]
            dropped = place < len(training) and _is_dropped(row, finding.level, config)
            if dropped:
                out.add(place)
            found.append(_rejection(row, suite.name, finding, dropped))
    kept = tuple(row for place, row in enumerate(rows) if place not in out)
    if rows and not kept:
        raise DataError(
            "every training row resembles a row of an evaluation suite "
            f"(first: {found[0].evidence}); measure on another suite, or set "
            "evaluation.contamination.drop=none"
        )
    return Contamination(kept, tuple(found), len(out))


def contaminated_rows(
    rows: Sequence[TrainingRow],
    suite: SuiteTasks,
    config: ContaminationConfig,
    tokenizer: TokenizerName = "rouge",
) -> tuple[ContaminatedRow, ...]:
    """The rows of a suite that rows trained on give away: ``similar`` or ``exact``.

    What was trained on cannot be dropped any more; so a suite that joins a run late, or whose rows
    were only listed, is measured as it is, and this says how far it can be trusted.

    Args:
        rows: what was trained on.
        suite: what the model is measured on.
        config: thresholds.
        tokenizer: as of the novelty filter.

    Returns:
        In the suite's order; of several training rows, the gravest resemblance.
    """
    index = _SuiteIndex(suite, config, tokenizer)
    given = [_Row(r.id, r.source, r.instruction, r.input, r.output) for r in rows]
    worst: dict[str, tuple[_Finding, str]] = {}
    for place, finding in index.find_all(given):
        known = worst.get(finding.item.id)
        if finding.level != "instruction" and (known is None or finding.rank > known[0].rank):
            worst[finding.item.id] = finding, given[place].id
    return tuple(
        ContaminatedRow(
            id=item.id,
            level="exact" if finding.level == "exact" else "similar",
            training_row=row,
            what=finding.what,
        )
        for item in index.items
        if item.id in worst
        for finding, row in [worst[item.id]]
    )


def normalise(text: str) -> str:
    """Lower case, white space folded, marks at the ends of words left out.

    Marks within a word stay, and so do words of marks alone: ``3.5`` is not ``35``.
    """
    return " ".join(word.strip(_MARKS) or word for word in text.casefold().split())


class _SuiteIndex:
    """A suite, arranged so that many rows are held against it quickly."""

    def __init__(
        self, suite: SuiteTasks, config: ContaminationConfig, tokenizer: TokenizerName
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self.items = [self._item(row) for row in _examples(suite.tasks, "demonstration")]
        self._questions = {normalise(f"{i.instruction} {i.input}"): i for i in self.items}
        self._wordings: dict[str, list[_Item]] = defaultdict(list)
        self._holders: dict[int, list[int]] = defaultdict(list)
        for number, item in enumerate(self.items):
            self._wordings[normalise(item.instruction)].append(item)
            for gram in item.grams:
                self._holders[gram].append(number)
        self._instructions = NoveltyIndex(threshold=config.rouge_threshold, tokenizer=tokenizer)
        self._instructions.extend(
            (wording, items[0].instruction) for wording, items in self._wordings.items()
        )
        self._inputs: dict[str, NoveltyIndex] = {}

    def find(self, rows: Sequence[_Row]) -> Iterable[tuple[int, _Finding]]:
        """The gravest finding of each row that has any, with the row's place."""
        for place, findings in groupby(self.find_all(rows), key=lambda found: found[0]):
            yield place, max((finding for _, finding in findings), key=lambda f: f.rank)

    def find_all(self, rows: Sequence[_Row]) -> Iterable[tuple[int, _Finding]]:
        """Every finding, with the row's place, row after row."""
        near = self._near({row.instruction for row in rows})
        for place, row in enumerate(rows):
            for finding in self._exact(row):
                yield place, finding
            for finding in self._by_instruction(row, near[row.instruction]):
                yield place, finding
            for finding in self._by_grams(row):
                yield place, finding

    def _near(self, instructions: set[str]) -> dict[str, dict[str, float]]:
        """Instruction -> wordings of the suite that are alike, with their F1, the highest first."""
        least = self._config.rouge_threshold - _ROUNDING
        texts = sorted(instructions)
        near: dict[str, dict[str, float]] = {text: {} for text in texts}
        best = self._instructions.search(texts)
        alike = [t for t, result in zip(texts, best, strict=True) if result.score >= least]
        # Few are: only they are worth the whole list.
        full = self._instructions.search(alike, k=len(self._wordings))
        for text, result in zip(alike, full, strict=True):
            near[text] = {n.id: n.score for n in result.nearest if n.score >= least}
        for text in texts:
            # Texts without a token that ROUGE-L sees score 0, equal or not.
            if (wording := normalise(text)) in self._wordings:
                near[text] = near[text] | {wording: 1.0}
        return near

    def _exact(self, row: _Row) -> Iterable[_Finding]:
        item = self._questions.get(normalise(f"{row.instruction} {row.input}"))
        if item is not None:
            yield _Finding("exact", "suite_exact", item, 1.0, "the same instruction and input")

    def _by_instruction(self, row: _Row, near: dict[str, float]) -> Iterable[_Finding]:
        for wording, score in near.items():
            said = f"ROUGE-L of the instructions {score:.3f}"
            item, alike = self._nearest_input(row, wording)
            if item is None:
                yield _Finding(
                    "instruction",
                    "suite_rouge",
                    self._wordings[wording][0],
                    score,
                    f"{said}, but another input",
                )
            else:
                yield _Finding("similar", "suite_rouge", item, score, f"{said}, {alike}")

    def _nearest_input(self, row: _Row, wording: str) -> tuple[_Item | None, str]:
        items = self._wordings[wording]
        given = normalise(row.input)
        for item in items:
            if normalise(item.input) == given:
                return item, "the same input" if given else "neither has an input"
        index = self._inputs.get(wording)
        if index is None:
            index = NoveltyIndex(threshold=self._config.rouge_threshold, tokenizer=self._tokenizer)
            index.extend((str(number), item.input) for number, item in enumerate(items))
            self._inputs[wording] = index
        best = index.search([row.input])[0]
        if not given or best.score < self._config.rouge_threshold - _ROUNDING:
            return None, ""
        return items[int(best.nearest[0].id)], f"of the inputs {best.score:.3f}"

    def _by_grams(self, row: _Row) -> Iterable[_Finding]:
        grams = self._grams(row.text)
        hits = Counter(n for gram in grams if gram in self._holders for n in self._holders[gram])
        least = self._config.ngram_threshold
        for number in hits:
            item = self.items[number]
            whole = len(grams & item.grams) / len(item.grams)
            own = len(grams & item.own) / len(item.own)
            if max(whole, own) >= least:
                level: Level = "similar" if own >= least else "instruction"
                what = f"holds {whole:.0%} of its {NGRAM}-grams"
                yield _Finding(level, "suite_ngram", item, whole, what)

    def _item(self, row: _Row) -> _Item:
        grams = self._grams(row.text)
        own = grams - self._grams(row.instruction) if row.input.strip() else grams
        return _Item(row.id, row.instruction, row.input, grams, own)

    def _grams(self, text: str) -> frozenset[int]:
        """Hashes of the 8-grams: a suite of long texts has millions."""
        found = words(text, self._tokenizer)
        return frozenset(hash(tuple(found[i : i + NGRAM])) for i in range(len(found) - NGRAM + 1))


def _examples(
    tasks: Sequence[SeedTask] | Sequence[EvalTask], source: Literal["seed", "demonstration"]
) -> list[_Row]:
    return [
        _Row(f"{task.id}#{number}", source, task.instruction, instance.input, instance.output)
        for task in tasks
        for number, instance in enumerate(task.instances)
    ]


def _is_dropped(row: _Row, level: Level, config: ContaminationConfig) -> bool:
    least = math.inf if config.drop == "none" else _GRAVITY[config.drop]
    return _GRAVITY[level] >= least and (row.source == "generated" or config.drop_seeds)


def _rejection(row: _Row, suite: str, finding: _Finding, dropped: bool) -> Rejection:
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
