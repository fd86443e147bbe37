"""A quick look at what a model can do: few-shot questions, judged by the oracle."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from selfinstruct_train.generation.prompting import input_first_prompt
from selfinstruct_train.microworld.instructions import Composed, draw_problem, takes_input, world
from selfinstruct_train.microworld.oracle import judge
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask


class Question(NamedTuple):
    """A prompt and what it asks for."""

    prompt: str
    group: str
    instruction: str
    input: str


class ProbeResult(NamedTuple):
    """Shares of right answers, 0 to 1."""

    right: float
    groups: dict[str, float]
    """Group of families -> share."""
    examples: tuple[str, ...]
    """A few wrong answers with their questions."""


def draw_questions(wording: Wording, count: int, seed: int) -> tuple[Question, ...]:
    """Questions with problems of the dev split in input-first prompts, the families in turn."""
    rng = random.Random(f"probe {seed}")
    here = world()
    asked = [f for f in here.families if not f.reserved]
    shown = [f for f in asked if not f.is_classification and takes_input(f)]
    rng.shuffle(asked)
    found: list[Question] = []
    while len(found) < count:
        family = asked[len(found) % len(asked)]
        problem = draw_problem(rng, family, "dev")
        if problem is None:
            asked.remove(family)
            continue
        composed = here.compose(rng, family, slots=problem.slots)
        tasks = [
            task
            for f in rng.sample(shown, 5)
            if f is not family and (task := _demonstration(rng, here.compose(rng, f)))
        ][:4]
        prompt = input_first_prompt(wording, tasks, composed.instruction).text
        prompt += f"\n{wording.input} {problem.input}" if problem.input else ""
        prompt += f"\n{wording.output}"
        found.append(Question(prompt, family.group, composed.instruction, problem.input))
    return tuple(found)


@torch.inference_mode()
def probe(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: tuple[Question, ...]
) -> ProbeResult:
    """Answer the questions greedily, one line each, and let the oracle judge."""
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    batch = tokenizer([q.prompt for q in questions], return_tensors="pt", padding=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ids = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
            max_new_tokens=32, do_sample=False,
            eos_token_id=[newline, tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    answers = tokenizer.batch_decode(
        ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    groups: dict[str, list[bool]] = defaultdict(list)
    wrong: list[str] = []
    for question, answer in zip(questions, answers, strict=True):
        right = judge(question.instruction, question.input, answer) == "right"
        groups[question.group].append(right)
        if not right:
            wrong.append(f"{question.instruction} | {question.input} -> {answer.strip()}")
    verdicts = [right for group in groups.values() for right in group]
    return ProbeResult(
        sum(verdicts) / len(verdicts),
        {name: round(sum(g) / len(g), 3) for name, g in sorted(groups.items())},
        tuple(wrong[:: max(1, len(wrong) // 8)][:8]),
    )


def _demonstration(rng: random.Random, composed: Composed) -> SeedTask | None:
    problems = [
        p for _ in range(2) if (p := draw_problem(rng, composed.family, "seed", composed.slots))
    ]
    instances = tuple(
        Instance(input=p.input, output=composed.answers(p.input)[0]) for p in problems
    )
    if not instances:
        return None
    return SeedTask(
        id="-", name=composed.family.name, instruction=composed.instruction, instances=instances,
        is_classification=False,
    )  # fmt: skip
