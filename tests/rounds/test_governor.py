"""Rounds follow each other in one loop, for as long as the governor says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.records import Comparison, Instruction, Provenance, Sampling
from selfinstruct_train.rounds import loop as loop_module
from selfinstruct_train.rounds.governor import Decision, RoundResult, decide
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows


def instruction(row_id: str) -> Instruction:
    provenance = Provenance(
        round=0,
        request="q",
        demonstrations=(),
        sampling=Sampling(max_tokens=1),
        model="m",
        prompt_hash="h",
    )
    return Instruction(
        id=row_id,
        instruction="Say why.",
        nearest=None,
        nearest_seed=None,
        mean_similarity=None,
        provenance=provenance,
    )


@pytest.fixture(autouse=True)
def nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "comparisons_of", lambda opened, number: ())


def opened(rounds: int, told: list[str]) -> Loop:
    """A run of which only the order is of interest."""
    run: Any = object.__new__(Loop)
    run.config = SimpleNamespace(rounds=rounds)
    run.run = RunDirectory(Path("nowhere"))
    run.world = ALONE
    run.progress = SimpleNamespace(say=told.append)
    run.opened, run.run = None, RunDirectory(Path("not-begun"))
    return run


def test_the_governor_lets_every_round_go_on() -> None:
    history = [RoundResult(number=n, comparisons=()) for n in range(3)]
    assert {decide(history[:n]).action for n in range(4)} == {"go_on"}
    assert decide(history) == decide(list(history))


def test_each_round_takes_its_steps_in_their_order() -> None:
    done: list[tuple[str, int]] = []
    loop = opened(2, [])
    loop.go_round(lambda n: done.append(("write", n)), lambda n: done.append(("train", n)))
    assert done == [("write", 0), ("train", 0), ("write", 1), ("train", 1)]


def test_a_round_that_was_evaluated_keeps_the_decision_and_a_restart_decides_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: Any = {0: (Comparison.model_construct(suite="exam"),), 1: ()}

    def again() -> list[bytes]:
        loop = opened(2, [])
        loop.run = RunDirectory(tmp_path)
        monkeypatch.setattr(loop_module, "comparisons_of", lambda opened, number: shown[number])
        loop.go_round()
        return [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()]

    first = again()
    assert Decision.model_validate_json(first[0]).action == "go_on" and len(first) == 1
    assert loop_module.decide([]).reason in first[0].decode()
    assert again() == first
    evaluated = RunDirectory(tmp_path).round(0)
    assert evaluated.decision in evaluated.traces("evaluate")


def test_what_was_decided_is_not_decided_again_and_rolls_rows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: Any = (Comparison.model_construct(suite="exam"),)
    monkeypatch.setattr(loop_module, "comparisons_of", lambda opened, number: shown)

    def go_round(policy: Any) -> list[str]:
        monkeypatch.setattr(loop_module, "decide", policy)
        told: list[str] = []
        loop = opened(2, told)
        loop.run = RunDirectory(tmp_path)
        loop.go_round()
        return told

    def roll_back(history: list[RoundResult]) -> Decision:
        back = history[-1].number == 1
        return Decision(action="go_on", reason="the newer data made it worse", rolled_back=back)

    def refuse(history: list[RoundResult]) -> Decision:
        raise AssertionError("decided again")

    run = RunDirectory(tmp_path)
    for number in range(2):
        run.round(number).path.mkdir()
        run.round(number).store(run.round(number).instructions, Instruction).emit(
            [instruction(f"r{number}")]
        )
    assert [row.id for row in LiveRows(run).instructions(2)] == ["r0", "r1"]
    said = ["round 1 is rolled back: the newer data made it worse"]
    assert go_round(roll_back) == said
    assert [row.id for row in LiveRows(run).instructions(2)] == ["r0"]
    assert go_round(refuse) == said
    swept = run.round(0).training("fast")
    assert swept.decision == run.round(0).decision


def test_a_stop_ends_the_run_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:

    def stop(history: list[RoundResult]) -> Decision:
        action: Any = "stop" if len(history) == 2 else "go_on"
        return Decision(action=action, reason="nothing is gained any more")

    monkeypatch.setattr(loop_module, "decide", stop)
    done: list[int] = []
    told: list[str] = []
    opened(5, told).go_round(done.append)
    assert done == [0, 1]
    assert told == ["stopped after round 1: nothing is gained any more"]
