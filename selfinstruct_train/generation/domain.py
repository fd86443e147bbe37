"""A pack for a domain: its headers name the domain, and the user's seeds are the demonstrations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from selfinstruct_train.config import Config, SeedsConfig
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.generation.prompting import input_first_prompt, output_first_prompt
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import SeedTask

_FEWEST = 4
"""Demonstrations of a kind below which the pack's own fill up: one alone is copied."""
_HEADERS = (
    "instructions_header",
    "classification_header",
    "input_first_header",
    "output_first_header",
    "passage_header",
    "question_header",
)


def shown_pack(pack: Pack, config: Config, seeds: Sequence[SeedTask]) -> Pack:
    """The pack as a run shows it, to the writer and to a base that is asked few-shot alike."""
    rng = derived_rng(config.seed, "demonstrations of the domain")
    return for_domain(pack, config.seeds, seeds, rng)


def for_domain(
    pack: Pack, config: SeedsConfig, seeds: Sequence[SeedTask], rng: random.Random
) -> Pack:
    """The pack as the seeds' domain wants it; unchanged where none is set or asked for.

    Demonstrations are balanced: classification tasks of many labels come first, other tasks take
    turns with and without an input, so that as many as a prompt has room for show both. A seed that
    would not read back as it is shown, such as one that holds a label of the prompts, is left out.

    Args:
        pack: of the language.
        config: which domain, and whose demonstrations.
        seeds: the human-written tasks.
        rng: decides among equals.
    """
    wording = pack.wording
    if config.domain is not None:
        named = wording.of_domain(config.domain)
        headers = {name: f"{named}\n{getattr(wording, name)}" for name in _HEADERS}
        # This one is filled in once more, for which a domain's own braces stay as they are.
        kept = named.replace("{", "{{").replace("}", "}}")
        headers["chat_instructions"] = f"{kept}\n{wording.chat_instructions}"
        operations = {
            name: one.model_copy(update={"header": f"{named}\n{one.header}"})
            for name, one in pack.operations.items()
        }
        wording = wording.model_copy(update=headers)
        pack = pack._replace(wording=wording, operations=operations)
    if not config.shows_seeds:
        return pack
    shuffled = rng.sample(list(seeds), len(seeds))
    yes = [task for task in shuffled if task.is_classification]
    no = [task for task in shuffled if not task.is_classification]
    labelled = [task for task in yes if _reads_back_labelled(wording, task)]
    labelled.sort(key=lambda task: -len({one.output for one in task.instances}))
    answered = [task for task in no if _reads_back(wording, task)]
    ours = pack.classification
    return pack._replace(
        classification=(
            *_filled(yes, [task for task in ours if task.is_classification]),
            *_filled(no, [task for task in ours if not task.is_classification]),
        ),
        input_first=_filled(
            _taking_turns(answered, lambda task: bool(task.instances[0].input)), pack.input_first
        ),
        output_first=_filled(labelled, pack.output_first),
    )


def _filled(own: Sequence[SeedTask], others: Sequence[SeedTask]) -> tuple[SeedTask, ...]:
    return (*own, *others[: max(0, _FEWEST - len(own))])


def _taking_turns(tasks: Sequence[SeedTask], kind: Callable[[SeedTask], bool]) -> list[SeedTask]:
    one, other = [t for t in tasks if kind(t)], [t for t in tasks if not kind(t)]
    return [task for task in chain(*zip_longest(one, other)) if task is not None]


def _reads_back(wording: Wording, task: SeedTask) -> bool:
    shown = input_first_prompt(wording, [task], "").demonstrations[0]
    text = shown.partition(f"{wording.example} 1")[2]
    return read_input_first(wording, text, False) == list(task.instances)


def _reads_back_labelled(wording: Wording, task: SeedTask) -> bool:
    shown = output_first_prompt(wording, [task], "").demonstrations[0]
    text = shown.partition(wording.label)[2]
    return read_output_first(wording, text, False) == list(task.instances)
