"""Laws of the microworld: what is composed can be read back, and the oracle knows the answers."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from rapidfuzz.distance import LCSseq

from dev.embedded.corpus import SHARES, documents
from dev.embedded.suites import DATA
from selfinstruct_train.microworld.dressing import Effect, wrap
from selfinstruct_train.microworld.instructions import (
    RESERVED_WORDINGS,
    draw_problem,
    parse,
    takes_input,
    world,
)
from selfinstruct_train.microworld.oracle import expected, is_classification, judge
from selfinstruct_train.microworld.world import split_of
from selfinstruct_train.packs.pack import read_pack_file
from selfinstruct_train.packs.parts import Wording

CORPUS_DOCUMENTS = 300


def _wording() -> Wording:
    return read_pack_file(DATA / "prompts" / "pack.yaml").wording


def _lines(long: bool) -> list[str]:
    text = "\n".join(islice(documents(5, _wording(), long), CORPUS_DOCUMENTS))
    return text.split("\n")


def _asked(line: str) -> str | None:
    """The instruction that a line of the corpus states, if it is the line of a task."""
    head, _, tail = line.partition(" ")
    return tail if head == "Task:" or (head.endswith(".") and head[:-1].isdigit()) else None


def test_family_names_and_wordings_are_unique() -> None:
    families = world().families
    assert len({family.name for family in families}) == len(families)
    wordings = Counter(wording for family in families for wording in family.wordings)
    assert max(wordings.values()) == 1


def test_every_family_answers_what_it_samples() -> None:
    rng = random.Random(1)
    for family in world().families:
        for _ in range(20):
            slots = family.sample_slots(rng)
            text = family.sample_input(rng, slots)
            assert family.answers(slots, text), (family.name, slots, text)
            assert bool(text) == takes_input(family)
            if family.labels:
                assert family.answers(slots, text)[0] in family.labels(slots)


def test_no_family_answers_a_malformed_input() -> None:
    rng = random.Random(2)
    for family in world().families:
        slots = family.sample_slots(rng)
        assert family.answers(slots, "zzz qqq; ###, 7 %") == (), family.name
        assert family.answers(slots, "" if takes_input(family) else "cat") == (), family.name


def test_parse_inverts_compose() -> None:
    rng = random.Random(3)
    for _ in range(4000):
        composed = world().compose(rng, rng.choice(world().families), reserved="any")
        assert parse(composed.instruction) == composed


def test_parse_refuses_what_is_not_of_the_microworld() -> None:
    assert parse("Write a poem about the sea.") is None
    assert parse("") is None
    assert parse("Reverse the list") is None
    assert parse("This is for Anna's art test.") is None


def test_compose_keeps_reserved_parts_apart() -> None:
    rng = random.Random(4)
    for _ in range(2000):
        family = rng.choice(world().families)
        for reserved in ("never", "only"):
            composed = world().compose(rng, family, reserved=reserved)
            held = reserved == "only"
            assert (composed.wording >= len(family.wordings) - RESERVED_WORDINGS) == held
            if composed.context is not None:
                assert world().contexts[composed.context].reserved == held
            if composed.modifier:
                assert composed.modifier.reserved == held


@pytest.mark.parametrize(
    ("effect", "answer", "dressed"),
    [
        ("none", "red", "red"),
        ("stop", "red", "red."),
        ("stop", "It is red.", "It is red."),
        ("exclaim", "It is red.", "It is red!"),
        ("brackets", "a, b", "(a, b)"),
        ("quotes", "red", '"red"'),
        ("answer", "red", "Answer: red"),
        ("star", "red", "* red"),
        ("thanks", "red", "red Thanks!"),
    ],
)
def test_a_modifier_dresses_the_answer(effect: Effect, answer: str, dressed: str) -> None:
    assert wrap(effect, answer) == dressed


def test_effects_can_be_told_apart_by_their_answers() -> None:
    effects = {modifier.effect for modifier in world().modifiers}
    assert len({wrap(effect, "red") for effect in effects}) == len(effects) == 8


def test_the_oracle_judges_any_dress() -> None:
    rng = random.Random(6)
    for _ in range(1500):
        family = rng.choice(world().families)
        problem = draw_problem(rng, family, "pretraining")
        assert problem
        composed = world().compose(rng, family, reserved="any", slots=problem.slots)
        right = expected(composed.instruction, problem.input)
        assert right[0] == composed.answers(problem.input)[0]
        assert judge(composed.instruction, problem.input, f" {right[0]}\n") == "right"
        assert judge(composed.instruction, problem.input, right[0] + " zebra") == "wrong"
        assert judge(composed.instruction, "zzz qqq; ###, 7 %", right[0]) == "unknown"
        assert is_classification(composed.instruction) == family.is_classification
    assert judge("Write a poem about the sea.", "", "red") == "unknown"
    assert is_classification("Write a poem about the sea.") is None


@pytest.mark.parametrize("long", [False, True])
def test_the_corpus_asks_only_what_is_not_reserved(long: bool) -> None:
    asked = [instruction for line in _lines(long) if (instruction := _asked(line))]
    assert len(asked) > 1000
    for instruction in asked:
        composed = parse(instruction)
        assert composed, instruction
        assert not composed.family.reserved
        assert composed.wording < len(composed.family.wordings) - RESERVED_WORDINGS
        assert composed.context is None or not world().contexts[composed.context].reserved
        assert composed.modifier is None or not composed.modifier.reserved


def test_the_corpus_answers_only_pretraining_problems_and_rightly() -> None:
    checked, task, text = 0, None, ""
    label = None
    for line in _lines(long=False):
        head, _, tail = line.partition(" ")
        if head == "Task:":
            task, text, label = parse(tail), "", None
        elif task and head == "Input:":
            text = tail
            if label:
                assert label in task.answers(text)
                assert split_of(task.family.name, task.slots, text) == "pretraining"
        elif task and head == "Output:":
            assert tail in task.answers(text)
            assert split_of(task.family.name, task.slots, text) == "pretraining"
            checked += 1
        elif head == "Label:":
            label = tail
            checked += 1
    assert checked > 500


def test_the_corpus_never_shows_a_chat_template() -> None:
    assert not any("###" in line or "<|" in line for line in _lines(long=False))


def test_the_corpus_is_the_same_for_the_same_seed_only() -> None:
    def first(seed: int) -> list[str]:
        return list(islice(documents(seed, _wording(), False), 30))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_shares_of_the_corpus_add_up() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_new_instructions_survive_the_novelty_filter() -> None:
    rng = random.Random(8)
    kept: list[list[str]] = []
    drawn = 700
    for _ in range(drawn):
        composed = world().compose(rng, rng.choice(world().families))
        words = composed.instruction.lower().replace(".", "").replace("?", "").split()
        if all(_rouge_l(words, other) <= 0.7 for other in kept):
            kept.append(words)
    assert len(kept) / drawn > 0.85


def test_new_instructions_are_seldom_old_ones() -> None:
    rng = random.Random(9)
    open_families = [family for family in world().families if not family.reserved]

    def draw() -> str:
        return world().compose(rng, rng.choice(open_families)).instruction

    seen = {draw() for _ in range(40_000)}
    again = sum(draw() in seen for _ in range(2000)) / 2000
    # Counted once over 515,000 draws, which is what 25M tokens hold: 0.25.
    assert again < 0.15


def _rouge_l(first: list[str], second: list[str]) -> float:
    return 2 * float(LCSseq.similarity(first, second)) / (len(first) + len(second))
