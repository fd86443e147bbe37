"""Categories and task types of seeds: shown together, handed on to what is written, counted."""

from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.config import Config
from selfinstruct_train.engines.scripted import ScriptedEngine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.labels import Labeller
from selfinstruct_train.generation.pool import Candidate, Group, Pool, derived_rng
from selfinstruct_train.generation.seed_check import check_seeds
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance, Instruction, Labelled, SeedTask
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.rounds.preflight import preflight
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.sources.seeds import read_seeds
from tests.generation.test_generate import contents, small_config, writer
from tests.helpers.killed import Killed

TOPICS = ("cooking", "sport", "law")


def seeds(*counts: int) -> tuple[SeedTask, ...]:
    """So many tasks of each topic, whose name stands in their text."""
    return tuple(
        SeedTask(
            id=f"{topic}-{n}",
            name=topic,
            instruction=f"{verb} number {n} about {topic} for the {topic} club of our town",
            instances=(Instance(output="ok"),),
            is_classification=False,
            category=topic,
            task_type="list" if n % 2 else "essay",
        )
        for topic, count in zip(TOPICS, counts, strict=False)
        for n, verb in zip(range(count), ("name", "sort", "tell", "write") * 3, strict=False)
    )


def by_topic(tasks: tuple[SeedTask, ...]) -> tuple[SeedTask, ...]:
    return tuple(task.model_copy(update={"task_type": None}) for task in tasks)


def test_tasks_without_labels_are_written_as_they_always_were() -> None:
    plain = SeedTask(
        id="a", name="a", instruction="b", instances=(Instance(output="c"),), is_classification=True
    )
    assert plain.model_dump_json() == (
        '{"id":"a","name":"a","instruction":"b","instances":[{"input":"","output":"c"}],'
        '"is_classification":true}'
    )


def test_balanced_prompts_show_one_group_and_every_group_alike_however_many_seeds_it_has() -> None:
    pool = Pool(by_topic(seeds(12, 6, 4)), "rouge", 0.7, "balanced")
    shown = [pool.demonstrations(derived_rng(i), 4, 2) for i in range(900)]
    assert all(len({entry.group for entry in one}) == 1 for one in shown)
    counts = Counter(Group.of_most(one).category for one in shown)
    assert all(count == pytest.approx(300, abs=60) for count in counts.values())
    assert set(counts) == set(TOPICS)


def test_a_group_of_one_is_filled_up_and_labels_nothing() -> None:
    pool = Pool(by_topic(seeds(8, 1)), "rouge", 0.7, "balanced")
    drawn = [pool.demonstrations(derived_rng(i), 6, 2) for i in range(40)]
    few = [one for one in drawn if "sport-0" in {entry.id for entry in one}]
    assert few and all(len(one) == 4 for one in few)
    assert {Group.of_most(one).category for one in few} == {"cooking"}


def test_rare_first_turns_to_what_there_is_least_of() -> None:
    pool = Pool(by_topic(seeds(10, 5, 4)), "rouge", 0.7, "rare_first")
    for number in range(40):
        shown = [pool.demonstrations(derived_rng(number, i), 6, 2, room=4) for i in range(2)]
        groups = [Group.of_most(one) for one in shown]
        words = [f"w{number}x{i}y{j} z{i}{number}" for i in range(2) for j in range(4)]
        new = [Candidate(w, f"say {w} {w[::-1]}", groups[n // 4]) for n, w in enumerate(words)]
        assert all(found.accepted for found in pool.admit(new))
    sizes = Counter(entry.group.category for entry in (*pool.seeds, *pool.machine))
    assert max(sizes.values()) - min(sizes.values()) <= 8, sizes


def test_requests_under_way_count_so_that_one_batch_serves_several_groups() -> None:
    pool = Pool(by_topic(seeds(8, 7, 6)), "rouge", 0.7, "rare_first")
    groups = [Group.of_most(pool.demonstrations(derived_rng(i), 6, 2, room=8)) for i in range(6)]
    assert [group.category for group in groups] == ["law", "sport", "cooking"] * 2


def labelled_round(
    config: Config, engine: ScriptedEngine, tasks: tuple[SeedTask, ...]
) -> RoundDirectory:
    run = RunDirectory(config.output_dir)
    run.open(config)
    generate_round(config, engine, run, 0, tasks, None, lambda i, g: i, lambda update: None)
    return run.round(0)


def test_an_instruction_has_the_labels_of_most_of_what_its_prompt_showed(tmp_path: Path) -> None:
    tasks = seeds(8, 8, 8)
    config = small_config(
        tmp_path,
        "generation.instructions.sampling=balanced",
        "generation.instructions.machine_demonstrations=0",
        "generation.instructions.seed_demonstrations=3",
    )
    directory = labelled_round(config, ScriptedEngine(writer), tasks)
    known = {task.id: task for task in tasks}
    rows = directory.store(directory.instructions, Instruction).read()
    assert len(rows) == 24
    for row in rows:
        shown = [known[name] for name in row.provenance.demonstrations]
        assert {task.category for task in shown} == {row.category}
        assert {task.task_type for task in shown} == {row.task_type}
    (stats,) = data_stats(RunDirectory(config.output_dir))
    counted = {(label.name, label.value): label.n for label in stats.labels}
    assert sum(n for (name, _), n in counted.items() if name == "category") == 24
    assert any("instructions by task type" in line for line in stats.lines)


def knows_topics(shift: float) -> ScriptedEngine:
    """Finds the label in the question, but says "law" by far most gladly."""

    def score(prompt: str, answer: str) -> float:
        question = prompt.rpartition("\nTask:")[2]
        return 2.0 * (answer.strip() in question) + shift * (answer.strip() == "law")

    return ScriptedEngine(writer, score)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
def test_what_the_model_prefers_to_say_does_not_matter(shift: float) -> None:
    labeller = Labeller(knows_topics(shift), load_pack("en").wording, "category", seeds(5, 4, 6))
    found = labeller.labels(["a word on cooking", "some sport", "the law of it"])
    assert [label.name for label in found] == ["cooking", "sport", "law"]
    assert [label.margin for label in found] == [2.0] * 3
    assert labeller.figures() == {
        "category_right_on_seeds": 1.0,
        "category_share_of_commonest": 0.4,
    }


def test_no_seed_is_asked_with_its_own_label_before_it() -> None:
    asked: list[str] = []

    def score(prompt: str, answer: str) -> float:
        asked.append(prompt)
        return 0.0

    engine = ScriptedEngine(writer, score)
    Labeller(engine, load_pack("en").wording, "task_type", seeds(6, 4)).figures()
    assert any(prompt.count("Task:") > 3 for prompt in asked)
    for prompt in asked:
        lines = [line for line in prompt.splitlines() if line.startswith("Task:")]
        assert lines[-1] not in lines[:-1]


@pytest.mark.parametrize("after", [0, 20, 60])
def test_labels_that_were_stopped_end_as_undisturbed_ones(tmp_path: Path, after: int) -> None:
    tasks, count = seeds(6, 5, 4), 0
    whole = knows_topics(1.0)

    def dying(prompt: str, answer: str) -> float:
        nonlocal count
        count += "About:" in prompt or "Kind:" in prompt
        if count > after:
            raise Killed
        return whole.score("", [prompt], [answer])[0][0]

    config = small_config(tmp_path / "a", "generation.labels=model")
    with pytest.raises(Killed):
        labelled_round(config, ScriptedEngine(writer, dying), tasks)
    again = labelled_round(config, knows_topics(1.0), tasks)
    other = small_config(tmp_path / "b", "generation.labels=model")
    assert contents(again) == contents(labelled_round(other, knows_topics(1.0), tasks))
    rows = again.store(again.labels, Labelled).read()
    ids = [row.id for row in again.store(again.instructions, Instruction).read()]
    assert [row.id for row in rows] == ids
    assert {row.category for row in rows} <= set(TOPICS)
    mark = again.mark("labels")
    assert mark is not None and mark.figures["category_right_on_seeds"] == 1.0


def test_labels_come_from_a_column_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("instruction,output,category\nBoil an egg.,6 minutes,cooking\nRun.,ok,\n")
    assert [task.category for task in read_seeds(str(file))] == ["cooking", None]


def test_settings_that_need_labels_are_refused_where_the_seeds_have_none(tmp_path: Path) -> None:
    for override in ("generation.instructions.sampling=rare_first", "generation.labels=model"):
        with pytest.raises(ConfigError, match="no two seed tasks of .* differ in 'category'"):
            preflight(small_config(tmp_path, override))


def test_the_check_of_seeds_counts_labels_and_names_rare_ones(tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    file.write_text("".join(task.model_dump_json() + "\n" for task in seeds(5, 2)))
    report, _ = check_seeds(file, ())
    assert report.categories == {"cooking": 5, "sport": 2}
    said = list(report.sentences)
    assert "by task type: essay 4, list 3" in said
    assert any("category with fewer than 4 tasks: sport" in line for line in said)


def test_the_answer_to_a_prompt_without_a_majority_has_no_label() -> None:
    pool = Pool(seeds(1, 1, 1), "rouge", 0.7)
    assert Group.of_most(pool.seeds) == Group(None, "essay")
    assert Group.of_most(()) == Group()
