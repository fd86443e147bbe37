"""The project's own seeds by domain and language: complete, varied, and in order by their pack."""

import json
import os
from pathlib import Path

import pytest

from selfinstruct_train.config import ContaminationConfig, FilterConfig
from selfinstruct_train.contamination.suite_index import ExampleRow, SuiteIndex, SuiteTasks
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.packs.language import language_test
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import SeedTask
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import TokenizerName

SETS = {"code-seeds": 32, "medical-seeds": 29, "legal-seeds": 29, "zh-seeds": 100, "pt-seeds": 60}
PACK_OF = {"zh-seeds": "zh", "pt-seeds": "pt"}
COVERED = {
    "sentiment": "满意、不满意",
    "product description": "商品写一段",
    "person extraction": "人名",
    "place extraction": "地名",
    "medical term": "医学名词",
    "contract clause": "合同条款",
}


@pytest.fixture(scope="module")
def seeds() -> dict[str, tuple[SeedTask, ...]]:
    return {name: read_seed_tasks(resolve(name)) for name in SETS}


def nearest(own: list[SeedTask], others: list[tuple[str, str]], tokenizer: TokenizerName) -> float:
    index = NoveltyIndex(threshold=0.7, tokenizer=tokenizer)
    index.extend(others)
    return max(found.score for found in index.search([task.instruction for task in own]))


def test_the_sets_hold_what_they_are_said_to_hold(seeds: dict[str, tuple[SeedTask, ...]]) -> None:
    assert {name: len(tasks) for name, tasks in seeds.items()} == SETS
    for name, tasks in seeds.items():
        assert len({task.name for task in tasks}) == len(tasks), name
        kinds = sum(task.is_classification for task in tasks)
        assert 0.2 <= kinds / len(tasks) <= 0.5, name
        without_input = sum(not task.instances[0].input for task in tasks)
        assert 0.1 <= without_input / len(tasks) <= 0.5, name


@pytest.mark.parametrize("name", SETS)
def test_every_seed_passes_the_filters_of_its_pack(
    name: str, seeds: dict[str, tuple[SeedTask, ...]]
) -> None:
    pack = load_pack(PACK_OF.get(name, "en"))
    screen, language = (
        InstructionFilter(FilterConfig(), pack.rules),
        language_test(pack.rules.language),
    )
    for task in seeds[name]:
        assert screen.fault(task.instruction) is None, task.instruction
        for row in check_instances(
            task.instruction, task.instances, task.is_classification, 5, 4, pack.wording, language
        ):
            assert row.fault is None, (task.id, row)


def test_classification_seeds_show_at_least_two_labels(
    seeds: dict[str, tuple[SeedTask, ...]],
) -> None:
    for tasks in seeds.values():
        for task in tasks:
            labels = {instance.output for instance in task.instances}
            assert not task.is_classification or len(labels) > 1, task.id


@pytest.mark.parametrize("name", SETS)
def test_no_seed_nearly_says_what_another_says(
    name: str, seeds: dict[str, tuple[SeedTask, ...]]
) -> None:
    tokenizer: TokenizerName = "unicode" if name in PACK_OF else "rouge"
    tasks = list(seeds[name])
    for place, task in enumerate(tasks[1:], 1):
        before = [(other.id, other.instruction) for other in tasks[:place]]
        assert nearest([task], before, tokenizer) <= 0.6, task.instruction
    pack = load_pack(PACK_OF.get(name, "en"))
    shown = [*pack.classification, *pack.input_first, *pack.output_first]
    assert nearest(tasks, [(task.id, task.instruction) for task in shown], tokenizer) <= 0.7


def test_english_sets_keep_apart_from_the_everyday_seeds_and_suites(
    seeds: dict[str, tuple[SeedTask, ...]],
) -> None:
    everyday = [(t.id, t.instruction) for t in read_seed_tasks(resolve("everyday-seeds"))]
    english = [task for name in SETS if name not in PACK_OF for task in seeds[name]]
    assert nearest(english, everyday, "rouge") <= 0.6
    rows = [
        ExampleRow(f"{task.id}#{i}", "seed", task.instruction, instance.input, instance.output)
        for task in english
        for i, instance in enumerate(task.instances)
    ]
    for name in ("everyday-test", "everyday-dev"):
        index = SuiteIndex(SuiteTasks(name, load_suite(name).tasks), ContaminationConfig(), "rouge")
        assert not [f for _, f in index.find(rows) if f.level != "instruction"]


def test_the_chinese_seeds_cover_the_tasks_of_the_sources(
    seeds: dict[str, tuple[SeedTask, ...]],
) -> None:
    for topic, said in COVERED.items():
        assert any(said in task.instruction for task in seeds["zh-seeds"]), topic


def test_nothing_comes_near_the_official_tasks(seeds: dict[str, tuple[SeedTask, ...]]) -> None:
    beside = Path(__file__).parents[1].parent / "shared"
    folder = Path(os.environ.get("SELFINSTRUCT_MATERIAL", beside)) / "official"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; name a folder with it in SELFINSTRUCT_MATERIAL")
    official = [
        (row["id"], row["instruction"])
        for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl")
        for row in map(json.loads, (folder / name).read_text("utf-8").splitlines())
    ]
    english = [task for name in SETS if name not in PACK_OF for task in seeds[name]]
    assert nearest(english, official, "rouge") <= 0.6
