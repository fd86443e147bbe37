"""Laws of the microworld's seeds and suites: right, apart from pretraining, and reproducible."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from dev.embedded.corpus import documents
from dev.embedded.suites import DATA, SEED_EFFECTS, write_suites
from selfinstruct_train.microworld.instructions import RESERVED_WORDINGS, Composed, parse, world
from selfinstruct_train.microworld.oracle import judge
from selfinstruct_train.microworld.world import split_of
from selfinstruct_train.packs.pack import load_pack, require_demonstrations
from selfinstruct_train.records import EvalTask, SeedTask
from selfinstruct_train.sources.reader import read_rows, read_seed_tasks

SUITES = {"test": ("test", 9, 252), "dev": ("dev", 8, 126), "seen": ("pretraining", 8, 126)}


def _parsed(task: EvalTask | SeedTask) -> Composed:
    composed = parse(task.instruction)
    assert composed, task.instruction
    return composed


def _problems(task: EvalTask | SeedTask) -> set[tuple[str, str, str]]:
    composed = _parsed(task)
    slots = str(sorted(composed.slots.items()))
    return {(composed.family.name, slots, instance.input) for instance in task.instances}


def _suite(name: str) -> tuple[EvalTask, ...]:
    return read_rows(DATA / f"{name}.jsonl", EvalTask)


def _all_seed_like() -> tuple[SeedTask, ...]:
    pack = load_pack(str(DATA / "prompts"))
    groups = pack.classification, pack.input_first, pack.output_first
    return read_seed_tasks(DATA / "seed_tasks.jsonl") + sum(groups, ())


def test_the_shipped_files_are_what_the_code_writes(tmp_path: Path) -> None:
    write_suites(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert written == sorted(path.relative_to(DATA) for path in DATA.rglob("*.jsonl"))
    for name in written:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_asks_in_its_own_wording_about_problems_of_its_split(name: str) -> None:
    split, wording, count = SUITES[name]
    tasks = _suite(name)
    assert [task.id for task in tasks] == [f"microworld_{name}_{i}" for i in range(count)]
    for task in tasks:
        composed, (instance,) = _parsed(task), task.instances
        assert composed.wording == wording
        assert split_of(composed.family.name, composed.slots, instance.input) == split
        assert judge(task.instruction, instance.input, instance.output) == "right"
    problems = [problem for task in tasks for problem in _problems(task)]
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_spread_evenly_over_families(name: str) -> None:
    tasks = [(task, _parsed(task)) for task in _suite(name)]
    families = Counter(composed.family.name for _, composed in tasks)
    assert max(families.values()) <= 4
    assert len(families) > 0.85 * len(world().families)
    closed = sum(composed.family.is_classification for _, composed in tasks) / len(tasks)
    assert 0.18 < closed < 0.28
    assert all(
        (task.motivation_app == "reserved") == composed.family.reserved for task, composed in tasks
    )
    assert 0.04 < sum(composed.family.reserved for _, composed in tasks) / len(tasks) < 0.08
    dress = sum(_has_reserved_dress(composed) for _, composed in tasks) / len(tasks)
    assert 0.2 < dress < 0.4


def test_seeds_are_175_of_which_25_classification() -> None:
    seeds = read_seed_tasks(DATA / "seed_tasks.jsonl")
    assert len(seeds) == 175
    assert sum(seed.is_classification for seed in seeds) == 25
    assert len({seed.instruction for seed in seeds}) == 175


def test_seeds_cover_half_of_the_families_and_three_effects() -> None:
    parsed = [_parsed(task) for task in read_seed_tasks(DATA / "seed_tasks.jsonl")]
    names = {composed.family.name for composed in parsed}
    askable = [family for family in world().families if not family.reserved]
    assert len(names) == 48
    assert 0.4 < len(names) / len(askable) < 0.6
    effects = {composed.modifier.effect for composed in parsed if composed.modifier}
    assert effects == {"none", *SEED_EFFECTS}
    demonstrated = {_parsed(task).family.name for task in _all_seed_like()}
    assert demonstrated == names


def test_seeds_and_demonstrations_are_right_and_not_reserved() -> None:
    for task in _all_seed_like():
        composed = _parsed(task)
        assert composed.family.is_classification == task.is_classification
        assert not composed.family.reserved
        assert composed.wording < len(composed.family.wordings) - RESERVED_WORDINGS
        assert not _has_reserved_dress(composed)
        for instance in task.instances:
            assert split_of(composed.family.name, composed.slots, instance.input) == "seed"
            assert judge(task.instruction, instance.input, instance.output) == "right"


def test_seeds_of_classification_show_every_label() -> None:
    for task in _all_seed_like():
        composed = _parsed(task)
        if composed.family.labels:
            assert len(task.instances) == len(composed.family.labels(composed.slots))
            assert len({instance.output for instance in task.instances}) == len(task.instances)


def test_the_prompt_set_is_complete() -> None:
    prompts = load_pack(str(DATA / "prompts"))
    require_demonstrations(prompts, "data/microworld/prompts")
    answers = Counter(task.is_classification for task in prompts.classification)
    assert answers == {True: 12, False: 12}
    assert len(prompts.input_first) == 8
    assert 1 <= sum(not task.instances[0].input for task in prompts.input_first) <= 2
    assert len(prompts.output_first) == 6
    assert all(task.is_classification for task in prompts.output_first)


def test_suites_share_nothing_with_seeds() -> None:
    seeds = _all_seed_like()
    texts = {task.instruction for task in seeds}
    problems = set().union(*map(_problems, seeds))
    for name in SUITES:
        for task in _suite(name):
            assert task.instruction not in texts
            assert problems.isdisjoint(_problems(task))


def test_no_wording_of_a_suite_occurs_in_the_corpus() -> None:
    prompts = load_pack(str(DATA / "prompts"))
    text = "\n".join(islice(documents(3, prompts.wording, False), 1500))
    for name in SUITES:
        for task in _suite(name):
            composed = _parsed(task)
            core = composed.family.wordings[composed.wording].format_map(composed.slots)
            # A very short core may well be the tail of a longer, open wording.
            assert len(core.split()) < 5 or core not in text


def _has_reserved_dress(composed: Composed) -> bool:
    context = composed.context is not None and world().contexts[composed.context].reserved
    return context or bool(composed.modifier and composed.modifier.reserved)
