"""A domain stands in every prompt, its seeds are the demonstrations, and drift from it is seen."""

import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from selfinstruct_train.config import Config, SeedsConfig, load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.domain import for_domain
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.generation.topic import Topic
from selfinstruct_train.packs.pack import Pack, load_pack
from selfinstruct_train.records import GeneratedInstance, Instance, Rejection, SeedTask
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks

ROOT = Path(__file__).parents[2]
EN = load_pack("en")
SEEDS = read_seed_tasks(resolve("medical-seeds"))
EVERYDAY = read_seed_tasks(resolve("everyday-seeds"))
CLINIC = SeedsConfig(path="medical-seeds", domain="a clinic")
ON = "Name two signs of an infected wound that a patient should report to the nurse."
OFF = "Suggest three colours of paint that go well with an old wooden garden fence."


def prepared(config: SeedsConfig = CLINIC, seeds: tuple[SeedTask, ...] = SEEDS) -> Pack:
    return for_domain(EN, config, seeds, random.Random(0))


def test_without_a_domain_the_pack_is_what_it_was() -> None:
    assert prepared(SeedsConfig(path="medical-seeds")) == EN
    assert prepared(SeedsConfig(path="x", demonstrations="pack", domain="a b")).input_first == (
        EN.input_first
    )


def test_every_header_names_the_domain_and_every_demonstration_is_a_seed() -> None:
    pack = prepared()
    for name in ("instructions", "classification", "input_first", "output_first"):
        header = getattr(pack.wording, f"{name}_header")
        assert header == (
            "All of these tasks are for a clinic.\n" + getattr(EN.wording, f"{name}_header")
        )
    shown = {*pack.classification, *pack.input_first, *pack.output_first}
    assert shown <= set(SEEDS)
    assert pack.hash != EN.hash
    chinese = for_domain(
        load_pack("zh"), SeedsConfig(path="x", domain="兽医诊所"), SEEDS, random.Random(0)
    )
    assert chinese.wording.instructions_header.startswith("以下任务都属于这个领域：兽医诊所。\n")


def test_demonstrations_are_balanced_as_far_as_a_prompt_has_room() -> None:
    pack = prepared()
    first = [bool(task.instances[0].input) for task in pack.input_first[:8]]
    assert first.count(True) == first.count(False) == 4
    labels = [len({one.output for one in task.instances}) for task in pack.output_first]
    assert labels == sorted(labels, reverse=True)


def test_the_pack_fills_up_a_kind_that_the_seeds_lack_and_labels_in_a_seed_bar_it() -> None:
    bad = SEEDS[12].model_copy(update={"instances": (Instance(input="x", output="a\nInput: b"),)})
    few = (*(task for task in SEEDS if not task.is_classification), bad)
    pack = prepared(seeds=few)
    assert bad not in pack.input_first
    assert pack.output_first == EN.output_first[:4]
    assert sum(task.is_classification for task in pack.classification) == 4


def test_rows_of_the_domain_are_told_from_everyday_ones() -> None:
    for name in ("medical-seeds", "legal-seeds", "code-seeds"):
        seeds = list(read_seed_tasks(resolve(name)))
        random.Random(1).shuffle(seeds)
        everyday = random.Random(1).sample(EVERYDAY, len(EVERYDAY))
        topic = Topic(seeds[:20], everyday[:100])
        own = [topic.score(t.instruction, t.instances[0]) for t in seeds[20:]]
        other = [topic.score(t.instruction, t.instances[0]) for t in everyday[100:]]
        ranked = [(a > b) + 0.5 * (a == b) for a in own for b in other]
        assert sum(ranked) / len(ranked) > 0.75, name
        figures = topic.figures
        assert figures.seeds_on_topic - figures.everyday_on_topic > 0.4, name


def test_chinese_rows_are_told_by_their_characters() -> None:
    seeds = read_seed_tasks(resolve("zh-seeds"))
    law = tuple(t for t in seeds if "合同" in t.instruction)
    topic = Topic(law, seeds)
    contract = topic.score("起草一条合同条款，规定违约金。", Instance(output="乙方应支付违约金。"))
    assert contract > 0 > topic.score("写一首关于春天的诗。", Instance(output="春风吹绿了柳树。"))


def run(tmp_path: Path, off_topic: str) -> RoundDirectory:
    config: Config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        [
            "generation.prompts=en",
            "generation.instances.answers=as_written",
            "generation.instructions_per_round=2",
            "generation.max_requests=3",
            "generation.classification.calibrate=false",
            "seeds.path=medical-seeds",
            "seeds.domain=a clinic",
            f"seeds.off_topic={off_topic}",
        ],
        tmp_path / off_topic,
    )
    prompts: list[str] = []

    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        prompts.append(request.prompt)
        if "-instructions-" in request.id:
            number = 1 + sum(line[:1].isdigit() for line in request.prompt.splitlines()[:-1])
            return ScriptedAnswer(f" {ON}\n{number + 1}. {OFF}")
        about = "fever and pus in the wound" if ON in request.prompt.splitlines()[-2] else "green"
        return ScriptedAnswer(f"\nOutput: {about}, and tell the one who asks")

    directory = RunDirectory(config.output_dir)
    engine = ScriptedEngine(answer, lambda prompt, text: float(text == " No"))
    generate_round(config, engine, directory, 0, SEEDS, None, lambda i, g: i, lambda u: None)
    assert all(prompt.startswith("All of these tasks are for a clinic.\n") for prompt in prompts)
    return directory.round(0)


def test_a_round_says_how_much_of_it_is_on_topic_and_drops_the_rest_where_asked(
    tmp_path: Path,
) -> None:
    kept, dropping = run(tmp_path, "keep"), run(tmp_path, "drop")
    for directory, rows in ((kept, 2), (dropping, 1)):
        found = directory.store(directory.instances, GeneratedInstance).read()
        assert len(found) == rows and found[0].instruction == ON
        mark = directory.read_mark("instances")
        assert mark is not None and mark.figures["on_topic"] == 0.5
        assert mark.figures["seeds_on_topic"] and mark.figures["everyday_on_topic"] is not None
    rejected = dropping.store(dropping.rejected("instances"), Rejection).read()
    assert [row.reason for row in rejected if row.instruction == OFF] == ["off_topic"]


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValidationError, match="no domain is set; set seeds.domain"):
        SeedsConfig(path="x", off_topic="drop")
    for domain in ("", " a", "a\nb"):
        with pytest.raises(ValidationError):
            SeedsConfig(path="x", domain=domain)
