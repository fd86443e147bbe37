"""Asking again: the answer alone of a written instance is asked for a second time, greedily.

Inputs want variety and so a high temperature, answers want the likeliest token: written in one go
they cannot have both. Asking again separates the two, and where a small model answers the same
twice it is right more often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.engines.asking import Journal
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.classification import Task
from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.filters import CheckedInstance, FilterResult, check_instances
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.prompting import Prompt, few_shot_prompt
from selfinstruct_train.records import Instance, Provenance, Sampling


class WrittenInstance(NamedTuple):
    """An instance, why it is dropped (None if it is kept), and where its answer comes from."""

    instance: Instance
    fault: FilterResult | None
    provenance: Provenance


class Written(NamedTuple):
    """The instances of a task as far as they have been filtered."""

    task: Task
    instances: list[WrittenInstance]
    provenance: Provenance
    """Of the request that wrote the instances."""


class Reanswer(NamedTuple):
    """Whom to ask again, how, and what the answer is for."""

    name: str
    """Part of the request ids; ``base`` or ``tuned``."""
    prompt: Callable[[str, str], Prompt]
    """(instruction, input) -> prompt."""
    shown: tuple[str, ...]
    """Ids of the prompt's demonstrations."""
    stop: tuple[str, ...]
    adapter: Path | None
    replaces: bool
    """The new answer replaces the written one; otherwise both must agree."""
    covers_classification: bool


def reanswers(context: StageContext) -> list[Reanswer]:
    """What the config asks for, in order."""
    generation, wording = context.config.generation, context.pack.wording
    shown = context.pack.input_first[: generation.instances.demonstrations]
    found = []
    if generation.instances.answers != "as_written":
        found.append(
            Reanswer(
                "base",
                lambda text, given: few_shot_prompt(wording, shown, text, given),
                tuple(task.id for task in shown),
                wording.few_shot_stop,
                None,
                generation.instances.answers == "asked_again",
                # Labels come before inputs, so the written label is not a guess at all.
                covers_classification=False,
            )
        )
    tuned_writes = generation.instance_writer == "tuned"
    if context.adapter is not None and (tuned_writes or generation.instances.consistency):
        found.append(
            Reanswer(
                "tuned",
                # Few-shot prompts are lost on a tuned model: it is asked in its own template.
                lambda text, given: Prompt("", (), context.tuned_prompt(text, given)),
                (),
                (),
                context.adapter,
                tuned_writes,
                covers_classification=True,
            )
        )
    return found


def ask_again(
    context: StageContext,
    journal: Journal,
    reanswer: Reanswer,
    written: Sequence[Written],
    first: int,
    counts: Counts,
) -> list[Written]:
    """Ask for the answer of every instance that is still kept, and filter it by what comes.

    Answers that replace the written ones meet every filter again: what was different before may
    now be the same twice, or contradict itself.

    Args:
        context: where to work.
        journal: of the instances' completions.
        reanswer: whom to ask, and what for.
        written: a batch of tasks and their instances.
        first: number of the batch's first task, for request ids.
        counts: told of the tokens written.

    Raises:
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    asked: list[tuple[int, int]] = []
    requests: list[Request] = []
    shown: list[tuple[str, ...]] = []
    for i, (task, instances, _) in enumerate(written):
        if task.is_classification and not reanswer.covers_classification:
            continue
        for j, found in enumerate(instances):
            if found.fault is None:
                request, ids = _request(context, reanswer, task, found.instance, first + i, j)
                asked.append((i, j))
                requests.append(request)
                shown.append(ids)
    answers = journal.ask(requests, reanswer.adapter) if requests else []
    counts.tokens += sum(answer.completion_tokens for answer in answers)
    result = [Written(task, list(instances), origin) for task, instances, origin in written]
    for (i, j), request, ids, completion in zip(asked, requests, shown, answers, strict=True):
        before = written[i].instances[j]
        answer = completion.text.strip()
        if completion.finish_reason == "length":
            after = before._replace(fault=FilterResult("second_answer_cut", answer[-40:]))
        elif reanswer.replaces:
            after = WrittenInstance(
                Instance(input=before.instance.input, output=answer),
                None,
                context.provenance(request, ids, reanswer.adapter),
            )
        elif answer != before.instance.output:
            evidence = f"the {reanswer.name} model, asked again, answers {answer[:80]!r}"
            after = before._replace(fault=FilterResult("inconsistent", evidence))
        else:
            continue
        result[i].instances[j] = after
    if reanswer.replaces:
        for i in dict.fromkeys(i for i, _ in asked):
            _filter_again(context, result[i])
    return result


def filter_instances(
    context: StageContext, task: Task, found: Sequence[Instance]
) -> list[CheckedInstance]:
    """What the instance filters say of a task's instances, in order."""
    config = context.config.generation
    return check_instances(
        task.row.instruction,
        found,
        task.is_classification,
        config.instances.max_per_instruction,
        config.filters.max_repeats,
        context.pack.wording,
    )


def _filter_again(context: StageContext, written: Written) -> None:
    kept = [j for j, found in enumerate(written.instances) if found.fault is None]
    results = filter_instances(context, written.task, [written.instances[j].instance for j in kept])
    for j, (_, fault) in zip(kept, results, strict=True):
        written.instances[j] = written.instances[j]._replace(fault=fault)


def _request(
    context: StageContext,
    reanswer: Reanswer,
    task: Task,
    instance: Instance,
    number: int,
    place_in: int,
) -> tuple[Request, tuple[str, ...]]:
    """The request, and the ids of the demonstrations that its prompt has room for."""
    most = context.config.generation.instances.max_tokens
    prompt = reanswer.prompt(task.row.instruction, instance.input)
    shown = reanswer.shown
    if prompt.demonstrations:
        prompt, kept = fit_prompt(context.engine, prompt, most)
        shown = tuple(shown[n] for n in kept)
    request_id = f"{context.request_id(reanswer.name, number)}-{place_in}"
    sampling = Sampling(max_tokens=most, stop=reanswer.stop)
    return Request(request_id, prompt.text, sampling), shown
