"""Answers that the arbiter holds wrong are written once more, and judged once more."""

from pathlib import Path

import pytest

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.fixing import calibrate_arbiter
from selfinstruct_train.judging.arbiter import Arbiter
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import GeneratedInstance, Instance, SeedTask
from selfinstruct_train.run.directory import RoundDirectory
from tests.generation.test_generate import (
    SEEDS,
    contents,
    rejections,
    run_generation,
    small_config,
    writer,
)
from tests.helpers.killed import Killed, killed_after

EN = load_pack("en")
RIGHT = "a right answer"


def fixing(tmp_path: Path, *overrides: str) -> Config:
    return small_config(tmp_path, "generation.instances.fix=true", *overrides)


def answering(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Half of the instructions are answered wrongly; asked again, half of those rightly."""
    if "-fix-" in request.id:
        number = int(request.id.split("-")[2])
        return ScriptedAnswer(f" {RIGHT if number % 4 == 1 else 'wrong again'}")
    if "-instances-" in request.id:
        right = int(request.id.rpartition("-")[2]) % 2 == 0
        return ScriptedAnswer(f"\nInput: one\nOutput: {RIGHT if right else 'wrong'}\n")
    return writer(request)


def judged(prompt: str, answer: str) -> float:
    """Step 2 says No; the arbiter says Yes to what holds "right" or is a seed's own answer."""
    if not prompt.endswith("Right and complete:"):
        return float(answer.strip() == "No")
    question = prompt.rpartition("\nTask:")[2]
    seed = any(task.instruction in question for task in SEEDS)
    right = RIGHT in question or (seed and "Output: ok" in question)
    return -30.0 + 3.0 * ((answer.strip() == "Yes") == right)


def fixed(tmp_path: Path, *overrides: str) -> RoundDirectory:
    return run_generation(fixing(tmp_path, *overrides), ScriptedEngine(answering, judged))


def test_wrong_answers_are_written_again_once_and_wrong_ones_dropped(tmp_path: Path) -> None:
    directory = fixed(tmp_path)
    rows = directory.store(directory.instances, GeneratedInstance).read()
    assert rows and all(row.output == RIGHT for row in rows)
    again = [row for row in rows if "-fix-" in row.provenance.request]
    dropped = [row for row in rejections(directory) if row.reason == "judged_wrong"]
    assert again and dropped
    assert all(row.output == "wrong" for row in dropped)
    assert "margin -3.00, written again -3.00" in dropped[0].evidence
    assert all(row.provenance.sampling.temperature == 0.7 for row in again)
    mark = directory.mark("instances")
    assert mark is not None
    assert mark.figures["fixed"] == len(again)
    assert mark.figures["not_fixed"] == len(dropped)


def test_without_fix_nothing_is_judged(tmp_path: Path) -> None:
    engine = ScriptedEngine(answering, judged)
    directory = run_generation(small_config(tmp_path), engine)
    assert not any("-fix-" in request for request in engine.asked)
    rows = directory.store(directory.instances, GeneratedInstance).read()
    assert {row.output for row in rows} == {RIGHT, "wrong"}


def test_an_answer_after_reasoning_is_judged_and_kept_without_it(tmp_path: Path) -> None:
    def reasoning(request: Request, adapter: Path | None) -> ScriptedAnswer:
        said = answering(request, adapter)
        if "-fix-" not in request.id and "-base-" not in request.id:
            return said
        text = said.text
        if "-base-" in request.id:
            text = f" {RIGHT}" if int(request.id.split("-")[2]) % 2 == 0 else " wrong"
        return ScriptedAnswer(f" Let us see.\n{EN.wording.answer}{text}")

    config = fixing(
        tmp_path,
        "generation.instances.reasoning=hidden",
        "generation.instances.answers=asked_again",
    )
    directory = run_generation(config, ScriptedEngine(reasoning, judged))
    rows = directory.store(directory.instances, GeneratedInstance).read()
    again = [row for row in rows if "-fix-" in row.provenance.request]
    assert len(rows) > len(again) > 0 and all(row.output == RIGHT for row in rows)
    hashes = {row.provenance.prompt_hash for row in again}
    assert hashes == {EN.reasoned_hash}


@pytest.mark.parametrize("after", [3, 20, 40])
def test_a_round_killed_while_it_fixes_ends_as_an_undisturbed_one(
    tmp_path: Path, after: int
) -> None:
    with pytest.raises(Killed):
        run_generation(
            fixing(tmp_path / "a"), ScriptedEngine(killed_after(after, answering), judged)
        )
    assert contents(fixed(tmp_path / "a")) == contents(fixed(tmp_path / "b"))


def seeds(count: int) -> tuple[SeedTask, ...]:
    return tuple(
        SeedTask(
            id=str(n),
            name=str(n),
            instruction=f"Say the number {n} aloud",
            instances=(Instance(output=f"number {n}"),),
            is_classification=False,
        )
        for n in range(count)
    )


@pytest.mark.parametrize("shift", [-40.0, 0.0, 40.0])
def test_the_margin_is_calibrated_whatever_the_model_prefers_to_say(shift: float) -> None:
    def score(prompt: str, answer: str) -> float:
        task, _, output = prompt.rpartition("\nTask:")[2].partition("Output:")
        number = task.partition("number ")[2].split()[:1]
        right = bool(number) and f"number {number[0]}\n" in f"{output}\n"
        return (shift + 4.0 * right - 2.0) * (answer.strip() == "Yes")

    pack = EN
    engine = ScriptedEngine(writer, score)
    shown: list[tuple[int, int]] = []
    found = calibrate_arbiter(
        Arbiter(engine, pack), pack, seeds(40), lambda *all: shown.append(all)
    )
    # Minutes on a real model: it is told how far it is.
    assert shown == [(64, 80), (80, 80)]
    assert found.recall == found.precision == found.auc == 1.0
    assert shift - 2 < found.threshold < shift + 2
