"""What an instruction is about and what kind of work it asks for, by the model's own label.

As in step 2, the model is asked few-shot and its log-probabilities are compared: of each label that
the seeds have. What a label gets after inputs without content is taken off first (contextual
calibration, Zhao et al., arXiv 2102.09690), since models prefer some words whatever is asked. How
often that is right is measured on the seeds, each asked without itself among the demonstrations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.engines.base import Engine
from selfinstruct_train.generation.calibration import CONTENT_FREE
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.fitting import fit_prompt, score_few_shot
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.generation.prompting import Prompt, one_line
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instruction, Labelled, SeedTask

Kind = Literal["category", "task_type"]
_KINDS: tuple[Kind, ...] = ("category", "task_type")
_SHOWN = 3
"""Most demonstrations of each label."""
_DIGITS = 4


class Label(NamedTuple):
    """A label and how clearly the model prefers it."""

    name: str
    margin: float
    """Calibrated log-probability less that of the next best."""


def label_instructions(context: StageContext, seeds: Sequence[SeedTask]) -> None:
    """Label all instructions of the round into ``labels.jsonl``, or those that a stop left.

    A batch is stored whole or not at all: beside other prompts a score may differ in its last
    digit.

    Raises:
        EngineError: the engine failed, gives no log-probabilities, or a prompt cannot fit.
        DataError: a row of the round is damaged.
    """
    directory = context.directory
    size = context.config.generation.classification.requests_per_batch
    counts = Counts(f"round {context.round} labels", context.report)
    store = directory.store(directory.labels, Labelled)
    done = store.resume(size)
    total = sum(1 for _ in _instructions(context))
    rows = islice(_instructions(context), done, None)
    rng = derived_rng(context.config.seed, "demonstrations of labels")
    shuffled = rng.sample(list(seeds), len(seeds))
    labellers = [
        Labeller(context.engine, context.pack.wording, kind, shuffled) for kind in kinds_of(seeds)
    ]
    while batch := list(islice(rows, size)):
        found = {one.kind: one.labels([row.instruction for row in batch]) for one in labellers}
        store.emit(_labelled(row.id, i, found) for i, row in enumerate(batch))
        done += len(batch)
        counts.show(done, total)
    store.emit(())
    figures = {name: value for one in labellers for name, value in one.figures().items()}
    directory.finish("labels", counts.seconds, instructions=total, **figures)


class Labeller:
    """Chooses one of the labels of a kind that the seeds have."""

    def __init__(
        self, engine: Engine, wording: Wording, kind: Kind, seeds: Sequence[SeedTask]
    ) -> None:
        """Choose the demonstrations and see what labels get after inputs without content.

        Args:
            engine: whom to ask.
            wording: of the question.
            kind: which label.
            seeds: in the order in which they are shown; those without the label are left out.

        Raises:
            EngineError: the engine failed or gives no log-probabilities.
        """
        self.kind = kind
        self._engine, self._wording = engine, wording
        self._known = known_of(kind, seeds)
        self.names = list(dict.fromkeys(_label(kind, task) for task in self._known))
        self._shown = shown_of(kind, self._known)
        self._prior = self._scores(CONTENT_FREE).mean(axis=0)

    def labels(self, texts: Sequence[str]) -> list[Label]:
        """The label of each instruction.

        Raises:
            EngineError: the engine failed, or a prompt cannot fit the context.
        """
        found = []
        for scores in self._scores(texts) - self._prior:
            best, second = np.argsort(-scores, kind="stable")[:2]
            margin = round(float(scores[best] - scores[second]), _DIGITS)
            found.append(Label(self.names[best], margin))
        return found

    def figures(self) -> dict[str, float]:
        """Share of the seeds that get their own label, and of those that have the commonest."""
        given = [_label(self.kind, task) for task in self._known]
        found = self.labels([task.instruction for task in self._known])
        right = sum(label.name == own for label, own in zip(found, given, strict=True))
        commonest = Counter(given).most_common(1)[0][1]
        return {
            f"{self.kind}_right_on_seeds": right / len(given),
            f"{self.kind}_share_of_commonest": commonest / len(given),
        }

    def _scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each label (columns) after each text (rows)."""
        gap = self._wording.gap
        asked = []
        for text in texts:
            # A seed that is shown with its label would tell nothing of how it is labelled.
            others = [task for task in self._shown if task.instruction != text]
            prompt = label_prompt(self._wording, self.kind, others, text)
            fitted, _ = fit_prompt(self._engine, prompt, max_tokens=16)
            asked.append((fitted.prefix, fitted.question))
        return np.array(score_few_shot(self._engine, asked, [gap + n for n in self.names]))


def kinds_of(seeds: Sequence[SeedTask]) -> list[Kind]:
    """The kinds of labels in which some seeds differ."""
    return [kind for kind in _KINDS if len({getattr(task, kind) for task in seeds} - {None}) > 1]


def known_of(kind: Kind, seeds: Sequence[SeedTask]) -> list[SeedTask]:
    """The seeds that have a label of a kind."""
    return [task for task in seeds if getattr(task, kind) is not None]


def shown_of(kind: Kind, known: Sequence[SeedTask]) -> list[SeedTask]:
    """As many of each label as there are of the rarest, and a few at most."""
    by_label: dict[str, list[SeedTask]] = defaultdict(list)
    for task in known:
        by_label[_label(kind, task)].append(task)
    each = max(1, min(_SHOWN, *map(len, by_label.values())))
    chosen = {id(task) for group in by_label.values() for task in group[:each]}
    return [task for task in known if id(task) in chosen]


def label_prompt(wording: Wording, kind: Kind, shown: Sequence[SeedTask], text: str) -> Prompt:
    """Ask for the label of an instruction, after tasks that have theirs."""
    header, label = (
        (wording.category_header, wording.category)
        if kind == "category"
        else (wording.task_type_header, wording.task_type)
    )

    def ask(instruction: str) -> str:
        return f"\n{wording.task}{wording.gap}{one_line(instruction)}\n{label}"

    demonstrations = tuple(
        f"{ask(task.instruction)}{wording.gap}{_label(kind, task)}\n" for task in shown
    )
    return Prompt(header + "\n", demonstrations, ask(text))


def _label(kind: Kind, task: SeedTask) -> str:
    found: str = getattr(task, kind)
    return found


def _labelled(row_id: str, place: int, found: dict[Kind, list[Label]]) -> Labelled:
    by_kind = {kind: labels[place] for kind, labels in found.items()}
    category, task_type = by_kind.get("category"), by_kind.get("task_type")
    return Labelled(
        id=row_id,
        category=category.name if category else None,
        category_margin=category.margin if category else None,
        task_type=task_type.name if task_type else None,
        task_type_margin=task_type.margin if task_type else None,
    )


def _instructions(context: StageContext) -> Iterator[Instruction]:
    return context.directory.store(context.directory.instructions, Instruction).stream()
