"""What steps 1 to 3 have in common: where they work, and how they count."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.config.generation import Style
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Engine, Request
from selfinstruct_train.generation.steering import Steering
from selfinstruct_train.generation.topic import Topic
from selfinstruct_train.generation.toxicity import ToxicityGate
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.progress import ProgressUpdate, Report
from selfinstruct_train.records import Provenance, Rejection
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.templates import ChatPrompt
from selfinstruct_train.text.words import TokenizerName


class StageContext(NamedTuple):
    """Everything that a step works with."""

    config: Config
    engine: Engine
    directory: RoundDirectory
    round: int
    pack: Pack
    adapter: Path | None
    """The tuned model of earlier rounds, or None in the first round."""
    tuned_prompt: Callable[[str, str], str]
    """(instruction, input) -> the prompt in the template that the adapter was tuned in."""
    report: Report
    tokenizer: TokenizerName = "rouge"
    """Of the pool, and so of all that is compared by its words."""
    chat: ChatTemplate | None = None
    """Of the model, for the steps that ask in it."""
    topic: Topic | None = None
    """What rows are held against; None where no domain is set."""
    toxicity: ToxicityGate | None = None
    """Drops what a classifier finds toxic; None where none is asked."""
    meanings: Callable[[Sequence[str]], NDArray[np.float32]] | None = None
    """Texts -> (texts, hidden size) of the base's mean hidden states; None where no weights are at
    hand."""
    steering: Steering | None = None
    """Draws what the tasks of each request shall be like; None where that is left to the model."""

    def style(self, step: Literal["instructions", "classification", "instances"]) -> Style:
        """How a step asks."""
        generation = self.config.generation
        chosen = getattr(generation, step).style or generation.style
        if chosen == "auto" or self.chat is None:
            return "completion"
        style: Style = chosen
        return style

    @property
    def chats(self) -> bool:
        """Whether what is no step of its own asks in messages."""
        return self.chat is not None and self.config.generation.style in ("chat", "magpie")

    @property
    def template(self) -> ChatTemplate:
        """The chat template of the model, in a step whose style needs one."""
        assert self.chat is not None
        return self.chat

    @property
    def own_template(self) -> ChatTemplate:
        """The same for the style ``magpie``, whose prompts have no header to name a domain in."""
        named = self.pack.wording.of_domain(self.config.seeds.domain)
        return self.template.with_system(named) if named else self.template

    def journal(self, stage: str) -> Journal:
        """The journal of a stage's completions."""
        path = self.directory.completions(stage)
        return Journal(self.directory.store(path, StoredCompletion), self.engine)

    def request_id(self, stage: str, index: int) -> str:
        """Id of a request, unique in the run."""
        return f"r{self.round}-{stage}-{index:06d}"

    def provenance(
        self, request: Request, demonstrations: Iterable[str], adapter: Path | None
    ) -> Provenance:
        """Where a row that this request yields comes from."""
        return Provenance(
            round=self.round,
            request=request.id,
            demonstrations=tuple(demonstrations),
            sampling=request.sampling,
            model=self.engine.model_id,
            adapter=adapter_name(adapter),
            prompt_hash=(
                self.pack.chat_hash if isinstance(request.prompt, ChatPrompt) else self.pack.hash
            ),
        )


def adapter_name(adapter: Path | None) -> str | None:
    """An adapter's folder as rows name it, relative to the run."""
    return None if adapter is None else "/".join(adapter.parts[-2:])


class Counts:
    """Running counts of a step, for progress and for its completion mark."""

    def __init__(self, stage: str, report: Report) -> None:
        self.stage = stage
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.tokens = 0
        self.trimmed = 0
        """Prompts that gave up demonstrations to fit the context."""
        self._report = report
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the step began in this process."""
        return time.monotonic() - self._began

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """Report the counts."""
        self._report(
            ProgressUpdate(
                self.stage,
                done,
                total,
                self.kept,
                self.dropped,
                self.tokens,
                self.seconds,
                note=note,
            )
        )

    def drop(self, store: RowStore[Rejection], rejections: list[Rejection]) -> None:
        """Store rejections and count their reasons."""
        store.emit(rejections)
        self.dropped.update(rejection.reason for rejection in rejections)
