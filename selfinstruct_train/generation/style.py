"""How a model is asked, where the config leaves it open: what the model is decides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfinstruct_train.models.describe import ModelDescription

_TUNED = re.compile(r"(?<![a-z])(?:instruct\w*|chat|it|sft|dpo|rlhf|assistant)(?![a-z])", re.I)
"""Words in the name of a model that was tuned to follow instructions."""


class Styled(NamedTuple):
    """The settings with the style that is used, and why it is that one."""

    config: Config
    note: str


def settle_style(config: Config, model: ModelDescription) -> Styled:
    """Decide ``generation.style`` where it is ``auto``, by the tokenizer and the model's name.

    Raises:
        ConfigError: a step is to ask in a way that the model or the server does not know.
    """
    chosen: str = config.generation.style
    why = "as the config says"
    if chosen == "auto":
        chosen, why = _by_model(model)
        generation = config.generation.model_copy(update={"style": chosen})
        config = config.model_copy(update={"generation": generation})
    _check(config, model.tokenizer)
    return Styled(config, f"steps 1 to 3 ask in the style '{chosen}': {why}{_exceptions(config)}")


def _by_model(model: ModelDescription) -> tuple[str, str]:
    if not model.tokenizer.chat_template:
        return "completion", "the model has no chat template"
    for name in (model.model_id, _card_title(model.source)):
        if found := _TUNED.search(name.rstrip("/").rpartition("/")[2]):
            return "chat", f"the model has a chat template and is called '{found.group()}'"
    return "completion", "the model's name does not say that it was tuned to follow instructions"


def _card_title(source: str) -> str:
    card = Path(source) / "README.md"
    if not card.is_file():
        return ""
    lines = card.read_text("utf-8", "replace").splitlines()
    return next((line for line in lines if line.startswith("# ")), "")


def _exceptions(config: Config) -> str:
    generation = config.generation
    own = {
        "instructions": generation.instructions.style,
        "classification": generation.classification.style,
        "instances": generation.instances.style,
    }
    named = [f"{step} in '{style}'" for step, style in own.items() if style is not None]
    return f"; {', '.join(named)}" if named else ""


def _check(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    generation = config.generation
    steps = (generation.instructions, generation.classification, generation.instances)
    styles = {step.style or generation.style for step in steps}
    if styles == {"completion"}:
        return
    template = ChatTemplate(tokenizer)
    template.prompt((), "Say hello.")
    first = generation.instructions.style or generation.style
    engine = generation.engine
    if first == "magpie" and engine.kind == "server" and engine.server_endpoint == "chat":
        raise ConfigError(
            "generation.style: 'magpie' leaves a user's message open, which a chat endpoint cannot "
            "do; set generation.engine.server_endpoint to completions, or the style to chat"
        )
