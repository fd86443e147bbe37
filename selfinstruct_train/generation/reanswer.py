"""A second opinion on written instances: the answer alone is asked for again, greedily.

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
from selfinstruct_train.generation.context import Counts, Workplace
from selfinstruct_train.generation.filters import Fault, Judged, instance_fault
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.prompting import Prompt, few_shot_prompt
from selfinstruct_train.records import Instance, Instruction, Provenance, Sampling


class Task(NamedTuple):
    """An instruction that wants instances."""

    row: Instruction
    is_classification: bool


class Written(NamedTuple):
    """The instances of a task as far as they have been judged."""

    task: Task
    judged: list[Judged]
    provenance: Provenance


class Opinion(NamedTuple):
    """Whom to ask again, how, and what the answer is for."""

    name: str
    """Part of the request ids; ``base`` or ``tuned``."""
    prompt: Callable[[str, str], Prompt]
    """(instruction, input) -> prompt."""
    stop: tuple[str, ...]
    adapter: Path | None
    replaces: bool
    """The new answer replaces the written one; otherwise both must agree."""
    covers_classification: bool


def opinions(place: Workplace) -> list[Opinion]:
    """The second opinions that the config asks for, in the order in which they are heard."""
    generation, wording = place.config.generation, place.prompts.wording
    shown = place.prompts.input_first[: generation.instances.demonstrations]
    found = []
    if generation.instances.answers != "as_written":
        found.append(
            Opinion(
                "base",
                lambda text, given: few_shot_prompt(wording, shown, text, given),
                (f"\n{wording.task}", f"\n{wording.example} "),
                None,
                generation.instances.answers == "asked_again",
                # Labels come before inputs, so the written label is not a guess at all.
                covers_classification=False,
            )
        )
    tuned_writes = generation.instance_writer == "tuned"
    if place.adapter is not None and (tuned_writes or generation.instances.consistency):
        found.append(
            Opinion(
                "tuned",
                # Few-shot prompts are lost on a tuned model: it is asked in its own template.
                lambda text, given: Prompt("", (), place.tuned_prompt(text, given)),
                (),
                place.adapter,
                tuned_writes,
                covers_classification=True,
            )
        )
    return found


def hear(
    place: Workplace,
    journal: Journal,
    opinion: Opinion,
    written: Sequence[Written],
    first: int,
    counts: Counts,
) -> list[Written]:
    """Ask for the answer of every instance that is still kept, and judge it by what comes.

    Args:
        place: where to work.
        journal: of the instances' completions.
        opinion: whom to ask.
        written: a batch of tasks and their instances.
        first: number of the batch's first task, for request ids.
        counts: told of the tokens written.

    Raises:
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    most = place.config.generation.instances.max_tokens
    asked = [
        (i, j, judged.instance)
        for i, (task, judgements, _) in enumerate(written)
        for j, judged in enumerate(judgements)
        if judged.fault is None and (opinion.covers_classification or not task.is_classification)
    ]
    requests = [
        Request(
            f"{place.request_id(opinion.name, first + i)}-{j}",
            _fitted(place, opinion.prompt(written[i].task.row.instruction, given.input), most),
            Sampling(max_tokens=most, stop=opinion.stop),
        )
        for i, j, given in asked
    ]
    answers = journal.ask(requests, opinion.adapter) if requests else []
    counts.tokens += sum(answer.completion_tokens for answer in answers)
    heard = [Written(task, list(judged), origin) for task, judged, origin in written]
    for (i, j, given), completion in zip(asked, answers, strict=True):
        answer = completion.text.strip()
        if completion.finish_reason == "length":
            verdict = Judged(given, Fault("second_answer_cut", answer[-40:]))
        elif opinion.replaces:
            instance = Instance(input=given.input, output=answer)
            fault = instance_fault(
                heard[i].task.row.instruction,
                instance,
                place.config.generation.filters.max_repeats,
            )
            verdict = Judged(instance, fault)
        elif answer != given.output:
            evidence = f"the {opinion.name} model, asked again, answers {answer[:80]!r}"
            verdict = Judged(given, Fault("inconsistent", evidence))
        else:
            continue
        heard[i].judged[j] = verdict
    return heard


def _fitted(place: Workplace, prompt: Prompt, most: int) -> str:
    if not prompt.demonstrations:
        return prompt.text
    return fit_prompt(place.engine, prompt, most)[0].text
