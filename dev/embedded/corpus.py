"""The pretraining text of the embedded model: an endless stream of documents about the microworld.

Only problems of the pretraining split are shown, and never a reserved wording, context or modifier;
families that are reserved occur in plain sentences but are never asked for. Most documents have the
shape of the generation prompts, rendered by the same functions, so that the model can do few-shot
what the loop asks of it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from selfinstruct_train.generation.prompting import (
    Prompt,
    classification_prompt,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.microworld.dressing import Effect, wrap
from selfinstruct_train.microworld.instructions import (
    Composed,
    Microworld,
    draw_problem,
    takes_input,
    world,
)
from selfinstruct_train.microworld.lexicon import NAMES, capitalized
from selfinstruct_train.microworld.world import Family, Problem
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask

SHARES = {
    "plain": 0.16,
    "list": 0.22,
    "classification": 0.08,
    "input_first": 0.38,
    "output_first": 0.16,
}
"""Kind of document -> its share of the text."""

_LIST_HEADERS = (
    "Questions and tasks:", "A teacher wrote this list:", "Things to ask:", "All kinds of tasks:",
    "Work for this week:",
    "Small tasks for a helper:", "A list of exercises:", "Try each of these:",
)  # fmt: skip
_DRESSED: dict[Effect, tuple[str, ...]] = {
    "stop": ("With a full stop, {x} becomes {y}", "{x} with a full stop is {y}"),
    "exclaim": ("With an exclamation mark, {x} becomes {y}", "Shouted, {x} is {y}"),
    "brackets": ("In brackets, {x} becomes {y}.", "{x} in brackets is {y}."),
    "quotes": ("In double quotes, {x} becomes {y}.", "{x} in quotes is {y}."),
    "answer": (
        "With the word Answer in front, {x} becomes {y}.",
        "{x} after Answer and a colon is {y}.",
    ),
    "star": ("With a star, {x} becomes {y}.", "{x} with a star in front is {y}."),
    "thanks": ("With thanks, {x} becomes {y}", "Politely, {x} is {y}"),
}
_ASKED = (
    "{name} was asked: {ask} {input}{name} said: {answer}",
    "{ask} {input}The right answer is: {answer}",
    "A question for {name}. {ask} {input}Reply: {answer}",
)


class _Pool(NamedTuple):
    families: tuple[Family, ...]
    weights: tuple[float, ...]
    """Cumulative."""

    def draw(self, rng: random.Random, recent: deque[str]) -> Family:
        """A family that was not drawn recently."""
        while True:
            family = rng.choices(self.families, cum_weights=self.weights)[0]
            if family.name not in recent:
                recent.append(family.name)
                return family


def documents(seed: int, wording: Wording, long: bool) -> Iterator[str]:
    """Yield pretraining documents without end, the same ones for the same arguments.

    Args:
        seed: another seed, another stream.
        wording: the prompt texts whose shape the documents take.
        long: documents of about 600-1000 tokens instead of at most 400 or so.
    """
    author = _Author(world(), wording, long, random.Random(f"{seed} {long}"))
    kinds = author.kinds()
    # A kind's mean length so far turns its share of the text into one of the documents.
    counts = {kind: 1 for kind in kinds}
    characters = {kind: 1000 for kind in kinds}
    while True:
        chances = [SHARES[kind] * counts[kind] / characters[kind] for kind in kinds]
        kind = author.rng.choices(list(kinds), chances)[0]
        text = kinds[kind]()
        counts[kind] += 1
        characters[kind] += len(text)
        yield text


class _Author:
    """Writes documents of each kind with one generator of chance."""

    def __init__(self, world: Microworld, wording: Wording, long: bool, rng: random.Random) -> None:
        self.world, self.wording, self.long, self.rng = world, wording, long, rng
        # A family without problems in the split would be drawn for without end.
        probe = random.Random(0)
        usable = tuple(f for f in world.families if draw_problem(probe, f, "pretraining"))
        asked = tuple(f for f in usable if not f.reserved)
        self.all = _pool(usable)
        self.asked = _pool(asked)
        self.open = _pool(tuple(f for f in asked if not f.is_classification))
        self.closed = _pool(tuple(f for f in asked if f.is_classification))

    def kinds(self) -> dict[str, Callable[[], str]]:
        """Kind -> what writes one document of it."""
        return {
            "plain": self.plain, "list": self.list, "classification": self.classification,
            "input_first": self.input_first, "output_first": self.output_first,
        }  # fmt: skip

    def plain(self) -> str:
        """Sentences, drills and small questions; now and then many lines of one family."""
        rng = self.rng
        wanted = self._characters()
        lines: list[str] = []
        if rng.random() < 0.3:
            family = self.all.draw(rng, deque())
            while sum(map(len, lines)) < wanted * 0.8:
                lines.append(self._sentence(family))
        else:
            recent: deque[str] = deque(maxlen=8)
            while sum(map(len, lines)) < wanted:
                draw = rng.random()
                if draw < 0.10:
                    lines.append(self._dressed())
                elif draw < 0.35:
                    pool = self.closed if rng.random() < 0.5 else self.open
                    lines.append(self._asked(pool.draw(rng, recent)))
                else:
                    lines.append(self._sentence(self.all.draw(rng, recent)))
        run_on = rng.random() < 0.3 and all(line.endswith((".", "!", "?")) for line in lines)
        return (" " if run_on else "\n").join(lines)

    def list(self) -> str:
        """A numbered list of instructions, as in step 1."""
        rng, recent = self.rng, deque[str](maxlen=12)
        count = 16 if self.long else rng.randint(9, 16)
        items = [self._compose(self.asked.draw(rng, recent)).instruction for _ in range(count)]
        prompt = instruction_prompt(self.wording, items)
        if (draw := rng.random()) < 0.6:
            return _shown(prompt)
        header = rng.choice(_LIST_HEADERS) + "\n" if draw < 0.85 else ""
        return _shown(prompt._replace(header=header))

    def classification(self) -> str:
        """The question of step 2, answered for several instructions."""
        rng, recent = self.rng, deque[str](maxlen=8)
        count = rng.randint(16, 31) if self.long else rng.randint(6, 12)
        tasks = []
        for _ in range(count):
            family = (self.closed if rng.random() < 0.4 else self.open).draw(rng, recent)
            tasks.append(_task(self._compose(family), (Instance(output="-"),)))
        return self._headed(classification_prompt(self.wording, tasks, "-"))

    def input_first(self) -> str:
        """Tasks with their examples, as in step 3 for tasks that are not classification."""
        rng, recent = self.rng, deque[str](maxlen=8)
        wanted, tasks, size = self._characters(), [], 0
        while size < wanted:
            composed = self._compose(family := self.open.draw(rng, recent))
            count = rng.choices((1, 2, 3, 4), (30, 32, 24, 14))[0] if takes_input(family) else 1
            inputs = dict.fromkeys(p.input for _ in range(count) if (p := self._problem(composed)))
            if not inputs:
                continue
            instances = tuple(Instance(input=i, output=composed.answers(i)[0]) for i in inputs)
            tasks.append(_task(composed, instances))
            size += _size(composed, instances)
        return self._headed(input_first_prompt(self.wording, tasks, "-"))

    def output_first(self) -> str:
        """Labels and inputs that have them, as in step 3 for classification."""
        rng, recent = self.rng, deque[str](maxlen=6)
        wanted, tasks, size = self._characters(), [], 0
        while size < wanted:
            composed = self._compose(self.closed.draw(rng, recent))
            if instances := labelled(rng, composed, "pretraining", each=rng.choice((1, 1, 2))):
                tasks.append(_task(composed, instances))
                size += _size(composed, instances)
        return self._headed(output_first_prompt(self.wording, tasks, "-"))

    def _characters(self) -> int:
        # World text has about 4 characters a token; a document overshoots by half a task.
        return self.rng.randint(2300, 3500) if self.long else self.rng.randint(700, 1300)

    def _headed(self, prompt: Prompt) -> str:
        return _shown(prompt if self.rng.random() < 0.85 else prompt._replace(header=""))

    def _problem(self, composed: Composed) -> Problem | None:
        return draw_problem(self.rng, composed.family, "pretraining", composed.slots)

    def _compose(self, family: Family) -> Composed:
        slots = None
        if not takes_input(family):
            problem = draw_problem(self.rng, family, "pretraining")
            slots = problem.slots if problem else None
        return self.world.compose(self.rng, family, slots=slots)

    def _any_problem(self, family: Family) -> tuple[Problem, str]:
        while not (problem := draw_problem(self.rng, family, "pretraining")):
            continue
        return problem, family.answers(problem.slots, problem.input)[0]

    def _sentence(self, family: Family) -> str:
        if family.sentences is None:
            return self._dressed() if family.reserved else self._asked(family)
        problem, answer = self._any_problem(family)
        return family.sentences(self.rng, problem.slots, problem.input, answer)

    def _asked(self, family: Family) -> str:
        problem, _ = self._any_problem(family)
        composed = self.world.compose(self.rng, family, slots=problem.slots)
        answer = composed.answers(problem.input)[0]
        given = f"{problem.input} " if problem.input else ""
        return self.rng.choice(_ASKED).format(
            name=self.rng.choice(NAMES), ask=composed.instruction, input=given, answer=answer
        )

    def _dressed(self) -> str:
        answer = "."
        while not answer[-1].isalnum():
            _, answer = self._any_problem(self.all.draw(self.rng, deque()))
        effect = self.rng.choice(tuple(_DRESSED))
        line = self.rng.choice(_DRESSED[effect]).format(x=answer, y=wrap(effect, answer))
        return capitalized(line)


def labelled(rng: random.Random, composed: Composed, split: str, each: int) -> tuple[Instance, ...]:
    """Instances of a classification task, so many of each label, the labels in random order.

    A label for which chance finds no input is left out.
    """
    family, modifier = composed.family, composed.modifier
    assert family.labels is not None
    labels = list(family.labels(composed.slots))
    rng.shuffle(labels)
    found: dict[str, dict[str, None]] = {label: {} for label in labels}
    for _ in range(60):
        if (problem := draw_problem(rng, family, split, composed.slots)) is None:
            break
        answer = family.answers(problem.slots, problem.input)[0]
        if len(found[answer]) < each:
            found[answer][problem.input] = None
            if all(len(inputs) == each for inputs in found.values()):
                break
    return tuple(
        Instance(input=text, output=modifier.wrap(label) if modifier else label)
        for label, inputs in found.items()
        for text in inputs
    )


def _pool(families: Sequence[Family]) -> _Pool:
    return _Pool(tuple(families), tuple(accumulate(family.weight for family in families)))


def _size(composed: Composed, instances: tuple[Instance, ...]) -> int:
    """About the number of characters that a task takes, field names included."""
    return len(composed.instruction) + 8 + sum(len(i.input) + len(i.output) + 20 for i in instances)


def _task(composed: Composed, instances: tuple[Instance, ...]) -> SeedTask:
    # Not validated: the stream makes millions, all from parts that are known to be sound.
    return SeedTask.model_construct(
        id="-", name=composed.family.name, instruction=composed.instruction, instances=instances,
        is_classification=composed.family.is_classification,
    )  # fmt: skip


def _shown(prompt: Prompt) -> str:
    return "".join((prompt.header, *prompt.demonstrations)).strip()
