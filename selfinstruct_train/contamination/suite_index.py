"""In which ways a row resembles a row of a suite, for many rows at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from selfinstruct_train.config import ContaminationConfig
from selfinstruct_train.records import EvalTask, SeedTask
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import TokenizerChoice, choose_tokenizer, words

Resemblance = Literal["instruction", "similar", "exact"]
Reason = Literal["suite_exact", "suite_rouge", "suite_ngram"]

NGRAM = 8
GRAVITY: dict[Resemblance, int] = {"instruction": 1, "similar": 2, "exact": 3}
_MARKS = ".,;:?!\"'“”‘’。，、；：？！"
# F1 of exactly 7/10 comes out a hair below or above, by the lengths alone.
_ROUNDING = 1e-9


class SuiteTasks(NamedTuple):
    """An evaluation suite as far as it matters here."""

    name: str
    tasks: tuple[EvalTask, ...]


class ExampleRow(NamedTuple):
    """A row that is trained on or shown."""

    id: str
    source: Literal["seed", "generated", "own", "replay", "demonstration"]
    instruction: str
    input: str
    output: str

    @property
    def text(self) -> str:
        """All that the row says."""
        return f"{self.instruction} {self.input} {self.output}"


class SuiteRow(NamedTuple):
    """A row of a suite."""

    id: str
    instruction: str
    input: str
    grams: frozenset[int]
    own: frozenset[int]
    """Those that are not of the instruction alone; all where there is no input."""


class Finding(NamedTuple):
    """A resemblance of a row with a row of a suite."""

    level: Resemblance
    reason: Reason
    item: SuiteRow
    score: float
    """ROUGE-L F1 or share of 8-grams, 0 to 1."""
    what: str
    """In which way, for a person."""

    @property
    def rank(self) -> tuple[int, float]:
        """The gravest is the highest."""
        return GRAVITY[self.level], self.score


def normalise(text: str) -> str:
    """Lower case, white space folded, marks at the ends of words left out.

    Marks within a word stay, and so do words of marks alone: ``3.5`` is not ``35``.
    """
    return " ".join(word.strip(_MARKS) or word for word in text.casefold().split())


class SuiteIndex:
    """A suite, arranged so that many rows are held against it quickly."""

    def __init__(
        self, suite: SuiteTasks, config: ContaminationConfig, tokenizer: TokenizerChoice
    ) -> None:
        self._config = config
        rows = examples(suite.tasks, "demonstration")
        self._tokenizer = choose_tokenizer(tokenizer, (row.text for row in rows))
        self._numbers: dict[str, int] = {}
        # In the suite's order.
        self.items = [self._item(row) for row in rows]
        self._questions = {normalise(f"{i.instruction} {i.input}"): i for i in self.items}
        self._wordings: dict[str, list[SuiteRow]] = defaultdict(list)
        self._holders: dict[int, list[int]] = defaultdict(list)
        for number, item in enumerate(self.items):
            self._wordings[normalise(item.instruction)].append(item)
            for gram in item.grams:
                self._holders[gram].append(number)
        self._instructions = NoveltyIndex(
            threshold=config.rouge_threshold, tokenizer=self._tokenizer
        )
        self._instructions.extend(
            (wording, items[0].instruction) for wording, items in self._wordings.items()
        )
        self._inputs: dict[str, NoveltyIndex] = {}

    def find(self, rows: Sequence[ExampleRow]) -> Iterable[tuple[int, Finding]]:
        """The gravest finding of each row that has any, with the row's place."""
        for place, findings in groupby(self.find_all(rows), key=lambda found: found[0]):
            yield place, max((finding for _, finding in findings), key=lambda f: f.rank)

    def find_all(self, rows: Sequence[ExampleRow]) -> Iterable[tuple[int, Finding]]:
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

    def _exact(self, row: ExampleRow) -> Iterable[Finding]:
        item = self._questions.get(normalise(f"{row.instruction} {row.input}"))
        if item is not None:
            yield Finding("exact", "suite_exact", item, 1.0, "the same instruction and input")

    def _by_instruction(self, row: ExampleRow, near: dict[str, float]) -> Iterable[Finding]:
        for wording, score in near.items():
            said = f"ROUGE-L of the instructions {score:.3f}"
            item, alike = self._nearest_input(row, wording)
            if item is None:
                yield Finding(
                    "instruction",
                    "suite_rouge",
                    self._wordings[wording][0],
                    score,
                    f"{said}, but another input",
                )
            else:
                yield Finding("similar", "suite_rouge", item, score, f"{said}, {alike}")

    def _nearest_input(self, row: ExampleRow, wording: str) -> tuple[SuiteRow | None, str]:
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

    def _by_grams(self, row: ExampleRow) -> Iterable[Finding]:
        grams = self._grams(row.text)
        hits = Counter(n for gram in grams if gram in self._holders for n in self._holders[gram])
        least = self._config.ngram_threshold
        # In the suite's order, so that of equals its first row is named.
        for number in sorted(hits):
            item = self.items[number]
            whole = len(grams & item.grams) / len(item.grams)
            own = len(grams & item.own) / len(item.own)
            if max(whole, own) >= least:
                level: Resemblance = "similar" if own >= least else "instruction"
                what = f"holds {whole:.0%} of its {NGRAM}-grams"
                yield Finding(level, "suite_ngram", item, whole, what)

    def _item(self, row: ExampleRow) -> SuiteRow:
        grams = self._grams(row.text)
        own = grams - self._grams(row.instruction) if row.input.strip() else grams
        # A text of one word over and over has no 8-grams beside its instruction's.
        return SuiteRow(row.id, row.instruction, row.input, grams, own or grams)

    def _grams(self, text: str) -> frozenset[int]:
        """Hashes of the 8-grams: a suite of long texts has millions.

        Of numbers, because hashes of strings change from process to process.
        """
        found = [
            self._numbers.setdefault(word, len(self._numbers))
            for word in words(text, self._tokenizer)
        ]
        return frozenset(hash(tuple(found[i : i + NGRAM])) for i in range(len(found) - NGRAM + 1))


def examples(
    tasks: Sequence[SeedTask] | Sequence[EvalTask], source: Literal["seed", "demonstration"]
) -> list[ExampleRow]:
    """Each instance of each task as a row, its id that of the task with the instance's place."""
    return [
        ExampleRow(f"{task.id}#{number}", source, task.instruction, instance.input, instance.output)
        for task in tasks
        for number, instance in enumerate(task.instances)
    ]
