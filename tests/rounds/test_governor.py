"""Rounds follow each other in one loop, for as long as the governor says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import GovernorConfig
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.records import Instruction, PairedComparison, Provenance, Sampling
from selfinstruct_train.rounds import loop as loop_module
from selfinstruct_train.rounds.governor import Decision, RoundResult, decide
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows

EVERY_ROUND = GovernorConfig()
GAIN = GovernorConfig(policy="gain")


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


def compared(low: float) -> PairedComparison:
    ends = {"delta": low + 2, "ci_low": low, "ci_high": low + 4, "wins": 2, "ties": 0, "losses": 0}
    return PairedComparison(a="round 0", b="tuned", metric="rouge_l", group="overall", n=2, **ends)


def shown(number: int, low: float = 1.0, **figures: Any) -> RoundResult:
    """A round that gains, and keeps all limits as far as it is not said otherwise."""
    before = number - 1 if number else None
    known: dict[str, Any] = {
        "suite": "exam",
        "accepted": 0.8,
        "diversity": 0.5,
        "answer_words": 10.0,
    }
    known |= {"best_before": before, "gain": compared(low)}
    return RoundResult(number=number, **(known | figures))


def unevaluated(*of: Any) -> RoundResult:
    return RoundResult(number=of[-1])


@pytest.fixture(autouse=True)
def nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "read_result", unevaluated)


def opened(rounds: int, told: list[str], path: Path = Path("not-begun")) -> Loop:
    """A run of which only the order is of interest."""
    run: Any = object.__new__(Loop)
    run.config = SimpleNamespace(rounds=rounds, governor=EVERY_ROUND)
    run.world = ALONE
    run.progress = SimpleNamespace(say=told.append)
    suite = SimpleNamespace(suites=[SimpleNamespace(name="exam")], rows=None)
    suite.selection = SimpleNamespace(suite="exam")
    suite.tracking = SimpleNamespace(close=lambda: None)
    run.opened, run.run = suite, RunDirectory(path)
    return run


def test_by_default_every_round_goes_on_whatever_it_shows() -> None:
    history = [shown(0), shown(1, -9.0, diversity=0.0, held_out_rise=9.0), RoundResult(number=2)]
    decisions = [decide(history[: n + 1], EVERY_ROUND) for n in range(3)]
    assert {(d.action, d.rolled_back) for d in decisions} == {("go_on", False)}
    assert [decision.shown for decision in decisions] == history
    assert decide(history, EVERY_ROUND) == decide(list(history), EVERY_ROUND)


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"low": 0.0}, "no sure gain: +2.0 ROUGE-L against round 0 on exam (interval +0.0 to +4.0"),
        ({"held_out_rise": 0.11}, "held-out text rose by 0.110 nats per token, limit 0.1"),
        ({"diversity": 0.34}, "diversity of its instructions is 0.34, limit 0.35"),
        ({"answer_words": 15.1}, "answers are 1.51 times as long as those of round 0, limit 1.5"),
        ({"accepted": 0.69}, "69% of its candidates were kept and 80% in round 0, limit 10% less"),
    ],
)
def test_a_round_without_a_sure_gain_or_past_a_limit_is_rolled_back(
    figures: dict[str, float], reason: str
) -> None:
    history = [shown(0), shown(1, **figures)]
    decision = decide(history, GAIN)
    assert (decision.action, decision.rolled_back) == ("go_on", True)
    assert reason in decision.reason
    assert not decide([shown(0), shown(1)], GAIN).rolled_back
    stop = GovernorConfig(policy="gain", after_rollback="stop")
    assert decide(history, stop) == decision.model_copy(update={"action": "stop"})
    limits = ("max_held_out_rise", "min_diversity", "max_length_ratio", "max_accepted_fall")
    without = GovernorConfig(policy="gain", **dict.fromkeys(limits))
    assert decide(history, without).rolled_back == ("low" in figures)


def test_a_limit_is_held_against_the_best_round_before_and_not_the_last_one() -> None:
    bad = shown(1, -5.0, accepted=0.1, answer_words=90.0)
    assert decide([shown(0), bad, shown(2, best_before=0)], GAIN).rolled_back is False
    assert "90" not in decide([shown(0), bad, shown(2, best_before=0)], GAIN).reason


def test_the_first_round_must_beat_the_base_and_what_was_not_measured_passes() -> None:
    bare = RoundResult(number=0, gain=compared(0.1))
    assert decide([bare], GAIN).rolled_back is False
    assert decide([bare.model_copy(update={"gain": compared(-0.1)})], GAIN).rolled_back is True


def test_a_round_that_cannot_be_decided_ends_the_run_before_another_is_written() -> None:
    decision = decide([RoundResult(number=0)], GAIN)
    assert (decision.action, decision.rolled_back) == ("stop", False)
    assert "selfinstruct run" in decision.reason


def test_each_round_takes_its_steps_in_their_order() -> None:
    done: list[tuple[str, int]] = []
    loop = opened(2, [])
    loop.go_round(lambda n: done.append(("write", n)), lambda n: done.append(("train", n)))
    assert done == [("write", 0), ("train", 0), ("write", 1), ("train", 1)]


def test_a_round_that_was_evaluated_keeps_the_decision_and_a_restart_decides_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {0: shown(0), 1: RoundResult(number=1)}
    monkeypatch.setattr(loop_module, "read_result", lambda *of: results[of[-1]])

    def again() -> list[bytes]:
        opened(2, [], tmp_path).go_round()
        return [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()]

    first = again()
    assert [Decision.model_validate_json(text) for text in first] == [
        decide([results[0]], EVERY_ROUND)
    ]
    results[0] = shown(0, -9.0)
    assert again() == first
    evaluated = RunDirectory(tmp_path).round(0)
    assert evaluated.decision in evaluated.traces("evaluate")


def test_what_was_decided_is_not_decided_again_and_rolls_rows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "read_result", lambda *of: shown(of[-1]))

    def go_round(policy: Any) -> list[str]:
        monkeypatch.setattr(loop_module, "decide", policy)
        told: list[str] = []
        opened(2, told, tmp_path).go_round()
        return told

    def roll_back(history: list[RoundResult], governor: GovernorConfig) -> Decision:
        back = history[-1].number == 1
        return Decision(action="go_on", reason="the newer data made it worse", rolled_back=back)

    def refuse(history: list[RoundResult], governor: GovernorConfig) -> Decision:
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

    def stop(history: list[RoundResult], governor: GovernorConfig) -> Decision:
        action: Any = "stop" if len(history) == 2 else "go_on"
        return Decision(action=action, reason="nothing is gained any more")

    monkeypatch.setattr(loop_module, "decide", stop)
    done: list[int] = []
    told: list[str] = []
    opened(5, told).go_round(done.append)
    assert done == [0, 1]
    assert told == ["stopped after round 1: nothing is gained any more"]
