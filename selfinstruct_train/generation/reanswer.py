"""Asking again: the answer alone of a written instance is asked for a second time.

It is asked for once, greedily, or drawn several times, of which a chooser keeps one. Inputs want
variety and so a high temperature, answers want the likeliest token: written in one go they cannot
have both. Asking again separates the two, and where a small model answers the same twice it is
right more often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.chat_prompting import ChatTurns, chat_answer, shown_answers
from selfinstruct_train.generation.chooser_program import score_answers
from selfinstruct_train.generation.choosing import Draw, Drawn, choose
from selfinstruct_train.generation.classification import Task
from selfinstruct_train.generation.context import Counts, StageContext, adapter_name
from selfinstruct_train.generation.faults import text_faults
from selfinstruct_train.generation.filters import (
    OF_OUTPUT,
    CheckedInstance,
    FilterResult,
    check_instances,
)
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.pool import derived_seed
from selfinstruct_train.generation.prompting import Prompt, few_shot_prompt
from selfinstruct_train.generation.reasoning import final_answer, kept_text
from selfinstruct_train.generation.replies import unfenced
from selfinstruct_train.judging.arbiter import Answered
from selfinstruct_train.packs.language import language_test
from selfinstruct_train.records import DrawnAnswers, Instance, Provenance, Sampling


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
    is_cut: bool = False
    """Whether what it wrote ran to the limit of its tokens."""


class Reanswer(NamedTuple):
    """Whom to ask again, how, and what the answer is for."""

    name: str
    """Part of the request ids; ``base`` or ``tuned``."""
    prompt: Callable[[str, str], Prompt | ChatTurns]
    """(instruction, input) -> prompt."""
    shown: tuple[str, ...]
    """Ids of the prompt's demonstrations."""
    stop: tuple[str, ...]
    adapter: Path | None
    reasons: bool
    """It reasons first; the answer stands after a label."""
    replaces: bool
    """The new answer replaces the written one; otherwise both must agree."""
    covers_classification: bool


class Question(NamedTuple):
    """What is asked about one written instance."""

    task: int
    """Place of its task in the batch."""
    place: int
    """Its own place among the task's instances."""
    requests: tuple[Request, ...]
    """One, or one for each answer that is drawn: the same prompt with other seeds."""
    shown: tuple[str, ...]
    """Ids of the demonstrations that the prompt has room for."""


def reanswers(context: StageContext) -> list[Reanswer]:
    """What the config asks for, in order."""
    step, found = context.config.generation.instances, []
    draws = step.best_of > 1
    tuned_writes = _tuned_writes(context)
    # Drawn answers replace all others: they are drawn once, from whoever writes instances.
    if step.answers != "as_written" or (draws and not tuned_writes):
        found.append(_base(context, replaces=step.answers == "asked_again" or draws))
    if tuned_writes or (context.adapter is not None and step.consistency):
        found.append(_tuned(context, replaces=tuned_writes))
    return found


def answerer(context: StageContext) -> Reanswer:
    """Whoever writes the round's answers, asked for one again."""
    ask = _tuned if _tuned_writes(context) else _base
    return ask(context, replaces=True)


def _tuned_writes(context: StageContext) -> bool:
    return context.adapter is not None and context.config.generation.instance_writer == "tuned"


def _base(context: StageContext, replaces: bool) -> Reanswer:
    wording, style = context.pack.wording, context.style("instances")
    step = context.config.generation.instances
    named = wording.of_domain(context.config.seeds.domain)
    reasons = step.reasoning != "none"
    if reasons:
        # Nobody reasons in a way that is read without being shown.
        shown = context.pack.reasoned[: step.demonstrations]
    else:
        shown = shown_answers(context.pack.input_first, step, style)

    def ask(text: str, given: str) -> Prompt | ChatTurns:
        if style == "completion":
            return few_shot_prompt(wording, shown, text, given)
        if style == "magpie":
            return chat_answer(shown, text, given, context.own_template)
        return chat_answer(shown, text, given, context.template, named)

    return Reanswer(
        "base",
        ask,
        tuple(task.id for task in shown),
        wording.few_shot_stop if style == "completion" else (),
        None,
        reasons,
        replaces,
        # Labels come before inputs, so the written label is not a guess at all.
        covers_classification=False,
    )


def _tuned(context: StageContext, replaces: bool) -> Reanswer:
    return Reanswer(
        "tuned",
        # Few-shot prompts are lost on a tuned model: it is asked in its own template.
        lambda text, given: Prompt("", (), context.tuned_prompt(text, given)),
        (),
        (),
        context.adapter,
        False,
        replaces,
        covers_classification=True,
    )


def ask_again(
    context: StageContext,
    journal: Journal,
    reanswer: Reanswer,
    written: Sequence[Written],
    first: int,
    counts: Counts,
) -> tuple[list[Written], list[DrawnAnswers]]:
    """Ask for the answer of every instance that is still kept, and filter it by what comes.

    Answers that replace the written ones meet every filter again: what was different before may
    now be the same twice, or contradict itself. They are also asked for where nothing but the
    written answer is at fault.

    Args:
        context: where to work.
        journal: of the instances' completions.
        reanswer: whom to ask, and what for.
        written: a batch of tasks and their instances.
        first: number of the batch's first task, for request ids.
        counts: told of the tokens written.

    Returns:
        The tasks as they are now; and all answers, where several were drawn for an input.

    Raises:
        ConfigError: the chooser of drawn answers is at fault.
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    asked = [
        _question(context, reanswer, task, found.instance, first + i, i, j)
        for i, (task, instances, *_) in enumerate(written)
        if reanswer.covers_classification or not task.is_classification
        for j, found in enumerate(instances)
        if found.fault is None or (reanswer.replaces and found.fault.reason in OF_OUTPUT)
    ]
    requests = [request for question in asked for request in question.requests]
    answers = journal.ask(requests, reanswer.adapter) if requests else []
    counts.tokens += sum(answer.completion_tokens for answer in answers)
    result = [one._replace(instances=list(one.instances)) for one in written]
    step, waiting = context.config.generation.instances, iter(answers)
    completions = [[next(waiting) for _ in question.requests] for question in asked]
    drawn: list[DrawnAnswers] = []
    if reanswer.replaces and step.best_of > 1:
        picked, drawn = _choose(context, reanswer, asked, completions, written)
    else:
        picked = [_pick(context, reanswer, found) for (found,) in completions]
    for question, found, pick in zip(asked, completions, picked, strict=True):
        before = written[question.task].instances[question.place]
        answer = answer_output(context, reanswer, found[pick.place])
        if pick.fault is not None:
            after = before._replace(fault=pick.fault)
        elif reanswer.replaces:
            request = question.requests[pick.place]
            after = WrittenInstance(
                Instance(input=before.instance.input, output=answer),
                None,
                answer_provenance(context, reanswer, request, question.shown),
            )
        elif answer != before.instance.output:
            evidence = f"the {reanswer.name} model, asked again, answers {answer[:80]!r}"
            after = before._replace(fault=FilterResult("inconsistent", evidence))
        else:
            continue
        result[question.task].instances[question.place] = after
    if reanswer.replaces:
        for i in dict.fromkeys(question.task for question in asked):
            filter_again(context, result[i])
    return result, drawn


def hold_against_program(context: StageContext, written: Sequence[Written]) -> None:
    """Drop labels that were written before their inputs, and so not drawn, by the user's program.

    Raises:
        ConfigError: the program is at fault.
    """
    step = context.config.generation.instances
    if step.chooser != "program" or step.best_of == 1 or _tuned_writes(context):
        return
    kept = [
        (
            row,
            place,
            Answered(row.task.row.instruction, found.instance.input, found.instance.output),
        )
        for row in written
        if row.task.is_classification
        for place, found in enumerate(row.instances)
        if found.fault is None
    ]
    assert step.chooser_program is not None  # the config has seen to it
    answers = [answer for _, _, answer in kept]
    scores = score_answers(step.chooser_program, answers, step.chooser_seconds)
    for (row, place, _), score in zip(kept, scores, strict=True):
        if score <= 0:
            seen = FilterResult("no_choice", f"the written label has {score:.2f} by program")
            row.instances[place] = row.instances[place]._replace(fault=seen)


class Picked(NamedTuple):
    """Which completion counts, or why none does."""

    place: int
    fault: FilterResult | None


def _pick(context: StageContext, reanswer: Reanswer, found: StoredCompletion) -> Picked:
    """The one answer that was asked for, or why it does not count."""
    text = found.text.strip()
    if found.finish_reason == "length":
        return Picked(0, FilterResult("second_answer_cut", text[-40:]))
    if reanswer.reasons and not final_answer(text, context.pack.wording):
        return Picked(0, FilterResult("no_answer", f"no label after the reasoning: {text[-40:]}"))
    return Picked(0, None)


def answer_output(context: StageContext, reanswer: Reanswer, found: StoredCompletion) -> str:
    """What a row's output becomes; empty where reasoning came to no answer."""
    if not reanswer.reasons:
        chats = context.style("instances") != "completion"
        return (unfenced(found.text) if chats else found.text).strip()
    shows = context.config.generation.instances.reasoning == "shown"
    return kept_text(found.text, context.pack.wording, shows)


def answer_provenance(
    context: StageContext, reanswer: Reanswer, request: Request, shown: tuple[str, ...]
) -> Provenance:
    """Where an answer that was asked for again comes from."""
    made = context.provenance(request, shown, reanswer.adapter)
    if reanswer.reasons:
        made = made.model_copy(update={"prompt_hash": context.pack.reasoned_hash})
    return made


def _choose(
    context: StageContext,
    reanswer: Reanswer,
    asked: Sequence[Question],
    completions: Sequence[Sequence[StoredCompletion]],
    written: Sequence[Written],
) -> tuple[list[Picked], list[DrawnAnswers]]:
    """One of the answers drawn for each question, and all of them with their scores."""
    step = context.config.generation.instances
    found = []
    for question, answers in zip(asked, completions, strict=True):
        draws = tuple(_draw(context, reanswer, answer) for answer in answers)
        task, instances, *_ = written[question.task]
        given = instances[question.place].instance.input
        found.append(Drawn(task.row.instruction, given, draws))
    choices = choose(step, found, context.engine, context.pack, context.tokenizer)
    picked, rows = [], []
    for question, drawn, answers, choice in zip(asked, found, completions, choices, strict=True):
        fault = None if choice.place is not None else FilterResult("no_choice", choice.evidence)
        picked.append(Picked(choice.place or 0, fault))
        rows.append(
            DrawnAnswers(
                id=f"{written[question.task].task.row.id}-{question.place}",
                instruction=drawn.instruction,
                input=drawn.input,
                # As they would be trained on: pairs are made of them.
                answers=tuple(answer_output(context, reanswer, answer) for answer in answers),
                scores=choice.scores,
                chosen=choice.place,
                chooser=step.chooser,
                adapter=adapter_name(reanswer.adapter),
            )
        )
    return picked, rows


def _draw(context: StageContext, reanswer: Reanswer, found: StoredCompletion) -> Draw:
    """A drawn answer as a chooser compares it: less the reasoning that led to it."""
    text = found.text.strip()
    if reanswer.reasons:
        text = final_answer(text, context.pack.wording)
    return Draw(text, found.finish_reason == "length", found.mean_logprob)


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
        language_test(context.pack.rules.language),
        text_faults(context.pack.rules.faults),
        config.filters.personal_data,
    )


def filter_again(context: StageContext, written: Written) -> None:
    """Put the kept instances of a task through the filters once more: other answers are there."""
    kept = [j for j, found in enumerate(written.instances) if found.fault is None]
    results = filter_instances(context, written.task, [written.instances[j].instance for j in kept])
    for j, (_, fault) in zip(kept, results, strict=True):
        written.instances[j] = written.instances[j]._replace(fault=fault)


def reanswer_prompt(
    context: StageContext, reanswer: Reanswer, instruction: str, given: str
) -> tuple[str, tuple[str, ...]]:
    """The prompt that asks for an answer, and the ids of the demonstrations that it shows.

    Raises:
        EngineError: it does not fit the context.
    """
    prompt, shown = reanswer.prompt(instruction, given), reanswer.shown
    if prompt.demonstrations:
        most = context.config.generation.instances.max_tokens
        prompt, kept = fit_prompt(context.engine, prompt, most)
        shown = tuple(shown[n] for n in kept)
    return prompt.text, shown


def _question(
    context: StageContext,
    reanswer: Reanswer,
    task: Task,
    instance: Instance,
    number: int,
    task_place: int,
    place: int,
) -> Question:
    """What is asked about one instance: once, or as often as answers are drawn."""
    step = context.config.generation.instances
    text, shown = reanswer_prompt(context, reanswer, task.row.instruction, instance.input)
    name = f"{context.request_id(reanswer.name, number)}-{place}"
    greedy = Sampling(max_tokens=step.max_tokens, stop=reanswer.stop)
    if not (reanswer.replaces and step.best_of > 1):
        requests: tuple[Request, ...] = (Request(name, text, greedy),)
    else:
        requests = tuple(
            Request(
                f"{name}-draw-{n}",
                text,
                greedy.model_copy(
                    update={
                        "temperature": step.draw_temperature,
                        "seed": derived_seed(
                            context.config.seed, context.round, "draws", task.row.id, place, n
                        ),
                    }
                ),
            )
            for n in range(step.best_of)
        )
    return Question(task_place, place, requests, shown)
