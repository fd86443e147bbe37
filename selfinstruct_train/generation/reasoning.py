"""Reasoning before an answer: what of it is compared, and what a row keeps (arXiv 2201.11903)."""

from __future__ import annotations

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.templates import split_reasoning


def require_reasoned(pack: Pack, name: str) -> None:
    """See that a pack can show how to reason.

    Raises:
        ConfigError: it has no such demonstrations, or one without an answer after the label.
    """
    if not pack.reasoned:
        raise ConfigError(
            f"generation.instances.reasoning: the pack '{name}' has no reasoned.jsonl; write "
            "one, as that of the pack en, or set reasoning=none"
        )
    for task in pack.reasoned:
        if not final_answer(task.instances[0].output, pack.wording):
            raise ConfigError(
                f"{name}/reasoned.jsonl: the output of '{task.id}' has no line that begins with "
                f"'{pack.wording.answer}'; write the answer there"
            )


def final_answer(text: str, wording: Wording) -> str:
    """What a chooser compares: the answer alone; empty where the reasoning came to none."""
    return split_reasoning(text, wording.answer).answer or ""


def kept_text(text: str, wording: Wording, shows: bool) -> str:
    """What a row keeps: the answer, after the reasoning where that is shown; empty without one."""
    reasoning, answer = split_reasoning(text, wording.answer)
    if not shows or answer is None:
        return answer or ""
    return f"{reasoning}\n{wording.answer}{wording.gap}{answer}"
