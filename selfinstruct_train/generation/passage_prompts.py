"""Prompts about a passage of the user's own texts, and reading what the model wrote for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import regex

from selfinstruct_train.chat import ChatTemplate, Turn
from selfinstruct_train.config.generation import PassageTask
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.chat_prompting import ChatTurns
from selfinstruct_train.generation.prompt_labels import unix_lines
from selfinstruct_train.generation.prompting import Prompt, one_line
from selfinstruct_train.generation.replies import unfenced, without_bold
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.text.words import whole_words

_OUTER_MARKS = " \t\n*_\"'“”‘’«».。!！"
"""What models set around an answer."""


class ReadPassage(NamedTuple):
    """What was read for a passage."""

    instruction: str
    """Empty where nothing could be read."""
    instance: Instance
    grounded: bool
    """Whether the passage holds the answer, as far as one was asked for."""


def demonstrations_for(task: PassageTask, pack: Pack) -> tuple[SeedTask, ...]:
    """The pack's demonstrations for a task: questions are those that have an input."""
    asks = task == "question"
    return tuple(one for one in pack.passages if bool(one.instances[0].input) == asks)


def require_passage_demonstrations(tasks: Sequence[PassageTask], pack: Pack, name: str) -> None:
    """See that a pack can ask about passages.

    Raises:
        ConfigError: it has no demonstrations for one of the tasks, or one whose answer does not
            stand in its passage.
    """
    for task in tasks:
        found = demonstrations_for(task, pack)
        if not found:
            which = "with" if task == "question" else "without"
            raise ConfigError(
                f"generation.texts: the pack '{name}' has no demonstration for '{task}'; write "
                f"tasks {which} an input into its passages.jsonl, as those of the pack en, or "
                "leave it out of generation.passages.tasks"
            )
        for one in found if task == "question" else ():
            if span(one.instances[0].output, one.instances[0].input) is None:
                raise ConfigError(
                    f"{name}/passages.jsonl: the output of '{one.id}' does not stand in its input; "
                    "take the words of the input"
                )


def passage_prompt(
    task: PassageTask,
    wording: Wording,
    demonstrations: Sequence[SeedTask],
    passage: str,
    template: ChatTemplate | None,
) -> Prompt | ChatTurns:
    """Ask for the instruction that a passage answers, or for a question with its answer.

    Args:
        task: which of the two.
        wording: of the pack.
        demonstrations: of this task.
        passage: what is asked about.
        template: asks in messages; None asks by a text to continue.
    """
    header = wording.question_header if task == "question" else wording.passage_header
    first = wording.question if task == "question" else wording.task
    shown = [shown_passage(task, wording, one) for one in demonstrations]
    if template is not None:
        turns = tuple(
            Turn(_labelled(wording, text), f"{first}{wording.gap}{said}") for text, said in shown
        )
        return ChatTurns(header, turns, _labelled(wording, passage), template)
    return Prompt(
        header + "\n",
        tuple(
            f"\n{_labelled(wording, text)}\n{first}{wording.gap}{said}\n" for text, said in shown
        ),
        f"\n{_labelled(wording, passage)}\n{first}",
    )


def passage_stop(task: PassageTask, wording: Wording) -> tuple[str, ...]:
    """What ends the answer to a text to continue: the line's end, or the next text."""
    return ("\n",) if task == "instruction" else (f"\n{wording.passage}", "\n\n")


def read_passage(
    task: PassageTask, wording: Wording, reply: str, passage: str, truncated: bool
) -> ReadPassage:
    """What the model wrote for a passage.

    Args:
        task: what it was asked for.
        wording: of the pack.
        reply: what it wrote, with the labels of the prompt or without.
        passage: what it was asked about.
        truncated: the reply was cut by the length limit, and so is not used.
    """
    first = wording.question if task == "question" else wording.task
    text = "" if truncated else unfenced(unix_lines(reply)).strip()
    said, _, rest = _after(first, text).partition("\n")
    instruction = one_line(without_bold(said.strip()))
    if task == "instruction":
        return ReadPassage(instruction, Instance(input="", output=passage), True)
    answer = ""
    if _label(wording.answer).match(rest.lstrip()):
        answer = _after(wording.answer, rest.lstrip()).partition("\n")[0]
    # What is kept is what the passage says, in its own capitals and without the model's marks.
    found = span(answer, passage)
    instance = Instance(input=passage, output=found or answer.strip())
    return ReadPassage(instruction, instance, found is not None)


def span(answer: str, passage: str) -> str | None:
    """The part of a passage that an answer repeats; None where it repeats none.

    Capitals, the width of white space and marks around the answer make no difference; everything
    else does. An answer does not begin or end within a word.
    """
    for text in (answer.strip(), answer.strip(_OUTER_MARKS)):
        if not text:
            continue
        pattern = whole_words([text])
        assert pattern is not None
        # `whole_words` escapes blanks; in a passage a line end may stand for one.
        loose = regex.compile(
            regex.sub(r"(?:\\?\s)+", r"\\s+", pattern.pattern),
            regex.IGNORECASE | regex.VERSION1,
        )
        if found := loose.search(passage):
            return str(found.group())
    return None


def shown_passage(task: PassageTask, wording: Wording, one: SeedTask) -> tuple[str, str]:
    """The passage of a demonstration, and what is said about it."""
    instance = one.instances[0]
    if task == "instruction":
        return instance.output, one_line(one.instruction)
    answer = f"{wording.answer}{wording.gap}{instance.output}"
    return instance.input, f"{one_line(one.instruction)}\n{answer}"


def _labelled(wording: Wording, passage: str) -> str:
    return f"{wording.passage}{wording.gap}{passage}"


def _after(label: str, text: str) -> str:
    """The text less a label that it begins with, in whatever marks the model set it."""
    rest: str = _label(label).sub("", text, count=1)
    return rest.strip()


def _label(label: str) -> regex.Pattern[str]:
    stem = regex.escape(label.rstrip(":： "))
    return regex.compile(rf"\A[*_#\s]*{stem}[*_ \t]*[:：][*_ \t]*", regex.IGNORECASE)
