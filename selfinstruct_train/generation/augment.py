"""Operations: the model makes a new instruction of one that is there.

An operation is a name and its wording in the pack: a header, worked examples, a label. Its requests
are requests of step 1 like those for lists, so what they yield meets the same filters and the same
novelty test, and a stopped run resumes as ever.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from selfinstruct_train.generation.chat_prompting import ChatTurns, chat_operation
from selfinstruct_train.generation.context import StageContext
from selfinstruct_train.generation.pool import Entry, Pool
from selfinstruct_train.generation.prompting import Prompt, one_line, operation_prompt
from selfinstruct_train.generation.replies import read_reply_list, without_bold
from selfinstruct_train.packs.operations import Operation


class Variation(NamedTuple):
    """An operation on one instruction."""

    name: str
    operation: Operation
    value: str | None
    """Which of the operation's values; None where it has none."""
    parent: Entry

    @property
    def label(self) -> str:
        """The operation as rows name it: ``complexity: expert``."""
        return self.name if self.value is None else f"{self.name}: {self.value}"


def draw_variation(context: StageContext, pool: Pool, rng: random.Random) -> Variation | None:
    """Which operation a request asks for, and on what; None where it continues a list."""
    config = context.config.generation.augment
    if rng.random() >= config.share:
        return None
    (name,) = rng.choices(list(config.operations), list(config.operations.values()))
    operation = context.pack.operations[name]
    value = rng.choice(operation.values) if operation.values else None
    return Variation(name, operation, value, pool.parent(rng))


def variation_prompt(context: StageContext, variation: Variation) -> Prompt | ChatTurns:
    """The operation's examples, then the instruction that it is to be done to."""
    _, operation, value, parent = variation
    wording = context.pack.wording
    if context.style("instructions") == "completion":
        return operation_prompt(wording, operation, value, parent.instruction)
    return chat_operation(wording, operation, value, parent.instruction, context.template)


def variation_stop(context: StageContext) -> tuple[str, ...]:
    """What ends a result: a list item must not break its line. A chat model ends by itself."""
    return ("\n",) if context.style("instructions") == "completion" else ()


def read_variation(context: StageContext, text: str, truncated: bool) -> list[str]:
    """The instruction that a completion holds, if it holds one."""
    if context.style("instructions") == "completion":
        found = [] if truncated else [without_bold(one_line(text))]
    else:
        found = read_reply_list(text, truncated, context.pack.wording.task)[:1]
    return [item for item in found if item]


def shown_results(context: StageContext) -> Iterator[tuple[str, str]]:
    """What prompts show as results of the operations, each with a name."""
    for name in context.config.generation.augment.operations:
        for number, example in enumerate(context.pack.operations[name].examples, 1):
            yield f"{name} example {number}", example.result
