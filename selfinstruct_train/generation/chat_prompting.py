"""The prompts of steps 1 to 3 as messages: each demonstration is an earlier turn.

The answer of a demonstration looks as the answers should that are read afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from selfinstruct_train.chat import ChatTemplate, Turn
from selfinstruct_train.config import InstanceStep
from selfinstruct_train.config.generation import Style
from selfinstruct_train.generation.prompting import (
    input_first_examples,
    one_line,
    output_first_examples,
)
from selfinstruct_train.packs.operations import Operation
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.templates import ChatPrompt


class ChatTurns(NamedTuple):
    """A question after demonstrations that are turns, so that some can be given up."""

    header: str
    """Opens the first message."""
    demonstrations: tuple[Turn, ...]
    question: str
    template: ChatTemplate

    @property
    def text(self) -> ChatPrompt:
        """The whole prompt."""
        turns, question = list(self.demonstrations), self.question
        opening = f"{self.header}\n\n" if self.header else ""
        if turns:
            turns[0] = turns[0]._replace(user=opening + turns[0].user)
        else:
            question = opening + question
        return self.template.prompt(turns, question)

    def keep(self, places: Sequence[int]) -> Self:
        """The prompt with only the demonstrations at these places."""
        return self._replace(demonstrations=tuple(self.demonstrations[i] for i in places))


class ChatList(NamedTuple):
    """A list that the assistant has written already, and the wish for more of it."""

    header: str
    demonstrations: tuple[str, ...]
    question: str
    template: ChatTemplate

    @property
    def text(self) -> ChatPrompt:
        """The whole prompt."""
        shown = "\n".join(f"{i}. {line}" for i, line in enumerate(self.demonstrations, 1))
        return self.template.prompt([Turn(self.header, shown)], self.question)

    def keep(self, places: Sequence[int]) -> Self:
        """The prompt with only the demonstrations at these places."""
        return self._replace(demonstrations=tuple(self.demonstrations[i] for i in places))


def chat_instructions(
    wording: Wording,
    demonstrations: Sequence[str],
    last_item: int,
    template: ChatTemplate,
    steering: str = "",
) -> ChatList:
    """Step 1: more of a numbered list of instructions, up to before ``last_item``.

    Args:
        wording: of the prompt.
        demonstrations: the list so far.
        last_item: number that is not to be reached.
        template: of the model.
        steering: what the next ones are like.
    """
    shown = len(demonstrations)
    more = wording.chat_more.format(count=last_item - 1 - shown, first=shown + 1)
    return ChatList(
        wording.chat_instructions.format(count=shown),
        tuple(one_line(text) for text in demonstrations),
        f"{more}\n{steering}" if steering else more,
        template,
    )


def chat_operation(
    wording: Wording,
    operation: Operation,
    value: str | None,
    instruction: str,
    template: ChatTemplate,
) -> ChatTurns:
    """Step 1: what an operation makes of one instruction, after worked examples as turns."""

    def ask(text: str, value: str | None) -> str:
        return f"{_task(wording, text)}\n{operation.label_of(value)}"

    turns = tuple(
        Turn(ask(example.task, example.value), example.result) for example in operation.shown(value)
    )
    return ChatTurns(operation.header, turns, ask(instruction, value), template)


def chat_classification(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str, template: ChatTemplate
) -> ChatTurns:
    """Step 2: is it a classification task? The assistant's first word is scored."""

    def ask(text: str) -> str:
        return f"{_task(wording, text)}\n{wording.classification}"

    turns = tuple(
        Turn(ask(d.instruction), wording.yes if d.is_classification else wording.no)
        for d in demonstrations
    )
    return ChatTurns(wording.classification_header, turns, ask(instruction), template)


def chat_input_first(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str, template: ChatTemplate
) -> ChatTurns:
    """Step 3 for tasks that are not classification: inputs first, then the output of each."""
    shown = [input_first_examples(wording, d.instances) for d in demonstrations]
    header = wording.input_first_header
    return _worked_examples(wording, header, demonstrations, shown, instruction, template)


def chat_output_first(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str, template: ChatTemplate
) -> ChatTurns:
    """Step 3 for classification: a label, then an input that has it."""
    shown = [output_first_examples(wording, d.instances) for d in demonstrations]
    header = wording.output_first_header
    return _worked_examples(wording, header, demonstrations, shown, instruction, template)


def shown_answers(
    tasks: Sequence[SeedTask], step: InstanceStep, style: Style
) -> tuple[SeedTask, ...]:
    """The demonstrations of an answer alone; in the style ``magpie`` those that need no input."""
    if style != "magpie":
        return tuple(tasks[: step.demonstrations])
    return tuple(task for task in tasks if not task.instances[0].input)[: step.shown_answers]


def chat_answer(
    demonstrations: Sequence[SeedTask],
    instruction: str,
    given: str,
    template: ChatTemplate,
    header: str = "",
) -> ChatTurns:
    """The answer alone to an instruction and its input, after answers to others."""
    turns = tuple(
        Turn(_asked(d.instruction, instance), instance.output)
        for d in demonstrations
        for instance in d.instances[:1]
    )
    asked = _asked(instruction, Instance(input=given, output=""))
    return ChatTurns(header, turns, asked, template)


def _worked_examples(
    wording: Wording,
    header: str,
    demonstrations: Sequence[SeedTask],
    shown: Sequence[str],
    instruction: str,
    template: ChatTemplate,
) -> ChatTurns:
    """Each task as a user's turn, what was written for it as the assistant's."""
    turns = tuple(
        Turn(_task(wording, d.instruction), examples)
        for d, examples in zip(demonstrations, shown, strict=True)
    )
    return ChatTurns(header, turns, _task(wording, instruction), template)


def _task(wording: Wording, instruction: str) -> str:
    return f"{wording.task}{wording.gap}{one_line(instruction)}"


def _asked(instruction: str, instance: Instance) -> str:
    return f"{instruction}\n\n{instance.input}" if instance.input else instruction
