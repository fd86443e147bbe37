"""How an instruction and its input become a prompt, in training and in evaluation alike."""

from __future__ import annotations

import hashlib
import re
from os.path import commonprefix
from typing import TYPE_CHECKING, Literal, NamedTuple

from jinja2 import TemplateError

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.parts import AnswerFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["plain", "varied", "chat"]


class ChatPrompt(str):
    """A prompt in a chat template that knows which part of it is data.

    It is a plain text to whoever does not care, as the texts of markupsafe are. What is added to it
    by hand makes a plain text of it, in which no control token is read as such.
    """

    data: tuple[tuple[int, int], ...]
    """First and one past the last character of each part that the template did not write."""

    def __new__(cls, text: str, data: tuple[tuple[int, int], ...]) -> ChatPrompt:
        """A text, and where the data stands in it."""
        made = super().__new__(cls, text)
        made.data = data
        return made

    def followed_by(self, data: str) -> ChatPrompt:
        """The prompt with an answer after it."""
        return ChatPrompt(str(self) + data, (*self.data, (len(self), len(self) + len(data))))

    def is_marker(self, first: int, last: int) -> bool:
        """Whether the template wrote all of the characters from ``first`` up to ``last``."""
        return all(last <= begin or end <= first for begin, end in self.data)


def encode(
    template: Template,
    instruction: str,
    input: str,
    answers: AnswerFormat,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    variant: int = 0,
) -> str:
    """The prompt that asks for the answer to an instruction.

    Args:
        template: how to ask.
        instruction: what to do.
        input: what to do it with; empty where the instruction says it all.
        answers: the pack's templates.
        tokenizer: whose chat template is used; needed for ``chat`` alone.
        variant: which of the ``varied`` encodings, from `choose_variant`. The first is the plain
            one, so that a model tuned on ``varied`` is asked the plain way when nothing is said.

    Returns:
        Text that never ends in white space, except where a chat template ends so. The tokenizer
        still adds its own start token.

    Raises:
        ConfigError: ``chat`` with a tokenizer that has no chat template.
    """
    if template == "chat":
        return encode_chat(instruction, input, tokenizer)
    # Every prompt ends in a visible character and the answer follows on the same line after the
    # pack's gap, where words have blanks one blank: a base model knows words with the blank before
    # them, and a blank at the prompt's own end would be a token that it never saw.
    encoding = answers.encodings[variant % len(answers.encodings) if template == "varied" else 0]
    if input.strip():
        return encoding.with_input.format(instruction=instruction, input=input)
    return encoding.without_input.format(instruction=instruction)


def choose_variant(seed: int, row_id: str, answers: AnswerFormat) -> int:
    """The ``varied`` encoding of a row: it follows from the seed and the row's id alone."""
    digest = hashlib.sha256(f"{seed}:{row_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % len(answers.encodings)


def completion_text(output: str, answers: AnswerFormat, template: Template = "plain") -> str:
    """The answer as it follows the prompt, with the pack's gap; the trainer adds the end token.

    After a chat template the answer begins at once, for the template has already set the place for
    it.
    """
    return output if template == "chat" else answers.gap + output


def cut_at_new_example(text: str, answers: AnswerFormat) -> str:
    """What a base model wrote before it began another example.

    A base model continues text: after its answer it invents the next example. It begins one where
    a line starts with a label that prompts of this kind use (``Input:``, ``Output:``, ``Task 3:``,
    ``### Instruction:``, ``Q:`` and the like). The English pack names the labels of its own
    templates and those of the published predictions: they lift the published base from 2.83 to
    14.20 ROUGE-L x 100 and leave the tuned models where they are. Plain headings and lists are
    left alone, for an answer may hold them.

    Args:
        text: a raw completion.
        answers: names the labels.
    """
    match = answers.new_example.search(text)
    return text[: match.start()].rstrip() if match else text


class Reasoned(NamedTuple):
    """A text in its two parts."""

    reasoning: str
    answer: str | None
    """None where the text has no answer after the label."""


def split_reasoning(text: str, label: str) -> Reasoned:
    """Tell an answer from the reasoning before it.

    Args:
        text: what a model wrote.
        label: stands before the answer, at the beginning of a line; of several lines the last.
    """
    stem = re.escape(label.rstrip(":： "))
    marks = list(re.finditer(rf"(?im)^[ \t*_#]*{stem}[*_ \t]*[:：][*_ \t]*", text))
    if not marks:
        return Reasoned(text.strip(), None)
    last = marks[-1]
    return Reasoned(text[: last.start()].strip(), text[last.end() :].strip() or None)


def user_message(instruction: str, input: str) -> str:
    """Instruction and input as the one message of a user, for what no pack words."""
    return f"{instruction}\n\n{input}" if input.strip() else instruction


def encode_chat(
    instruction: str, input: str, tokenizer: PreTrainedTokenizerBase | None
) -> ChatPrompt:
    """The prompt in the chat template of a model, which no pack words.

    Raises:
        ConfigError: the tokenizer has no chat template, or the template refuses.
    """
    if tokenizer is None or not tokenizer.chat_template:
        raise ConfigError(
            "training.template is 'chat', but the model's tokenizer has no chat template; set it "
            "to 'plain' or 'varied', or name a model that has one"
        )
    text = _apply(user_message(instruction, input), tokenizer)
    head, tail = _frame(text, tokenizer)
    data = (len(head), len(text) - len(tail))
    start = tokenizer.bos_token
    # The text is tokenized like any other prompt later, and then the tokenizer adds its start
    # token itself.
    if start and head.startswith(start) and tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        text = text.removeprefix(start)
        data = (data[0] - len(start), data[1] - len(start))
    return ChatPrompt(text, (data,))


_PLACE = "Say hello 7301 times."
"""Stands where the data does, to see what the template writes around it."""


def _frame(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the template writes before and after the user's message.

    A template may trim the message. Where it writes other words for another message, all between
    the first and the last difference counts as data.
    """
    head, _, tail = _apply(_PLACE, tokenizer).partition(_PLACE)
    if text.startswith(head) and text.endswith(tail) and len(head) + len(tail) <= len(text):
        return head, tail
    return commonprefix((head, text)), commonprefix((tail[::-1], text[::-1]))[::-1]


def _apply(content: str, tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(
            "training.template is 'chat', but the model's chat template refuses a message of the "
            f"user ({type(error).__name__}: {' '.join(str(error).split())[:200]}); set it to "
            "'plain' or 'varied', or correct chat_template in the tokenizer's folder"
        ) from None
