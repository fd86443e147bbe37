"""Attributes, persons and operations: drawn by the run's seed, said in the prompt, kept in rows."""

import json
from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.generation.filters import InstructionFilter
from selfinstruct_train.generation.steering import Steering, read_personas
from selfinstruct_train.packs.operations import require_operations
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Attribute, Instruction, Provenance, Sampling
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.text.novelty import NoveltyIndex
from tests.generation.test_generate import (
    ROOT,
    SEEDS,
    contents,
    rejections,
    run_generation,
    scripted,
    small_config,
    writer,
)
from tests.helpers.killed import Killed, killed_after

STEERED = (
    "generation.attributes={audience: [children, experts], difficulty: {easy: 3, hard: 1}}",
    "generation.personas=[a nurse on night duty, the owner of a small bakery]",
)
AUGMENTED = "generation.augment={share: 0.5, operations: {paraphrase: 2, complexity: 1}}"


def steered(*overrides: str) -> Config:
    return load_config(ROOT / "configs" / "quickstart.yaml", ["generation.prompts=en", *overrides])


def drawn(config: Config, requests: int) -> list[tuple[Attribute, ...]]:
    steering = Steering(config, load_pack("en").wording)
    return [steering.draw(0, "instructions", i) for i in range(requests)]


def shares(rows: list[tuple[Attribute, ...]], name: str) -> dict[str, float]:
    counts = Counter(one.value for row in rows for one in row if one.name == name)
    return {value: n / len(rows) for value, n in counts.items()}


def test_values_are_drawn_by_their_weights() -> None:
    rows = drawn(steered(*STEERED), 4000)
    assert shares(rows, "difficulty")["easy"] == pytest.approx(0.75, abs=0.03)
    assert shares(rows, "audience")["children"] == pytest.approx(0.5, abs=0.03)
    assert shares(rows, "persona")["a nurse on night duty"] == pytest.approx(0.5, abs=0.03)


def test_an_attribute_that_joins_changes_no_other_and_another_seed_draws_anew() -> None:
    alone = drawn(steered("generation.attributes={difficulty: {easy: 3, hard: 1}}"), 50)
    both = drawn(steered(*STEERED), 50)
    assert [row[0] for row in alone] == [row[1] for row in both]
    assert both != drawn(steered(*STEERED, "seed=5"), 50)


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        ("en", "The next tasks have these properties: a: {b}; c: d."),
        ("zh", "接下来的任务具有以下特点：a：{b}；c：d。"),
        ("pt", "As próximas tarefas têm estas características: a: {b}; c: d."),
    ],
)
def test_the_pack_words_what_was_drawn_whatever_braces_it_holds(pack: str, said: str) -> None:
    steering = Steering(steered(), load_pack(pack).wording)
    values = (Attribute(name="a", value="{b}"), Attribute(name="c", value="d"))
    assert steering.said(values) == said
    assert steering.said(()) == ""
    person = steering.said((Attribute(name="persona", value="Zoë, {x}"),))
    assert person.endswith("Zoë, {x}") and "\n" not in person


def test_a_prompt_says_what_its_rows_were_drawn_for(tmp_path: Path) -> None:
    prompts: dict[str, str] = {}

    def listen(request: Request, adapter: Path | None) -> ScriptedAnswer:
        prompts[request.id] = request.prompt
        return writer(request)

    directory = run_generation(small_config(tmp_path, *STEERED), ScriptedEngine(listen))
    rows = directory.store(directory.instructions, Instruction).read()
    assert rows
    for row in rows:
        persona, said = prompts[row.provenance.request].splitlines()[-3:-1]
        values = {one.name: one.value for one in row.provenance.attributes}
        assert values["persona"] in persona
        assert f"audience: {values['audience']}; difficulty: {values['difficulty']}" in said
    requests = {row.provenance.request: row.provenance.attributes for row in rows}
    assert len(set(requests.values())) > 3


def test_without_steering_rows_are_written_as_they_always_were(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    for line in directory.instructions.read_text().splitlines():
        assert json.loads(line)["provenance"].keys() == {
            *("round", "request", "demonstrations", "sampling", "model", "adapter", "prompt_hash")
        }


def test_where_a_row_comes_from_reads_back_with_what_was_drawn() -> None:
    made = Provenance(
        round=0,
        request="r",
        sampling=Sampling(max_tokens=1),
        model="m",
        prompt_hash="0",
        attributes=(Attribute(name="a", value="b"),),
        operation="paraphrase",
    )
    assert Provenance.model_validate_json(made.model_dump_json()) == made


def operating(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Says something new of the one task that an operation is asked for, else writes a list."""
    label = request.prompt.rpartition("\n")[2]
    if "-instructions-" not in request.id or label[:1].isdigit():
        return writer(request)
    task = request.prompt.splitlines()[-2].removeprefix("Task: ")
    made = f" {request.sampling.seed} says of {len(task)}: {' '.join(reversed(task.split()))}"
    return ScriptedAnswer(made, "stop")


def augmented(tmp_path: Path, *overrides: str) -> Config:
    return small_config(tmp_path, AUGMENTED, "generation.max_requests=60", *overrides)


def test_an_operation_is_done_to_a_seed_or_to_what_a_list_held_and_the_row_names_it(
    tmp_path: Path,
) -> None:
    config = augmented(tmp_path)
    directory = run_generation(config, ScriptedEngine(operating))
    rows = {row.id: row for row in directory.store(directory.instructions, Instruction).read()}
    made = [row for row in rows.values() if row.provenance.operation]
    names = {(row.provenance.operation or "").partition(":")[0] for row in made}
    assert names == {"paraphrase", "complexity"}
    seeds = {task.id: task.instruction for task in SEEDS}
    hashes = {name: one.hash for name, one in load_pack("en").operations.items()}
    for row in made:
        (parent,) = row.provenance.demonstrations
        assert parent in seeds or rows[parent].provenance.operation is None
        source = seeds.get(parent) or rows[parent].instruction
        assert row.instruction.endswith(" ".join(reversed(source.split())))
        name = (row.provenance.operation or "").partition(":")[0]
        assert row.provenance.prompt_hash == hashes[name]
    levels = {f"complexity: {level}" for level in ("simple", "detailed", "expert")}
    assert {row.provenance.operation for row in made} - {"paraphrase"} <= levels
    (found,) = data_stats(RunDirectory(config.output_dir))
    counted = {trait.value: trait.kept for trait in found.traits if trait.name == "operation"}
    assert sum(counted.values()) == len(rows)
    assert sum(n for value, n in counted.items() if value != "none: continues a list") == len(made)


def test_a_parrot_of_operations_yields_nothing(tmp_path: Path) -> None:
    def parrot(request: Request, adapter: Path | None) -> ScriptedAnswer:
        label = request.prompt.rpartition("\n")[2]
        if "-instructions-" in request.id and not label[:1].isdigit():
            task = request.prompt.splitlines()[-2].removeprefix("Task: ")
            return ScriptedAnswer(f" {task}", "stop")
        return writer(request)

    directory = run_generation(augmented(tmp_path), ScriptedEngine(parrot))
    rows = directory.store(directory.instructions, Instruction).read()
    assert rows and all(row.provenance.operation is None for row in rows)


def test_a_copy_of_a_worked_example_is_dropped_by_its_name(tmp_path: Path) -> None:
    copied = load_pack("en").operations["paraphrase"].examples[1].result

    def copying(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if request.prompt.endswith("In other words:"):
            return ScriptedAnswer(f" {copied}", "stop")
        return writer(request)

    directory = run_generation(augmented(tmp_path), ScriptedEngine(copying))
    rows = directory.store(directory.instructions, Instruction).read()
    assert rows and copied not in {row.instruction for row in rows}
    (found,) = {row.evidence for row in rejections(directory) if row.instruction == copied}
    assert found == "ROUGE-L 1.000 with paraphrase example 2"


@pytest.mark.parametrize("after", [1, 7, 19])
def test_a_killed_steered_round_ends_as_an_undisturbed_one(tmp_path: Path, after: int) -> None:
    config = augmented(tmp_path / "a", *STEERED)
    with pytest.raises(Killed):
        run_generation(config, ScriptedEngine(killed_after(after, operating)))
    again = run_generation(config, ScriptedEngine(operating))
    whole = run_generation(augmented(tmp_path / "b", *STEERED), ScriptedEngine(operating))
    assert contents(again) == contents(whole)


@pytest.mark.parametrize("name", ["en", "zh", "pt"])
def test_what_the_packs_show_of_operations_passes_their_own_rules(name: str) -> None:
    pack = load_pack(name)
    screen = InstructionFilter(steered().generation.filters, pack.rules)
    assert list(pack.operations) == list(load_pack("en").operations)
    require_operations(pack.operations, list(steered().generation.augment.operations), name)
    for operation in pack.operations.values():
        assert operation.label_of("x")[-1] in ":："
        assert len(operation.shown(operation.values[0] if operation.values else None)) >= 2
        for example in operation.examples:
            pair = [("task", example.task), ("result", example.result)]
            assert not [screen.fault(text) for _, text in pair if screen.fault(text)]
            index = NoveltyIndex(
                threshold=pack.rules.novelty_threshold, tokenizer=pack.rules.tokenizer or "rouge"
            )
            assert all(row.accepted for row in index.admit(pair)), pair


def test_a_change_of_what_is_drawn_shows_in_what_step_one_depends_on() -> None:
    def basis(*overrides: str) -> str:
        config = steered(*overrides)
        return read_contents(config, "embedded", SEEDS, (), (), ())["steering"]

    plain = basis()
    assert basis("generation.attributes={a: [b]}") != plain
    assert basis("generation.personas=[a cook]") != plain
    assert basis("generation.augment.operations=[paraphrase]") == plain
    assert basis("generation.augment={share: 0.1, operations: [paraphrase]}") != plain


def test_persons_come_from_lines_or_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    file.write_text('a cook\n\n{"persona": "a  judge\\nof dogs", "id": 3}\na cook\n')
    assert read_personas(file) == ("a cook", "a judge of dogs")
    file.write_text('{"name": "x"}\n')
    with pytest.raises(DataError, match=r"people.jsonl, line 1: has no text 'persona'"):
        read_personas(file)
    file.write_text("\n")
    with pytest.raises(DataError, match="names no person"):
        read_personas(file)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generation.attributes={a: []}", "generation.attributes.a"),
        ("generation.attributes={a: {b: 0}}", "generation.attributes.a.b"),
        ("generation.attributes={a: [[b]]}", "a list of texts"),
        ('generation.attributes={a: ["b\\nc"]}', "one line"),
        ("generation.augment.share=1.5", "generation.augment.share"),
    ],
)
def test_what_cannot_be_drawn_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        steered(override)


def test_an_operation_that_the_pack_does_not_word_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'en' does not word 'rhyme', only paraphrase, .*"):
        require_operations(load_pack("en").operations, ["paraphrase", "rhyme"], "en")
