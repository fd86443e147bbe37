"""Requests of step 1: what is asked, and how the instructions are read from the answer.

Most continue a numbered list of demonstrations. Where the config asks for it, some ask for an
operation on one instruction instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.augment import (
    Variation,
    draw_variation,
    read_variation,
    variation_prompt,
    variation_stop,
)
from selfinstruct_train.generation.chat_prompting import ChatList, chat_instructions
from selfinstruct_train.generation.context import StageContext
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.list_items import read_instructions
from selfinstruct_train.generation.pool import Entry, Group, Pool, derived_rng, derived_seed
from selfinstruct_train.generation.prompting import Prompt, instruction_prompt, one_line
from selfinstruct_train.generation.replies import read_reply_list
from selfinstruct_train.records import Attribute, Provenance, Sampling


class AskedInstructions(NamedTuple):
    """A request, and where what it yields comes from."""

    request: Request
    provenance: Provenance
    shown: int
    """Instructions that its prompt shows."""
    group: Group
    """The labels of most of them."""
    trimmed: bool
    """Whether it gave up demonstrations to fit the context."""


def ask_instructions(context: StageContext, pool: Pool, index: int) -> AskedInstructions:
    """The next request of the round; it follows from its number and the pool.

    Raises:
        EngineError: not even one demonstration fits into the context.
    """
    key = (context.config.seed, context.round, "instructions", index)
    variation = draw_variation(context, pool, derived_rng(*key, "operation"))
    if variation is not None:
        return _ask_variation(context, variation, index)
    steering = context.steering
    drawn = steering.draw(context.round, "instructions", index) if steering else ()
    said = steering.said(drawn) if steering else ""
    if context.style("instructions") == "magpie":
        template = context.own_template.with_system(said) if said else context.own_template
        request = _request(context, index, template.user_prefix(), _stop(context))
        provenance = _provenance(context, request, (), drawn)
        return AskedInstructions(request, provenance, 0, Group(), False)
    step = context.config.generation.instructions
    seeds, machine = step.seed_demonstrations, step.machine_demonstrations
    shown = pool.demonstrations(
        derived_rng(*key, "demonstrations"), seeds, machine, list_room(context, seeds + machine)
    )
    prompt = _list_prompt(context, shown, said)
    fitted, kept = fit_prompt(context.engine, prompt, step.max_tokens)
    trimmed = len(kept) < len(shown)
    if trimmed:
        shown = [shown[i] for i in kept]
        fitted = _list_prompt(context, shown, said)
    request = _request(context, index, fitted.text, _stop(context))
    provenance = _provenance(context, request, shown, drawn)
    return AskedInstructions(request, provenance, len(shown), Group.of_most(shown), trimmed)


def read_answer(
    context: StageContext, completion: StoredCompletion, asked: AskedInstructions
) -> list[str]:
    """The instructions that an answer holds, as many as there was room for."""
    cut, label = completion.finish_reason == "length", context.pack.wording.task
    if asked.provenance.operation is not None:
        return read_variation(context, completion.text, cut)
    match context.style("instructions"):
        case "completion":
            found = read_instructions(completion.text, asked.shown + 1, cut, label)
        case "chat":
            found = read_reply_list(completion.text, cut, label)
        case "magpie":
            found = [] if cut or not completion.text.strip() else [one_line(completion.text)]
    return found[: list_room(context, asked.shown)]


def list_room(context: StageContext, shown: int) -> int:
    """Most instructions that the answer to a request for a list may hold."""
    if context.style("instructions") == "magpie":
        return 1
    return max(0, context.config.generation.instructions.last_item - 1 - shown)


def _ask_variation(context: StageContext, variation: Variation, index: int) -> AskedInstructions:
    prompt = variation_prompt(context, variation)
    most = context.config.generation.instructions.max_tokens
    fitted, kept = fit_prompt(context.engine, prompt, most)
    request = _request(context, index, fitted.text, variation_stop(context))
    provenance = context.provenance(request, (variation.parent.id,), _adapter(context))
    changes = {"operation": variation.label, "prompt_hash": variation.operation.hash}
    return AskedInstructions(
        request,
        provenance.model_copy(update=changes),
        1,
        variation.parent.group,
        len(kept) < len(prompt.demonstrations),
    )


def _request(context: StageContext, index: int, prompt: str, stop: tuple[str, ...]) -> Request:
    step = context.config.generation.instructions
    sampling = Sampling(
        max_tokens=step.max_tokens,
        temperature=step.temperature,
        top_p=step.top_p,
        top_k=step.top_k,
        repetition_penalty=step.repetition_penalty,
        stop=stop,
        seed=derived_seed(context.config.seed, context.round, "instructions", index, "sampling"),
    )
    return Request(context.request_id("instructions", index), prompt, sampling)


def _provenance(
    context: StageContext,
    request: Request,
    shown: Sequence[Entry],
    drawn: tuple[Attribute, ...],
) -> Provenance:
    found = context.provenance(request, (entry.id for entry in shown), _adapter(context))
    if not drawn:
        return found
    wording = context.pack.wording
    parts = (
        found.prompt_hash,
        *(wording.attributes, wording.attribute, wording.attribute_gap, wording.persona),
    )
    digest = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
    return found.model_copy(update={"attributes": drawn, "prompt_hash": digest})


def _adapter(context: StageContext) -> Path | None:
    return context.adapter if context.config.generation.instruction_writer == "tuned" else None


def _list_prompt(context: StageContext, shown: Sequence[Entry], said: str) -> Prompt | ChatList:
    texts, wording = [entry.instruction for entry in shown], context.pack.wording
    if context.style("instructions") == "completion":
        return instruction_prompt(wording, texts, said)
    last_item = context.config.generation.instructions.last_item
    return chat_instructions(wording, texts, last_item, context.template, said)


def _stop(context: StageContext) -> tuple[str, ...]:
    last_item = context.config.generation.instructions.last_item
    after_last = (f"\n{last_item}.", f"\n{last_item})")
    match context.style("instructions"):
        case "completion":
            return ("\n\n", *after_last)
        case "chat":
            # A blank line may follow the opening sentence, or stand between items.
            return after_last
        case "magpie":
            return tuple(filter(None, (context.template.user_suffix(),)))
