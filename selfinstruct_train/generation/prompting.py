"""The prompts of steps 1 to 3 as texts to continue; `chat_prompting` words them as messages.

No prompt ends in white space, so that the first token of the completion is the one the model has
seen in running text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from selfinstruct_train.packs.operations import Operation
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask


class Prompt(NamedTuple):
    """A prompt in parts, so that demonstrations can be given up when it does not fit."""

    header: str
    demonstrations: tuple[str, ...]
    question: str

    @property
    def text(self) -> str:
        """The whole prompt."""
        if not self.header and not self.demonstrations:
            return self.question  # which may be a prompt in a chat template
        return f"{self.prefix}{self.question}"

    @property
    def prefix(self) -> str:
        """All before the question, which other prompts may share."""
        return "".join((self.header, *self.demonstrations))

    def keep(self, places: Sequence[int]) -> Self:
        """The prompt with only the demonstrations at these places."""
        return self._replace(demonstrations=tuple(self.demonstrations[i] for i in places))

    def without_first(self, count: int) -> Prompt:
        """The prompt less its first ``count`` demonstrations."""
        return self._replace(demonstrations=self.demonstrations[count:])


def instruction_prompt(
    wording: Wording, demonstrations: Sequence[str], steering: str = ""
) -> Prompt:
    """Step 1: a numbered list of instructions for the model to continue (paper, section 2.2).

    Args:
        wording: of the prompt.
        demonstrations: the list so far.
        steering: what the next ones are like; stands right before them.
    """
    lines = tuple(f"{i}. {one_line(text)}\n" for i, text in enumerate(demonstrations, 1))
    question = f"{steering}\n{len(lines) + 1}." if steering else f"{len(lines) + 1}."
    return Prompt(wording.instructions_header + "\n", lines, question)


def operation_prompt(
    wording: Wording, operation: Operation, value: str | None, instruction: str
) -> Prompt:
    """Step 1: what an operation makes of one instruction, after worked examples."""

    def ask(text: str, value: str | None) -> str:
        task = f"{wording.task}{wording.gap}{one_line(text)}"
        return f"\n{task}\n{operation.label_of(value)}"

    shown = tuple(
        f"{ask(example.task, example.value)}{wording.gap}{example.result}\n"
        for example in operation.shown(value)
    )
    return Prompt(operation.header + "\n", shown, ask(instruction, value))


def classification_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 2: few-shot question whether a task is classification; the answer is scored."""
    shown = tuple(
        f"\n{wording.task}{wording.gap}{one_line(d.instruction)}\n{wording.classification}{wording.gap}"
        f"{wording.yes if d.is_classification else wording.no}\n"
        for d in demonstrations
    )
    question = f"\n{wording.task}{wording.gap}{one_line(instruction)}\n{wording.classification}"
    return Prompt(wording.classification_header + "\n", shown, question)


def input_first_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 3 for tasks that are not classification: inputs first, then the output of each."""
    shown = tuple(
        f"\n{wording.task}{wording.gap}{one_line(d.instruction)}\n"
        + input_first_examples(wording, d.instances)
        + "\n"
        for d in demonstrations
    )
    question = f"\n{wording.task}{wording.gap}{one_line(instruction)}\n{wording.example} 1"
    return Prompt(wording.input_first_header + "\n", shown, question)


def few_shot_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str, given: str
) -> Prompt:
    """The input-first shape with the input already there: one question, asked few-shot."""
    prompt = input_first_prompt(wording, demonstrations, instruction)
    line = f"\n{wording.input}{wording.gap}{given}" if given else ""
    return prompt._replace(question=f"{prompt.question}{line}\n{wording.output}")


def output_first_prompt(
    wording: Wording, demonstrations: Sequence[SeedTask], instruction: str
) -> Prompt:
    """Step 3 for classification: a label, then an input that has it, lest one label take all."""
    shown = tuple(
        f"\n{wording.task}{wording.gap}{one_line(d.instruction)}\n"
        + output_first_examples(wording, d.instances)
        + "\n"
        for d in demonstrations
    )
    question = f"\n{wording.task}{wording.gap}{one_line(instruction)}\n{wording.label}"
    return Prompt(wording.output_first_header + "\n", shown, question)


def input_first_examples(wording: Wording, instances: Sequence[Instance]) -> str:
    """Numbered examples, each an input, where there is one, and its output."""
    return "\n".join(
        f"{wording.example} {i}\n"
        + (f"{wording.input}{wording.gap}{instance.input}\n" if instance.input else "")
        + f"{wording.output}{wording.gap}{instance.output}"
        for i, instance in enumerate(instances, 1)
    )


def output_first_examples(wording: Wording, instances: Sequence[Instance]) -> str:
    """Labels, each with an input that deserves it."""
    return "\n".join(
        f"{wording.label}{wording.gap}{instance.output}"
        + (f"\n{wording.input}{wording.gap}{instance.input}" if instance.input else "")
        for instance in instances
    )


def one_line(text: str) -> str:
    """The text with all white space folded: a list item must not break its line."""
    return " ".join(text.split())
