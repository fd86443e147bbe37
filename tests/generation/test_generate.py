"""Steps 1 to 4 with a scripted engine: what is kept, what is dropped, and that a kill changes
nothing."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import (
    Classified,
    GeneratedInstance,
    Instance,
    Instruction,
    Rejection,
    SeedTask,
)
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from tests.helpers.killed import Killed, killed_after

ROOT = Path(__file__).parent.parent.parent
VERBS = ("name", "sort", "find", "spell", "count", "pick", "translate", "judge")
NOUNS = ("apples", "rivers", "poems", "trains", "songs", "clouds", "letters", "bridges", "stars")
SEEDS = tuple(
    SeedTask(
        id=f"seed_{i}",
        name=f"s{i}",
        instruction=f"{verb} the {noun} of {i} towns quickly",
        instances=(Instance(input="", output="ok"),),
        is_classification=verb == "judge",
    )
    for i, (verb, noun) in enumerate(zip(VERBS, NOUNS, strict=False))
)


def small_config(tmp_path: Path, *overrides: str) -> Config:
    return load_config(
        ROOT / "configs" / "quickstart.yaml",
        [
            "generation.prompts=en",
            "generation.instances.answers=as_written",
            "generation.instructions_per_round=24",
            "generation.max_requests=40",
            "generation.instructions.requests_per_batch=3",
            "generation.instances.requests_per_batch=4",
            "generation.classification.requests_per_batch=4",
            "generation.saturation_window=20",
            *overrides,
        ],
        tmp_path / "run",
    )


def writer(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Writes instructions or instances, as the prompt asks, drawn by the request's own seed."""
    rng = random.Random(request.sampling.seed)
    if "-instructions-" in request.id:
        items = [
            f" {rng.choice(VERBS)} {rng.choice(NOUNS)} with {rng.choice(VERBS)} {rng.randrange(99)}"
            for _ in range(3)
        ]
        first = 1 + sum(line[:1].isdigit() for line in request.prompt.splitlines()[:-1])
        text = "".join(f"{item}\n{first + n}." for n, item in enumerate(items, 1))
        return ScriptedAnswer(text + " cut off he", "length")
    if request.prompt.endswith("Label:"):
        return ScriptedAnswer(" yes\nInput: a b\nLabel: no\nInput: c d\n")
    return ScriptedAnswer("\nInput: one\nOutput: two\nExample 2\nInput: x\nOutput: x\n")


def scripted() -> ScriptedEngine:
    return ScriptedEngine(
        writer,
        lambda prompt, answer: float((answer == " Yes") == ("Task: judge" in prompt[-90:])),
    )


def run_generation(
    config: Config, engine: ScriptedEngine, number: int = 0, adapter: Path | None = None
) -> RoundDirectory:
    run = RunDirectory(config.output_dir)
    run.open(config)
    generate_round(
        config,
        engine,
        run,
        number,
        SEEDS,
        adapter,
        lambda i, g: f"ASK {i} | {g}",
        lambda update: None,
    )
    return run.round(number)


def rejections(directory: RoundDirectory) -> list[Rejection]:
    """What both stages dropped."""
    stages: tuple[Literal["instructions", "instances"], ...] = ("instructions", "instances")
    return [
        row
        for stage in stages
        for row in directory.store(directory.rejected(stage), Rejection).read()
    ]


def contents(directory: RoundDirectory) -> dict[str, bytes]:
    """Every file of a round but the completion marks, which hold times."""
    return {
        str(path.relative_to(directory.path)): path.read_bytes()
        for path in sorted(directory.path.rglob("*.jsonl"))
    }


def test_a_round_leaves_rows_that_explain_themselves(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    kept = directory.store(directory.instructions, Instruction).read()
    dropped = rejections(directory)
    instances = directory.store(directory.instances, GeneratedInstance).read()
    assert len(kept) == 24
    assert {row.provenance.model for row in kept} == {"scripted"}
    assert all(row.nearest and row.nearest.score <= 0.7 for row in kept)
    assert all(r.nearest and r.nearest.score > 0.7 for r in dropped if r.reason == "not_novel")
    reasons = Counter(row.reason for row in dropped if row.stage == "instance")
    assert reasons["output_is_input"] > 0
    by_kind = Counter(row.is_classification for row in instances)
    assert by_kind[True] and by_kind[False]
    known = {row.id for row in kept}
    assert {row.instruction_id for row in instances} <= known
    assert len({row.id for row in instances}) == len(instances)
    assert not any("cut off" in row.instruction for row in kept)


def test_demonstrations_are_six_seeds_and_two_machine_written_ones(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    kept = directory.store(directory.instructions, Instruction).read()
    first, last = kept[0].provenance.demonstrations, kept[-1].provenance.demonstrations
    assert len(first) == len(last) == 8
    assert all(name.startswith("seed_") for name in first)
    assert sum(name.startswith("seed_") for name in last) == 6


def test_every_candidate_is_kept_or_dropped_once(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    mark = directory.mark("instructions")
    assert mark is not None
    kept = len(directory.store(directory.instructions, Instruction).read())
    dropped = rejections(directory)
    screened = sum(row.stage == "instruction" for row in dropped)
    assert mark.figures["candidates"] == kept + screened


def test_the_same_seed_gives_the_same_files_and_another_does_not(tmp_path: Path) -> None:
    one = contents(run_generation(small_config(tmp_path / "a"), scripted()))
    two = contents(run_generation(small_config(tmp_path / "b"), scripted()))
    other = contents(run_generation(small_config(tmp_path / "c", "seed=1"), scripted()))
    assert one == two != other


@pytest.mark.parametrize("after", [0, 1, 3, 5, 9, 14, 21])
def test_a_killed_round_ends_as_an_undisturbed_one(tmp_path: Path, after: int) -> None:
    whole = contents(run_generation(small_config(tmp_path / "whole"), scripted()))
    config = small_config(tmp_path / "killed")
    with pytest.raises(Killed):
        run_generation(config, ScriptedEngine(killed_after(after, writer), scripted()._score))
    assert contents(run_generation(config, scripted())) == whole


@pytest.mark.parametrize(
    "name",
    [
        "instructions",
        "rejected/instructions",
        "classified",
        "instances",
        "rejected/instances",
    ],
)
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    whole = contents(directory)
    path = directory.path / f"{name}.jsonl"
    cut = random.Random(0)
    for _ in range(6):
        # As after a kill: the stage's mark is missing, and its files end anywhere.
        for mark in (directory.path / "done").iterdir():
            mark.unlink()
        if name == "instructions":
            for later in ("classified", "instances"):
                (directory.path / f"{later}.jsonl").unlink(missing_ok=True)
            directory.rejected("instances").unlink(missing_ok=True)
        path.write_bytes(whole[f"{name}.jsonl"][: cut.randrange(len(whole[f"{name}.jsonl"]) + 1)])
        engine = scripted()
        run_generation(small_config(tmp_path), engine)
        assert contents(directory) == whole
        assert engine.asked == [], "stored completions are not asked for again"


def half_without(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """As `writer`, but half of the instructions get no instance that can be read."""
    if "-instances-" in request.id and request.sampling.seed % 2:
        return ScriptedAnswer("")
    return writer(request)


def test_a_round_ends_with_exactly_as_many_instructions_with_an_instance_as_asked_for(
    tmp_path: Path,
) -> None:
    directory = run_generation(
        small_config(tmp_path), ScriptedEngine(half_without, scripted()._score)
    )
    written = directory.store(directory.instructions, Instruction).read()
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert len({row.instruction_id for row in kept}) == 24 < len(written)
    classified = directory.store(directory.classified, Classified).read()
    assert [row.id for row in classified] == [row.id for row in written]
    mark = directory.mark("instances")
    assert mark is not None and mark.figures["instructions"] == len(written)
    assert mark.figures["instructions_without_instance"] == len(written) - 24


def test_a_round_without_a_single_instance_asks_for_no_more_instructions(tmp_path: Path) -> None:
    def silent(request: Request, adapter: Path | None) -> ScriptedAnswer:
        return ScriptedAnswer("") if "-instances-" in request.id else writer(request)

    directory = run_generation(small_config(tmp_path), ScriptedEngine(silent, scripted()._score))
    assert len(directory.store(directory.instructions, Instruction).read()) == 24


@pytest.mark.parametrize("after", [2, 9, 20, 33, 38, 45, 55, 61])
def test_a_round_killed_while_it_makes_up_for_missing_instances_ends_the_same(
    tmp_path: Path, after: int
) -> None:
    whole = run_generation(
        small_config(tmp_path / "whole"), ScriptedEngine(half_without, scripted()._score)
    )
    config = small_config(tmp_path / "killed")
    with pytest.raises(Killed):
        run_generation(config, ScriptedEngine(killed_after(after, half_without), scripted()._score))
    again = run_generation(config, ScriptedEngine(half_without, scripted()._score))
    assert contents(again) == contents(whole)


def test_finished_instructions_stay_where_later_stages_are_done_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(half_without, scripted()._score)
    directory = run_generation(small_config(tmp_path), engine)
    whole = contents(directory)
    (directory.path / "done" / "instances.json").unlink()
    asked = len(engine.asked)
    assert contents(run_generation(small_config(tmp_path), engine)) == whole
    assert len(engine.asked) == asked
    # Other settings, under which every instruction has an instance: none is left out.
    for path in (directory.instances, directory.rejected("instances")):
        path.unlink()
    directory.completions("instances").unlink()
    (directory.path / "done" / "instances.json").unlink()
    run_generation(small_config(tmp_path), scripted())
    written = directory.store(directory.instructions, Instruction).read()
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert {row.instruction_id for row in kept} == {row.id for row in written}
    assert contents(directory)["instructions.jsonl"] == whole["instructions.jsonl"]


def test_a_finished_round_asks_nothing(tmp_path: Path) -> None:
    run_generation(small_config(tmp_path), scripted())
    engine = scripted()
    run_generation(small_config(tmp_path), engine)
    assert engine.asked == []


def test_a_parrot_is_stopped_by_saturation_with_a_reason(tmp_path: Path) -> None:
    parrot = ScriptedEngine(lambda r, a: ScriptedAnswer(" say the very same thing again"))
    directory = run_generation(small_config(tmp_path), parrot)
    mark = directory.mark("instructions")
    assert mark is not None and mark.figures["accepted"] == 1
    assert str(mark.figures["stopped_because"]).startswith("saturated: 0 of the last 20")


def test_silence_is_stopped_too(tmp_path: Path) -> None:
    directory = run_generation(
        small_config(tmp_path), ScriptedEngine(lambda r, a: ScriptedAnswer(""))
    )
    mark = directory.mark("instructions")
    assert mark is not None
    assert "does not continue the list" in str(mark.figures["stopped_because"])


def test_the_request_cap_ends_a_round_that_is_slow_to_grow(tmp_path: Path) -> None:
    config = small_config(tmp_path, "generation.max_requests=6", "generation.saturation_window=999")
    directory = run_generation(config, scripted())
    mark = directory.mark("instructions")
    assert mark is not None and mark.figures["requests"] == 6
    assert str(mark.figures["stopped_because"]).startswith("request cap: 6 requests")


def test_a_small_context_gives_up_the_longest_demonstrations_and_says_so(tmp_path: Path) -> None:
    engine = scripted()
    engine.context_length = 100
    config = small_config(
        tmp_path, "generation.instructions.max_tokens=60", "generation.instances.max_tokens=20"
    )
    directory = run_generation(config, engine)
    for stage in ("instructions", "instances"):
        mark = directory.mark(stage)
        assert mark is not None and int(mark.figures["trimmed_prompts"] or 0) > 0
    shown = directory.store(directory.instructions, Instruction).read()[0].provenance
    assert 0 < len(shown.demonstrations) < 8


def test_a_context_without_room_for_one_demonstration_is_an_error(tmp_path: Path) -> None:
    engine = scripted()
    engine.context_length = 60
    config = small_config(tmp_path, "generation.instructions.max_tokens=20")
    with pytest.raises(EngineError, match="even with one demonstration"):
        run_generation(config, engine)


def test_later_rounds_add_to_the_same_pool(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    first = run_generation(config, scripted())
    second = run_generation(config, scripted(), number=1)
    before = {row.instruction for row in first.store(first.instructions, Instruction).read()}
    after = second.store(second.instructions, Instruction).read()
    assert not before & {row.instruction for row in after}
    assert any(row.nearest and row.nearest.id.startswith("r0-") for row in after)


def tuned(answer: Callable[[str], str]) -> ScriptedEngine:
    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if request.prompt.startswith("ASK "):
            assert adapter is not None
            return ScriptedAnswer(" " + answer(request.prompt.rpartition("| ")[2]))
        return writer(request)

    return ScriptedEngine(asked, scripted()._score)


def test_the_consistency_filter_keeps_what_both_models_say(tmp_path: Path) -> None:
    config = small_config(tmp_path, "generation.instances.consistency=true")
    engine = tuned(lambda given: {"one": "two", "a b": "yes"}.get(given, "other"))
    directory = run_generation(config, engine, 1, Path("round-0/adapter"))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert {(row.input, row.output) for row in kept} == {("one", "two"), ("a b", "yes")}
    dropped = rejections(directory)
    assert {"c d"} == {row.input for row in dropped if row.reason == "inconsistent"}


def test_a_tuned_writer_answers_in_its_own_template(tmp_path: Path) -> None:
    config = small_config(tmp_path, "generation.instance_writer=tuned")
    directory = run_generation(config, tuned(str.upper), 1, Path("round-0/adapter"))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert {(row.input, row.output) for row in kept} == {
        ("one", "ONE"),
        # The answer that the base wrote, the input once more, is replaced like any other.
        ("x", "X"),
        ("a b", "A B"),
        ("c d", "C D"),
    }


def test_classification_follows_the_log_probabilities(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    texts = {
        row.id: row.instruction
        for row in directory.store(directory.instructions, Instruction).read()
    }
    for row in directory.store(directory.classified, Classified).read():
        assert row.is_classification == texts[row.id].startswith("judge")
        assert row.is_classification == (row.logprob_yes > row.logprob_no)


def test_progress_says_what_was_kept_dropped_and_how_long_it_takes(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    run = RunDirectory(config.output_dir)
    run.open(config)
    seen: list[ProgressUpdate] = []
    generate_round(config, scripted(), run, 0, SEEDS, None, lambda i, g: "", seen.append)
    line = next(t for t in seen if t.stage.endswith("instances") and t.dropped).line()
    assert "kept" in line and "dropped" in line and "output_is_input" in line


def test_the_journal_names_every_request_once(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    for stage in ("instructions", "instances"):
        rows = directory.store(directory.completions(stage), StoredCompletion).read()
        assert len({row.id for row in rows}) == len(rows) > 0


def test_a_journal_torn_inside_a_batch_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), scripted())
    whole = contents(directory)
    for name in ("instructions", "instances"):
        path = directory.completions(name)
        data = path.read_bytes()
        # Two whole rows of the last batch, and a piece of the third.
        lines = data.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-2]) + lines[-2][:20])
        for mark in (directory.path / "done").iterdir():
            mark.unlink()
        if name == "instructions":
            (directory.path / "instances.jsonl").unlink()
            directory.rejected("instances").unlink()
        run_generation(small_config(tmp_path), scripted())
        assert contents(directory) == whole


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("asked_again", {("one", "three"), ("x", "three"), ("a b", "yes"), ("c d", "no")}),
        ("agreed", {("a b", "yes"), ("c d", "no")}),
    ],
)
def test_a_second_answer_replaces_the_first_or_must_agree_with_it(
    answers: str, expected: set[tuple[str, str]], tmp_path: Path
) -> None:
    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-base-" in request.id:
            assert adapter is None and request.prompt.endswith("Output:")
            assert request.sampling.temperature == 0.0
            return ScriptedAnswer(" three", "stop")
        return writer(request)

    config = small_config(tmp_path, f"generation.instances.answers={answers}")
    directory = run_generation(config, ScriptedEngine(asked, scripted()._score))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert {(row.input, row.output) for row in kept} == expected


def test_answers_that_replace_the_written_ones_are_filtered_again(tmp_path: Path) -> None:
    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-base-" in request.id:
            return ScriptedAnswer(" the same", "stop")
        if "-instances-" in request.id and not request.prompt.endswith("Label:"):
            # Several answers of free text without an input may stay, until they are one.
            texts = "a b c d e f g h i", "j k l m n o p q r"
            return ScriptedAnswer("".join(f"\nInput:\nOutput: {text}" for text in texts) + "\n")
        return writer(request)

    config = small_config(tmp_path, "generation.instances.answers=asked_again")
    directory = run_generation(config, ScriptedEngine(asked, scripted()._score))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    rows = [(row.instruction, row.input, row.output) for row in kept]
    assert len(set(rows)) == len(rows) and any(row[2] == "the same" for row in rows)
    dropped = rejections(directory)
    twice = [row for row in dropped if row.reason == "duplicate"]
    assert twice and {row.output for row in twice} == {"the same"}
    assert all("-base-" in row.provenance.request for row in twice if row.provenance)


def test_a_row_names_the_request_and_the_model_that_wrote_its_answer(tmp_path: Path) -> None:
    config = small_config(
        tmp_path,
        "generation.instance_writer=tuned",
        "generation.instances.temperature=1.0",
        "generation.instances.answers=agreed",
    )

    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-base-" in request.id:
            return ScriptedAnswer(" two", "stop")
        if "-tuned-" in request.id:
            return ScriptedAnswer(" by the tuned model")
        return writer(request)

    engine = ScriptedEngine(asked, scripted()._score)
    directory = run_generation(config, engine, 1, Path("round-0/adapter"))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert kept
    for row in kept:
        assert row.output == "by the tuned model"
        assert row.provenance.adapter == "round-0/adapter"
        assert row.provenance.sampling.temperature == 0.0
        assert "-tuned-" in row.provenance.request and row.provenance.request in engine.asked
        assert row.provenance.demonstrations == ()
