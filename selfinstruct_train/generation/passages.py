"""Rows for the user's own texts: the model writes what each passage is the answer to.

Instruction backtranslation (Li et al., arXiv 2308.06259) and questions that a passage answers in
its own words. The instruction is the model's and goes through the filters and the novelty test as
any other; the answer is a person's, so nothing is drawn or asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from selfinstruct_train.config.generation import PassageTask
from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.classification import Task
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.entailment import Claim, Entailment
from selfinstruct_train.generation.filters import FilterResult
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.instructions import (
    FinishedInstructions,
    Found,
    InstructionWriter,
)
from selfinstruct_train.generation.passage_prompts import (
    ReadPassage,
    demonstrations_for,
    passage_prompt,
    passage_stop,
    read_passage,
)
from selfinstruct_train.generation.pool import derived_seed
from selfinstruct_train.generation.reanswer import Written, WrittenInstance, filter_instances
from selfinstruct_train.records import Provenance, Sampling
from selfinstruct_train.sources.texts import Passage
from selfinstruct_train.text.novelty import NoveltyIndex

_DIGITS = 4
_SHOWN = 80
"""Characters of an answer that a rejection shows."""


class PassageWriter:
    """Asks about passages, in an order that the run's seed shuffles, until a round has its share.

    Args:
        context: where to work.
        passages: all of the texts.
        first: how many of them earlier rounds have asked about.
        instructions: screens what was written and keeps what is new.
    """

    def __init__(
        self,
        context: StageContext,
        passages: Sequence[Passage],
        first: int,
        instructions: InstructionWriter | FinishedInstructions,
    ) -> None:
        seed = context.config.seed
        self._passages = sorted(
            passages, key=lambda passage: derived_seed(seed, "passages", passage.place.words)
        )
        self._next = first
        self._context = context
        self._instructions = instructions
        self._journal = context.journal("passages")
        self._counts = Counts(f"round {context.round} passages", context.report)
        # As in step 1: a model that has nothing to say is not asked about a whole library.
        self._recent: deque[bool] = deque(maxlen=context.config.generation.saturation_window)
        threshold = context.pack.rules.threshold(
            context.config.generation.filters.novelty_threshold
        )
        self._shown = NoveltyIndex(threshold=threshold, tokenizer=context.tokenizer)
        self._shown.extend((task.id, task.instruction) for task in context.pack.passages)
        judges = context.config.generation.passages.answers == "judged"
        self._entailment = Entailment(context.engine, context.pack) if judges else None

    def write(self) -> Iterator[list[Written]]:
        """Ask about passages, batch after batch.

        Yields:
            The instructions that were kept, each with its instance and what the filters say of it.

        Raises:
            EngineError: the engine failed, or a prompt cannot fit the context.
        """
        generation, counts = self._context.config.generation, self._counts
        step = generation.passages
        most = round(step.share * generation.instructions_per_round)
        # No more are asked about than may be kept, so that none is kept beyond the share.
        while missing := (most - counts.kept) // len(step.tasks):
            size = min(step.requests_per_batch, missing)
            batch = self._passages[self._next : self._next + size]
            if not batch:
                break
            written = self._write_batch(batch)
            self._next += len(batch)
            counts.kept += sum(any(i.fault is None for i in row.instances) for row in written)
            counts.show(counts.kept, most)
            if self._entailment is not None:
                self._instructions.note(self._entailment.figures)
            yield written
            if len(self._recent) == self._recent.maxlen:
                share = sum(self._recent) / len(self._recent)
                if share < generation.saturation_floor:
                    counts.show(counts.kept, most, note=f"saturated: {share:.0%} were new")
                    break

    def _write_batch(self, batch: Sequence[Passage]) -> list[Written]:
        context, asked = self._context, []
        for task in context.config.generation.passages.tasks:
            for number, passage in enumerate(batch, self._next):
                request, shown = self._ask(task, passage, number)
                asked.append((task, passage, request, shown))
        completions = self._journal.ask([request for _, _, request, _ in asked], None)
        self._counts.tokens += sum(one.completion_tokens for one in completions)
        read = [
            self._read(task, passage, completion)
            for (task, passage, _, _), completion in zip(asked, completions, strict=True)
        ]
        found = [
            self._found(one, self._provenance(passage, request, shown), margin)
            for (_, passage, request, shown), one, margin in zip(
                asked, read, self._margins(read), strict=True
            )
        ]
        tokens = sum(one.completion_tokens for one in completions)
        written = []
        for one, entry in zip(found, self._instructions.admit(found, tokens), strict=True):
            self._recent.append(entry is not None)
            if entry is not None:
                of = Task(entry, is_classification=False)
                assert one.instance is not None
                result = filter_instances(context, of, [one.instance])
                instances = [WrittenInstance(*row, one.provenance) for row in result]
                written.append(Written(of, instances, one.provenance))
        return written

    def _ask(
        self, task: PassageTask, passage: Passage, number: int
    ) -> tuple[Request, tuple[str, ...]]:
        """The request about a passage, and the ids of the demonstrations that it has room for."""
        context, step = self._context, self._context.config.generation.passages
        wording, name = context.pack.wording, f"{task}-passages"
        shown = demonstrations_for(task, context.pack)[: step.demonstrations]
        template = context.template if context.chats else None
        prompt = passage_prompt(task, wording, shown, passage.text, template)
        fitted, kept = fit_prompt(context.engine, prompt, step.max_tokens)
        sampling = Sampling(
            max_tokens=step.max_tokens,
            temperature=step.temperature,
            top_p=step.top_p,
            stop=() if context.chats else passage_stop(task, wording),
            seed=derived_seed(context.config.seed, context.round, name, number),
        )
        request = Request(context.request_id(name, number), fitted.text, sampling)
        return request, tuple(shown[n].id for n in kept)

    def _provenance(self, passage: Passage, request: Request, shown: tuple[str, ...]) -> Provenance:
        made = self._context.provenance(request, shown, None)
        own = {"passage": passage.place, "prompt_hash": self._context.pack.passages_hash}
        return made.model_copy(update=own)

    def _read(
        self, task: PassageTask, passage: Passage, completion: StoredCompletion
    ) -> ReadPassage:
        cut = completion.finish_reason == "length"
        wording = self._context.pack.wording
        return read_passage(task, wording, completion.text, passage.text, cut)

    def _margins(self, read: Sequence[ReadPassage]) -> list[float | None]:
        """What the writer says of the answers that do not stand in their passage as they are."""
        if self._entailment is None:
            return [None] * len(read)
        asks = [bool(not one.grounded and one.instruction and one.instance.output) for one in read]
        claims = [
            Claim(one.instance.input, one.instruction, one.instance.output)
            for one, ask in zip(read, asks, strict=True)
            if ask
        ]
        found = iter(self._entailment.margins(claims))
        return [next(found) if ask else None for ask in asks]

    def _found(self, read: ReadPassage, provenance: Provenance, margin: float | None) -> Found:
        if margin is not None:
            margin = round(margin, _DIGITS)
            provenance = provenance.model_copy(update={"entailment": margin})
        fault = self._not_said(read, margin)
        near = self._shown.search([read.instruction])[0]
        if fault is None and near.score > self._shown.threshold:
            # A small model names the task of a demonstration, whatever the passage is about.
            seen = f"ROUGE-L {near.score:.3f} with {near.nearest[0].id}"
            fault = FilterResult("copies_demonstration", seen)
        return Found(read.instruction, provenance, instance=read.instance, fault=fault)

    def _not_said(self, read: ReadPassage, margin: float | None) -> FilterResult | None:
        """Why an answer is not of its passage; None where it is, or where none was asked for."""
        if read.grounded:
            return None
        said = read.instance.output[:_SHOWN]
        if self._entailment is None or margin is None:
            return FilterResult("answer_not_in_text", said)
        if margin > (threshold := self._entailment.calibration.threshold):
            return None
        seen = f"{said} (margin {margin:+.2f}, the text says so above {threshold:+.2f})"
        return FilterResult("answer_not_entailed", seen)
