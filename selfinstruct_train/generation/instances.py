"""Step 3: worked examples, input-first for most tasks and output-first for classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.chat_prompting import (
    ChatTurns,
    chat_answer,
    chat_input_first,
    chat_output_first,
    shown_answers,
)
from selfinstruct_train.generation.classification import Task
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.evolution import ParentAnswers
from selfinstruct_train.generation.filters import FilterResult
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.fixing import Fixer
from selfinstruct_train.generation.pool import derived_seed
from selfinstruct_train.generation.prompting import (
    Prompt,
    input_first_prompt,
    output_first_prompt,
)
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.generation.reanswer import (
    Written,
    WrittenInstance,
    ask_again,
    filter_instances,
    hold_against_program,
    reanswers,
)
from selfinstruct_train.generation.replies import read_reply_examples, unfenced
from selfinstruct_train.records import (
    DrawnAnswers,
    GeneratedInstance,
    Instance,
    Rejection,
    Sampling,
    SeedTask,
)


class InstanceWriter:
    """Writes instances for the instructions of the round and keeps those that pass the filters."""

    def __init__(
        self,
        context: StageContext,
        seeds: Sequence[SeedTask],
        parents: ParentAnswers | None = None,
    ) -> None:
        self._context = context
        self._parents = parents
        self._kept = context.directory.store(context.directory.instances, GeneratedInstance)
        self._rejected = context.directory.store(context.directory.rejected("instances"), Rejection)
        self._draws = context.config.generation.instances.best_of > 1
        self._drawn = context.directory.store(context.directory.drawn, DrawnAnswers)
        self._journal = context.journal("instances")
        fixes = context.config.generation.instances.fix
        self._fixer = Fixer(context, self._journal, seeds) if fixes else None
        self._counts = Counts(f"round {context.round} instances", context.report)
        self._done = self._without = self._on_topic = 0

    @property
    def with_instance(self) -> int:
        """Instructions that have an instance."""
        return self._done - self._without

    def write(self, tasks: Sequence[Task]) -> None:
        """Write the instances of the next tasks of the round.

        Raises:
            EngineError: the engine failed, or a prompt cannot fit the context.
        """
        context, journal, counts = self._context, self._journal, self._counts
        total = self._done + len(tasks)
        for batch in _batches(tasks, context.config.generation.instances.requests_per_batch):
            written = _write_batch(context, journal, batch, self._done, counts)
            for reanswer in reanswers(context):
                written, drawn = ask_again(context, journal, reanswer, written, self._done, counts)
                if self._draws:
                    self._drawn.emit(drawn)
            hold_against_program(context, written)
            if self._fixer is not None:
                written = self._fixer.fix(written, self._done, counts)
            self.store(written)
            counts.show(self._done, total)

    def store(self, written: Sequence[Written]) -> None:
        """Keep the instances of the next tasks of the round, or drop them, as the filters say."""
        counts = self._counts
        sorted_out = []
        for row in written:
            harmless = self._hold_against_toxicity(self._hold_against_parent(row))
            kept, dropped = _rows(self._hold_against_topic(harmless))
            if self._parents is not None:
                self._parents.learn(kept)
            sorted_out.append((kept, dropped))
        self._kept.emit(row for kept, _ in sorted_out for row in kept)
        counts.drop(self._rejected, [row for _, dropped in sorted_out for row in dropped])
        counts.kept += sum(len(kept) for kept, _ in sorted_out)
        self._without += sum(not kept for kept, _ in sorted_out)
        self._done += len(written)

    def finish(self) -> None:
        """Write the completion mark."""
        counts = self._counts
        self._context.directory.finish(
            "instances",
            counts.seconds,
            instructions=self._done,
            kept=counts.kept,
            dropped=counts.dropped.total(),
            instructions_without_instance=self._without,
            completion_tokens=counts.tokens,
            trimmed_prompts=counts.trimmed,
            **self._topic_figures(),
            **(self._fixer.figures() if self._fixer and self._done else {}),
        )

    def _hold_against_parent(self, written: Written) -> Written:
        """Drop what answers an evolved instruction as the one it was made of is answered."""
        parents, parent = self._parents, written.task.row.parent
        if parents is None or parent is None:
            return written
        held = [
            found._replace(fault=found.fault or parents.fault(parent, found.instance))
            for found in written.instances
        ]
        return written._replace(instances=held)

    def _hold_against_toxicity(self, written: Written) -> Written:
        """Drop what the classifier finds toxic, where one is asked."""
        gate, text = self._context.toxicity, written.task.row.instruction
        if gate is None:
            return written
        held = [
            found._replace(
                fault=found.fault or gate.fault(text, found.instance.input, found.instance.output)
            )
            for found in written.instances
        ]
        return written._replace(instances=held)

    def _hold_against_topic(self, written: Written) -> Written:
        """Count the rows on the seeds' topic, and drop the others where that is asked for."""
        context, text = self._context, written.task.row.instruction
        if context.topic is None:
            return written
        drops, instances = context.config.seeds.off_topic == "drop", []
        for found in written.instances:
            if found.fault is None:
                score = context.topic.score(text, found.instance)
                self._on_topic += score > 0
                if drops and score <= 0:
                    fault = FilterResult("off_topic", f"{score:+.3f} from the threshold")
                    found = found._replace(fault=fault)
            instances.append(found)
        return written._replace(instances=instances)

    def _topic_figures(self) -> dict[str, float | None]:
        if self._context.topic is None:
            return {}
        figures, kept = self._context.topic.figures, self._counts.kept
        held = kept + self._counts.dropped["off_topic"]
        return {
            "on_topic": self._on_topic / held if held else None,
            "seeds_on_topic": figures.seeds_on_topic,
            "everyday_on_topic": figures.everyday_on_topic,
        }


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    # The two kinds have different prompts: apart, each batch shares one long prefix.
    for kind in (False, True):
        group = [task for task in tasks if task.is_classification == kind]
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _write_batch(
    context: StageContext, journal: Journal, batch: Sequence[Task], first: int, counts: Counts
) -> list[Written]:
    step = context.config.generation.instances
    requests, shown = [], []
    for i, task in enumerate(batch, first):
        prompt = _prompt(context, task)
        fitted, kept = fit_prompt(context.engine, prompt, step.max_tokens)
        counts.trimmed += len(kept) < len(prompt.demonstrations)
        demonstrations = _demonstrations(context, task.is_classification)
        shown.append(tuple(demonstrations[n].id for n in kept))
        sampling = Sampling(
            max_tokens=step.max_tokens,
            temperature=step.temperature,
            top_p=step.top_p,
            top_k=step.top_k,
            repetition_penalty=step.repetition_penalty,
            stop=_stop(context),
            seed=derived_seed(context.config.seed, context.round, "instances", task.row.id),
        )
        requests.append(Request(context.request_id("instances", i), fitted.text, sampling))
    completions = journal.ask(requests, None)
    counts.tokens += sum(c.completion_tokens for c in completions)
    written = []
    for task, request, completion, ids in zip(batch, requests, completions, shown, strict=True):
        provenance = context.provenance(request, ids, None)
        filtered = filter_instances(context, task, _read(context, task, completion))
        instances = [WrittenInstance(*result, provenance) for result in filtered]
        is_cut = completion.finish_reason == "length"
        written.append(Written(task, instances, provenance, is_cut))
    return written


def _stop(context: StageContext) -> tuple[str, ...]:
    # An answer to the instruction alone may well hold the label of the next task.
    own = context.style("instances") == "magpie"
    return () if own else (f"\n{context.pack.wording.task}",)


def _demonstrations(context: StageContext, is_classification: bool) -> tuple[SeedTask, ...]:
    pack, step = context.pack, context.config.generation.instances
    if (style := context.style("instances")) == "magpie":
        return shown_answers(pack.input_first, step, style)
    group = pack.output_first if is_classification else pack.input_first
    return group[: step.demonstrations]


def _prompt(context: StageContext, task: Task) -> Prompt | ChatTurns:
    text, wording = task.row.instruction, context.pack.wording
    demonstrations = _demonstrations(context, task.is_classification)
    match context.style("instances"):
        case "completion":
            make = output_first_prompt if task.is_classification else input_first_prompt
            return make(wording, demonstrations, text)
        case "chat":
            ask = chat_output_first if task.is_classification else chat_input_first
            return ask(wording, demonstrations, text, context.template)
        case "magpie":
            return chat_answer(demonstrations, text, "", context.own_template)


def _read(context: StageContext, task: Task, completion: StoredCompletion) -> list[Instance]:
    cut, wording = completion.finish_reason == "length", context.pack.wording
    match context.style("instances"):
        case "completion":
            read = read_output_first if task.is_classification else read_input_first
            return read(wording, completion.text, cut)
        case "chat":
            return read_reply_examples(wording, completion.text, cut, task.is_classification)
        case "magpie":
            return [] if cut else [Instance(input="", output=unfenced(completion.text).strip())]


def _rows(written: Written) -> tuple[list[GeneratedInstance], list[Rejection]]:
    kept: list[GeneratedInstance] = []
    dropped: list[Rejection] = []
    task, instances, origin, is_cut = written
    if not instances:
        told = "no instance was complete after generation.instances.max_tokens"
        dropped.append(
            Rejection(
                stage="instance",
                reason="cut" if is_cut else "unreadable",
                evidence=told if is_cut else "the completion holds no complete instance",
                instruction=task.row.instruction,
                instruction_id=task.row.id,
                provenance=origin,
            )
        )
    for number, (instance, fault, provenance) in enumerate(instances):
        if fault is None:
            kept.append(
                GeneratedInstance(
                    id=f"{task.row.id}-{number}",
                    instruction_id=task.row.id,
                    instruction=task.row.instruction,
                    input=instance.input,
                    output=instance.output,
                    is_classification=task.is_classification,
                    provenance=provenance,
                )
            )
        else:
            dropped.append(
                Rejection(
                    stage="instance",
                    reason=fault.reason,
                    evidence=fault.evidence,
                    instruction=task.row.instruction,
                    instruction_id=task.row.id,
                    input=instance.input,
                    output=instance.output,
                    provenance=provenance,
                )
            )
    return kept, dropped
