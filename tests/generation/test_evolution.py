"""Evolved instructions: kept only if new, and if what answers them is not what answered before."""

import random
from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.evolution import ParentAnswers, evolved_from
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import (
    GeneratedInstance,
    Instance,
    Instruction,
    Provenance,
    Rejection,
    Sampling,
)
from tests.generation.test_generate import (
    NOUNS,
    SEEDS,
    VERBS,
    contents,
    run_generation,
    scripted,
    small_config,
    writer,
)
from tests.helpers.killed import Killed, killed_after

EVOLVING = ("deepen", "add_constraint", "concretise", "widen")
OPERATIONS = "generation.augment={share: 1, operations: {deepen: 1, widen: 1, paraphrase: 1}}"


def evolver(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Makes new instructions; every second one is answered as every seed is."""
    rng = random.Random(request.sampling.seed)
    if "-instructions-" in request.id:
        noun, other = rng.sample(NOUNS, 2)
        return ScriptedAnswer(f" {rng.choice(VERBS)} {noun} beside {other} {rng.randrange(99)}\n")
    if "-instances-" in request.id and not request.prompt.endswith("Label:"):
        answer = "OK!" if request.sampling.seed % 2 else f"quite {rng.randrange(10**9)}"
        return ScriptedAnswer(f"\nOutput: {answer}\n")
    return writer(request)


def test_a_row_that_is_answered_as_its_parent_is_goes_where_the_answer_must_change(
    tmp_path: Path,
) -> None:
    engine = ScriptedEngine(evolver, scripted()._score)
    directory = run_generation(small_config(tmp_path, OPERATIONS), engine)
    made = {
        row.id: (row.provenance.operation or "").partition(":")[0]
        for row in directory.store(directory.instructions, Instruction).read()
    }
    assert set(made.values()) == {"deepen", "widen", "paraphrase"}
    kept = directory.store(directory.instances, GeneratedInstance).read()
    same = Counter(made[row.instruction_id] for row in kept if row.output == "OK!")
    assert set(same) == {"paraphrase"}, "a paraphrase has the answer of what it paraphrases"
    rows = directory.store(directory.rejected("instances"), Rejection).read()
    dropped = [row for row in rows if row.reason == "answer_unchanged"]
    assert dropped and {row.output for row in dropped} == {"OK!"}
    assert {made[row.instruction_id or ""] for row in dropped} == {"deepen", "widen"}
    parents = {task.id for task in SEEDS}
    assert {row.evidence.split()[0] for row in dropped} <= parents
    assert len({row.instruction_id for row in kept}) == 24, "others stand in for those dropped"


@pytest.mark.parametrize("after", [3, 20, 40])
def test_a_killed_round_ends_as_an_undisturbed_one(tmp_path: Path, after: int) -> None:
    score = scripted()._score
    config = small_config(tmp_path / "whole", OPERATIONS)
    whole = contents(run_generation(config, ScriptedEngine(evolver, score)))
    config = small_config(tmp_path / "killed", OPERATIONS)
    with pytest.raises(Killed):
        run_generation(config, ScriptedEngine(killed_after(after, evolver), score))
    assert contents(run_generation(config, ScriptedEngine(evolver, score))) == whole


def provenance(operation: str | None) -> Provenance:
    return Provenance(
        round=0,
        request="x",
        demonstrations=("seed_0",),
        sampling=Sampling(max_tokens=1),
        model="m",
        prompt_hash="0" * 16,
        operation=operation,
    )


def test_only_another_answer_to_the_same_input_must_differ() -> None:
    parents = ParentAnswers(SEEDS)
    assert parents.fault("seed_0", Instance(output=" Ok. ")) is not None
    assert parents.fault("seed_0", Instance(input="given", output="ok")) is None
    assert parents.fault("seed_0", Instance(output="not ok")) is None
    assert parents.fault("unknown", Instance(output="ok")) is None
    row = GeneratedInstance(
        id="r0-000001-0",
        instruction_id="r0-000001",
        instruction="x",
        input="",
        output="new",
        is_classification=False,
        provenance=provenance(None),
    )
    assert parents.fault("r0-000001", Instance(output="new")) is None
    parents.learn([row])
    assert parents.fault("r0-000001", Instance(output="New")) is not None


@pytest.mark.parametrize("language", ["en", "pt", "zh"])
def test_every_pack_words_evolution_and_says_that_the_answer_changes(language: str) -> None:
    operations = load_pack(language).operations
    for name in EVOLVING:
        assert evolved_from(provenance(name), operations) == "seed_0"
    for name in (None, "paraphrase", "complexity: expert", "gone"):
        assert evolved_from(provenance(name), operations) is None
