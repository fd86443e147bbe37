"""Requests in the chat template of a model: demonstrations as earlier turns, data kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import TemplateError

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.templates import ChatPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Turn(NamedTuple):
    """What a user asked and what the assistant answered."""

    user: str
    assistant: str


class Message(NamedTuple):
    """One message as servers take it."""

    role: str
    content: str


class ChatRequest(ChatPrompt):
    """A prompt in a chat template that also knows its messages, for servers with a template."""

    messages: tuple[Message, ...]

    @classmethod
    def of(cls, prompt: ChatPrompt, messages: tuple[Message, ...]) -> ChatRequest:
        """The prompt with its messages."""
        made = cls(str(prompt), prompt.data)
        made.messages = messages
        return made


class ChatTemplate:
    """The chat template of a tokenizer.

    Data never pass through the template itself: it is asked once for each number of turns, with
    placeholders, so where the data stand is known exactly and nothing in them can steer it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str = "") -> None:
        """Note whose template it is.

        Args:
            tokenizer: the model's.
            system: the system message; empty leaves it to the template.
        """
        self._tokenizer = tokenizer
        self._system = system
        self._frames: dict[int, tuple[str, ...]] = {}

    def with_system(self, text: str) -> ChatTemplate:
        """The same template with more in the system message."""
        said = f"{self._system}\n{text}" if self._system else text
        return ChatTemplate(self._tokenizer, said)

    def without_system(self) -> ChatTemplate:
        """The same template with the system message that it has of itself, if any."""
        return ChatTemplate(self._tokenizer)

    def prompt(self, turns: Sequence[Turn], question: str) -> ChatRequest:
        """Earlier turns and a question, up to where the assistant answers.

        Raises:
            ConfigError: there is no template, or it refuses such messages.
        """
        contents = [*([self._system] if self._system else []), *(t for turn in turns for t in turn)]
        contents.append(question)
        roles = ["user", "assistant"] * len(turns) + ["user"]
        roles = (["system"] if self._system else []) + roles
        messages = tuple(Message(*pair) for pair in zip(roles, contents, strict=True))
        return ChatRequest.of(_filled(self._frame(roles), contents), messages)

    def user_prefix(self) -> ChatPrompt:
        """All that the template writes before a user's first words (Magpie, arXiv 2406.08464).

        Raises:
            ConfigError: there is no template, or it refuses such messages.
        """
        system = [self._system] if self._system else []
        frame = self._frame([*("system" for _ in system), "user"])
        return _filled((*frame[: len(system) + 1], ""), [*system, ""])

    def user_suffix(self) -> str:
        """What the template writes first after a user's message: there it ends."""
        frame = self._frame([*(["system"] if self._system else []), "user"])
        return frame[-1].strip().split("\n")[0]

    def _frame(self, roles: Sequence[str]) -> tuple[str, ...]:
        """The template's own text before, between and after the contents of some messages."""
        if len(roles) not in self._frames:
            self._frames[len(roles)] = self._ask_template(roles)
        return self._frames[len(roles)]

    def _ask_template(self, roles: Sequence[str]) -> tuple[str, ...]:
        tokenizer = self._tokenizer
        places = [f"\ue000{i}\ue001" for i in range(len(roles))]
        messages = [{"role": r, "content": p} for r, p in zip(roles, places, strict=True)]
        fix = "set generation.style to completion, or name a model with another template"
        if not tokenizer.chat_template:
            raise ConfigError(
                "generation.style: the model's tokenizer has no chat template; set it to "
                "completion, or name a model that has one"
            )
        try:
            rest = str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ConfigError(
                f"generation.style: the model's chat template refuses {' '.join(roles[:4])} "
                f"messages ({type(error).__name__}: {' '.join(str(error).split())[:200]}); {fix}"
            ) from None
        frame = []
        for place in places:
            before, found, rest = rest.partition(place)
            if not found:
                raise ConfigError(
                    "generation.style: the model's chat template does not repeat every message in "
                    f"its place; {fix}"
                )
            frame.append(before)
        start = tokenizer.bos_token
        # Whoever tokenizes the prompt later adds the start token again.
        if (
            start
            and frame[0].startswith(start)
            and tokenizer("a").input_ids[0] == (tokenizer.bos_token_id)
        ):
            frame[0] = frame[0].removeprefix(start)
        return (*frame, rest)


def _filled(frame: Sequence[str], contents: Sequence[str]) -> ChatPrompt:
    text, data = "", []
    for before, content in zip(frame, contents, strict=False):
        text += before
        data.append((len(text), len(text) + len(content)))
        text += content
    return ChatPrompt(text + frame[-1], tuple(data))
