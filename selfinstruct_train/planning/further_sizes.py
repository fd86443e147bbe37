"""Lengths of what a run asks for beyond steps 1 to 3, where its config has it ask."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import fmean
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.config.generation import PassageTask
from selfinstruct_train.generation.calibration import CONTENT_FREE
from selfinstruct_train.generation.chat_prompting import chat_answer, chat_operation
from selfinstruct_train.generation.fixing import calibration_answers
from selfinstruct_train.generation.labels import kinds_of, known_of, label_prompt, shown_of
from selfinstruct_train.generation.passage_prompts import (
    demonstrations_for,
    passage_prompt,
    shown_passage,
)
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.generation.prompting import few_shot_prompt, operation_prompt
from selfinstruct_train.judging.arbiter import Answered, arbiter_prefix, question_about
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.planning.sizes import SAMPLED, PromptSize, prompt_size
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.sources.seeds import read_seeds
from selfinstruct_train.sources.texts import Passage, read_passages
from selfinstruct_train.templates import completion_text, encode

_NO_LIMIT = 1 << 30


class PassageSizes(NamedTuple):
    """Passages of own texts, and what is asked about each."""

    number: int
    prompt: PromptSize
    """Over all tasks alike."""
    written: float
    """Tokens of an instruction, or of a question with its answer: those of the demonstrations."""
    rows: tuple[int, ...]
    """Some passages as rows to train on."""


class LabelSize(NamedTuple):
    """The question for one kind of label."""

    prompt: PromptSize
    always: int
    """Texts that are asked about in each round besides the instructions: seeds, and none at all."""


class ArbiterSize(NamedTuple):
    """The question whether an answer is right."""

    prompt: PromptSize
    always: int
    """Answers that are asked about in each round to calibrate it."""


class ReplaySize(NamedTuple):
    """General prompts that the base answers."""

    number: int
    prompt: PromptSize


class FurtherSizes(NamedTuple):
    """Lengths in tokens; None or nothing where it is not asked for."""

    operation: PromptSize | None = None
    """An operation on one instruction, in place of a list."""
    passages: PassageSizes | None = None
    labels: tuple[LabelSize, ...] = ()
    arbiter: ArbiterSize | None = None
    replay: ReplaySize | None = None


class _Measure(NamedTuple):
    """What all of them are measured with."""

    config: Config
    pack: Pack
    seeds: Sequence[SeedTask]
    sampled: Sequence[SeedTask]
    tokens: Callable[[str], list[int]]
    template: ChatTemplate

    @property
    def chats(self) -> bool:
        return self.config.generation.style in ("chat", "magpie")

    @property
    def context_length(self) -> int:
        return self.config.model.context_length or _NO_LIMIT

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.tokens(text)) for text in texts]

    def size(self, texts: Sequence[str], max_tokens: int) -> PromptSize:
        found = [self.tokens(text) for text in texts]
        return prompt_size(found, max_tokens, self.config.model.context_length)


def measure_further(
    config: Config, pack: Pack, seeds: Sequence[SeedTask], tokenizer: PreTrainedTokenizerBase
) -> FurtherSizes:
    """Build the prompts that a run would ask of some seeds and passages, and count their tokens.

    Args:
        config: the settings, their style settled.
        pack: as the domain wants it.
        seeds: the human-written tasks.
        tokenizer: the model's.

    Raises:
        SelfInstructError: texts or prompts that the config names cannot be read.
    """
    rng = derived_rng(config.seed, "plan")
    measure = _Measure(
        config,
        pack,
        seeds,
        rng.sample(list(seeds), min(SAMPLED, len(seeds))),
        lambda text: list(tokenizer(text)["input_ids"]),
        ChatTemplate(tokenizer, pack.wording.system),
    )
    generation, mix, writes = config.generation, config.training.mix, config.generates
    return FurtherSizes(
        _operation(measure, rng) if writes and generation.augment.share else None,
        _passages(measure, tokenizer, rng) if writes and generation.texts is not None else None,
        _labels(measure) if writes and generation.labels == "model" else (),
        _arbiter(measure) if writes and generation.instances.fix else None,
        _replay(measure, rng) if mix is not None and mix.replay else None,
    )


def _operation(measure: _Measure, rng: random.Random) -> PromptSize:
    pack, generation = measure.pack, measure.config.generation
    chosen = generation.augment.operations
    style = generation.instructions.style or generation.style
    texts = []
    for task in measure.sampled:
        (name,) = rng.choices(list(chosen), list(chosen.values()))
        operation = pack.operations[name]
        value = rng.choice(operation.values) if operation.values else None
        asked = (pack.wording, operation, value, task.instruction)
        if style == "completion":
            texts.append(operation_prompt(*asked).text)
        else:
            texts.append(chat_operation(*asked, measure.template).text)
    return measure.size(texts, generation.instructions.max_tokens)


def _passages(
    measure: _Measure, tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> PassageSizes:
    config, pack = measure.config, measure.pack
    step, texts = config.generation.passages, config.generation.texts
    assert texts is not None
    passages = read_passages(texts, pack.rules.units, step.min_words, step.max_words)
    sampled = rng.sample(list(passages), min(SAMPLED, len(passages)))
    asked: list[str] = []
    written: list[float] = []
    rows: list[int] = []
    for task in step.tasks:
        known = demonstrations_for(task, pack)
        shown, template = known[: step.demonstrations], measure.template if measure.chats else None
        asked += [
            passage_prompt(task, pack.wording, shown, passage.text, template).text
            for passage in sampled
        ]
        said = [shown_passage(task, pack.wording, one)[1] for one in known]
        written.append(fmean(len(measure.tokens(f"{pack.wording.gap}{text}\n")) for text in said))
        pairs = zip(sampled, cycle(known), strict=False)
        rows += [_row_length(measure, tokenizer, task, *pair) for pair in pairs]
    size = measure.size(asked, step.max_tokens)
    return PassageSizes(
        len(passages), size, min(fmean(written), float(step.max_tokens)), tuple(rows)
    )


def _row_length(
    measure: _Measure,
    tokenizer: PreTrainedTokenizerBase,
    task: PassageTask,
    passage: Passage,
    like: SeedTask,
) -> int:
    """Tokens of a row for a passage whose instruction is like that of a demonstration."""
    template, answers = measure.config.training.template, measure.pack.answers
    found = Instance(input=passage.text, output=like.instances[0].output)
    if task == "instruction":
        found = Instance(input="", output=passage.text)
    prompt = encode(template, like.instruction, found.input, answers, tokenizer=tokenizer)
    return len(measure.tokens(prompt + completion_text(found.output, answers, template))) + 1


def _labels(measure: _Measure) -> tuple[LabelSize, ...]:
    found = []
    for kind in kinds_of(measure.seeds):
        known = known_of(kind, measure.seeds)
        shown = shown_of(kind, known)
        texts = [
            label_prompt(measure.pack.wording, kind, others, task.instruction).text
            for task in measure.sampled
            for others in [[one for one in shown if one.id != task.id]]
        ]
        found.append(LabelSize(measure.size(texts, 16), len(CONTENT_FREE) + len(known)))
    return tuple(found)


def _arbiter(measure: _Measure) -> ArbiterSize:
    pack = measure.pack
    prefix = arbiter_prefix(measure, pack.wording, pack.input_first)
    texts = [
        prefix + question_about(pack.wording, Answered(task.instruction, one.input, one.output))
        for task in measure.sampled
        for one in task.instances[:1]
    ]
    asked = calibration_answers(pack, measure.seeds)[0]
    return ArbiterSize(measure.size(texts, 8), len(CONTENT_FREE) + len(asked))


def _replay(measure: _Measure, rng: random.Random) -> ReplaySize:
    config, pack = measure.config, measure.pack
    prompts = read_seeds(config.training.replay_prompts or pack.rules.everyday_seeds)
    sampled = rng.sample(list(prompts), min(SAMPLED, len(prompts)))
    texts: list[str] = []
    for task in sampled:
        asked = (task.instruction, task.instances[0].input)
        if measure.chats:
            texts.append(chat_answer((), *asked, measure.template).text)
        else:
            texts.append(few_shot_prompt(pack.wording, pack.input_first, *asked).text)
    return ReplaySize(len(prompts), measure.size(texts, config.evaluation.max_tokens))
