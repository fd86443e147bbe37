"""What is measured without a model's weights: its shape, and texts in tokens of its tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise, takewhile
from statistics import fmean
from typing import NamedTuple

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.generation.chat_prompting import (
    chat_answer,
    chat_classification,
    chat_input_first,
    chat_instructions,
    chat_output_first,
    shown_answers,
)
from selfinstruct_train.generation.classification import choose_demonstrations
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.generation.prompting import (
    classification_prompt,
    few_shot_prompt,
    input_first_examples,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.records import Row, SeedTask
from selfinstruct_train.templates import completion_text, encode

SAMPLED = 32
"""Seeds whose prompts are measured."""


class ModelSize(Row):
    """The shape of a causal language model."""

    parameters: int
    embedding: int
    """Parameters of the input embedding, which are looked up, not multiplied with."""
    tied: bool
    """The output layer is the input embedding."""
    adapter: int
    """Parameters that are trained: the adapter's, or without one all."""
    layers: int
    hidden: int
    query_width: int
    """Heads times their width."""
    key_width: int
    """Key heads times their width."""
    intermediate: int
    vocabulary: int

    @property
    def multiplied(self) -> int:
        """Parameters that each token is multiplied with."""
        return self.parameters if self.tied else self.parameters - self.embedding


def model_size(settings: PreTrainedConfig, parameters: int, adapter: int) -> ModelSize:
    """Shape of a model by its settings.

    Args:
        settings: as its ``config.json`` has them.
        parameters: of the base model.
        adapter: parameters of the adapter.
    """
    text = settings.get_text_config()
    heads, hidden = text.num_attention_heads, text.hidden_size
    width = getattr(text, "head_dim", None) or hidden // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    return ModelSize(
        parameters=parameters,
        embedding=text.vocab_size * hidden,
        tied=bool(getattr(text, "tie_word_embeddings", True)),
        adapter=adapter,
        layers=text.num_hidden_layers,
        hidden=hidden,
        query_width=heads * width,
        key_width=keys * width,
        intermediate=getattr(text, "intermediate_size", None) or 4 * hidden,
        vocabulary=text.vocab_size,
    )


class PromptSize(NamedTuple):
    """Mean tokens of a kind of prompt, and of the beginning that all prompts of it share."""

    tokens: float
    shared: float


class TextSizes(NamedTuple):
    """Lengths in tokens of the model's tokenizer."""

    instructions: PromptSize
    classification: PromptSize
    input_first: PromptSize
    output_first: PromptSize
    answer: PromptSize
    """A few-shot question for the answer alone, after the pack's demonstrations."""
    few_shot: PromptSize
    """The same as the evaluation asks it."""
    item: float
    """A seed's instruction with its number and line end."""
    instance: float
    """A seed's instance as step 3 writes it."""
    output: float
    """A seed's answer with its end token."""
    rows: tuple[int, ...]
    """Each seed instance as a row to train on."""
    calibrated: int
    """Seeds that step 2 is calibrated on."""


def measure(
    config: Config, pack: Pack, seeds: Sequence[SeedTask], tokenizer: PreTrainedTokenizerBase
) -> TextSizes:
    """Build the prompts that a run would ask of some seeds and count their tokens.

    Args:
        config: the settings, their style settled.
        pack: as the domain wants it.
        seeds: the human-written tasks.
        tokenizer: the model's.
    """
    rng = derived_rng(config.seed, "plan")
    sampled = rng.sample(list(seeds), min(SAMPLED, len(seeds)))
    shown = choose_demonstrations(config, pack, seeds)
    prompts = _Prompts(config, pack, tokenizer)

    def size(texts: Sequence[str], max_tokens: int, context: int | None) -> PromptSize:
        return prompt_size([tokenizer(text)["input_ids"] for text in texts], max_tokens, context)

    generation, context = config.generation, config.model.context_length
    written, answered = generation.instances.max_tokens, config.evaluation.max_tokens
    unlabelled = [prompts.instances(pack.input_first, task, False) for task in sampled]
    labelled = [prompts.instances(pack.output_first, task, True) for task in sampled]
    rows = _row_lengths(config, pack, seeds, tokenizer)
    instances = [(task, one) for task in seeds for one in task.instances]
    return TextSizes(
        size(
            [prompts.instructions(seeds, rng) for _ in sampled],
            generation.instructions.max_tokens,
            context,
        ),
        size([prompts.classification(shown.tasks, task) for task in sampled], 8, context),
        size(unlabelled, written, context),
        size(labelled, written, context),
        size([prompts.answer(task) for task in sampled], written, context),
        size([prompts.few_shot(task) for task in sampled], answered, context),
        fmean(len(tokenizer(f" {task.instruction}\n16.")["input_ids"]) for task in seeds),
        fmean(
            len(tokenizer(f"\n{input_first_examples(pack.wording, (one,))}\n")["input_ids"])
            for _, one in instances
        ),
        1 + fmean(len(tokenizer(one.output)["input_ids"]) for _, one in instances),
        rows,
        len(shown.others),
    )


class _Prompts:
    """The prompts of steps 1 to 3 in the style of each step."""

    def __init__(self, config: Config, pack: Pack, tokenizer: PreTrainedTokenizerBase) -> None:
        self._generation, self._pack = config.generation, pack
        self._shown_in_evaluation = config.evaluation.few_shot_demonstrations
        self._template = ChatTemplate(tokenizer, pack.wording.system)
        named = pack.wording.of_domain(config.seeds.domain)
        self._own_template = self._template.with_system(named) if named else self._template

    def instructions(self, seeds: Sequence[SeedTask], rng: random.Random) -> str:
        step = self._generation.instructions
        count = min(step.seed_demonstrations + step.machine_demonstrations, len(seeds))
        shown = [task.instruction for task in rng.sample(list(seeds), count)]
        match step.style or self._generation.style:
            case "chat":
                wording = self._pack.wording
                return chat_instructions(wording, shown, step.last_item, self._template).text
            case "magpie":
                return self._own_template.user_prefix()
            case _:
                return instruction_prompt(self._pack.wording, shown).text

    def classification(self, shown: Sequence[SeedTask], task: SeedTask) -> str:
        style = self._generation.classification.style or self._generation.style
        wording, others = self._pack.wording, [one for one in shown if one.id != task.id]
        if style in ("chat", "magpie"):
            return chat_classification(wording, others, task.instruction, self._template).text
        return classification_prompt(wording, others, task.instruction).text

    def instances(self, shown: Sequence[SeedTask], task: SeedTask, labelled: bool) -> str:
        step, wording = self._generation.instances, self._pack.wording
        shown = shown[: step.demonstrations]
        match step.style or self._generation.style:
            case "chat":
                ask = chat_output_first if labelled else chat_input_first
                return ask(wording, shown, task.instruction, self._template).text
            case "magpie":
                shown = shown_answers(self._pack.input_first, step, "magpie")
                return chat_answer(shown, task.instruction, "", self._own_template).text
            case _:
                make = output_first_prompt if labelled else input_first_prompt
                return make(wording, shown, task.instruction).text

    def answer(self, task: SeedTask) -> str:
        step, given = self._generation.instances, task.instances[0].input
        style = step.style or self._generation.style
        if style in ("chat", "magpie"):
            shown = shown_answers(self._pack.input_first, step, style)
            return chat_answer(shown, task.instruction, given, self._template).text
        shown = self._pack.input_first[: step.demonstrations]
        return few_shot_prompt(self._pack.wording, shown, task.instruction, given).text

    def few_shot(self, task: SeedTask) -> str:
        shown = self._pack.input_first[: self._shown_in_evaluation]
        given = task.instances[0].input
        return few_shot_prompt(self._pack.wording, shown, task.instruction, given).text


def prompt_size(prompts: Sequence[list[int]], max_tokens: int, context: int | None) -> PromptSize:
    """Mean tokens of some prompts, cut to what a context leaves, and what all of them share."""
    # A longer prompt gives up demonstrations, see `fit_prompt`.
    room = context - min(max_tokens, context // 2) if context else None
    shared = min(
        (
            sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
            for a, b in pairwise(prompts)
        ),
        default=0,
    )
    tokens = fmean(min(len(prompt), room or len(prompt)) for prompt in prompts)
    return PromptSize(tokens, min(shared, tokens))


def _row_lengths(
    config: Config, pack: Pack, seeds: Sequence[SeedTask], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    template, answers = config.training.template, pack.answers
    lengths = []
    for task in seeds:
        for one in task.instances:
            prompt = encode(template, task.instruction, one.input, answers, tokenizer=tokenizer)
            answer = completion_text(one.output, answers, template)
            lengths.append(len(tokenizer(prompt + answer)["input_ids"]) + 1)
    return tuple(lengths)
