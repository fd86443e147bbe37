"""Laws of a probe: what it counts, what a plan makes of it, and that it ends in time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.cli.plan import duration
from selfinstruct_train.config import load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.planning import probe as module
from selfinstruct_train.planning.expected import Yield
from selfinstruct_train.planning.hardware import Hardware
from selfinstruct_train.planning.pace import Pace, pace_of
from selfinstruct_train.planning.plan import Plan, make_plan
from selfinstruct_train.planning.probe import Call, Probe
from selfinstruct_train.records import Sampling
from tests.planning.test_plan import EXPECTED, QUICKSTART, SIZE, TEXTS

FOUND = Yield(
    requests=10,
    candidates=50,
    accepted=25,
    with_instance=20,
    classification=5,
    written=60,
    kept=30,
    item_tokens=12.0,
    instances_tokens=40.0,
)
MACHINE = Hardware("cpu", 1e9, 1000.0, 1000.0, 500.0, 100.0, 0.0, 0.0, "")


def requests(step: str, count: int) -> list[Request]:
    return [Request(f"r0-{step}-{i}", "one two", Sampling(max_tokens=8)) for i in range(count)]


def test_calls_are_counted_by_step_with_the_engine_s_time_alone() -> None:
    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        time.sleep(0.01)
        return ScriptedAnswer("a b c")

    clock = module._Clock(ScriptedEngine(answer), time.monotonic() + 60)
    for _ in clock.generate(requests("instructions", 3)):
        time.sleep(0.05)  # what the stage does meanwhile is not the engine's
    list(clock.generate(requests("instances", 2)))
    clock.score("x y", [" z", " z"], [" Yes", " No"])
    lists, instances, kinds = clock.calls
    assert (lists.step, lists.requests, lists.prompt_tokens, lists.completion_tokens) == (
        *("instructions", 3, 6, 9),
    )
    assert 0.03 <= lists.seconds < 0.14
    assert (instances.step, instances.requests) == ("instances", 2)
    assert (kinds.step, kinds.requests, kinds.prompt_tokens) == ("classification", 2, 6)


def test_a_probe_ends_when_its_time_is_over_and_not_before() -> None:
    engine = ScriptedEngine(lambda request, adapter: ScriptedAnswer("a"))
    clock = module._Clock(engine, time.monotonic() - 1)
    with pytest.raises(module._OutOfTimeError):
        list(clock.generate(requests("instructions", 3)))
    with pytest.raises(module._OutOfTimeError):
        clock.score("", [" z"], [" Yes"])
    assert clock.calls == [], "what was cut is not counted"


def test_a_machine_that_is_twice_as_slow_takes_twice_the_forecast() -> None:
    def pace(seconds: float) -> Pace:
        call = Call("instances", 4, 0, 40, seconds)
        return pace_of(Probe(FOUND, (call,), seconds), TEXTS, MACHINE, (SIZE, 4), 2, False)

    # 20 steps of 32 s: what the forecast of such a call is, worked out in test_plan.
    assert pace(640.0).of("instances") == 1.0
    twice = pace(1280.0)
    assert twice.of("instances") == twice.of("evaluation") == 2.0
    assert "instances 2.00" in twice.sentence


def test_a_server_is_planned_by_the_seconds_of_its_requests() -> None:
    calls = (
        Call("instructions", 10, 100, 500, 20.0),
        Call("classification", 50, 100, 0, 5.0),
        Call("instances", 25, 100, 500, 50.0),
    )
    config = load_config(QUICKSTART, ["generation.engine.kind=server"])
    found = make_plan(config, probed=Probe(FOUND, calls, 75.0))
    seconds = {stage.stage: stage.seconds for stage in found.stages}
    asked = {work.stage: work.requests for work in found.asked}
    assert seconds["instances"] == pytest.approx(2.0 * asked["instances"], abs=0.1)
    assert seconds["classification"] == pytest.approx(0.1 * asked["classification"], abs=0.1)
    assert found.expected.acceptance == 0.5 and "probe of 75 s" in found.expected.basis
    assert found.expected.acceptance != EXPECTED.list_fill


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2m", 120), ("1h", 3600), ("45", 45)])
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0s", "-1m", "2 m", "soon", "1d", "1.5m", "٢m"])
def test_what_is_no_time_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="write it like 90s, 2m or 1h"):
        duration(text)


def test_a_probe_of_a_run_that_writes_nothing_is_refused() -> None:
    config = load_config(QUICKSTART, ["training.mix={own: 0, seeds: 1, generated: 0}", "rounds=1"])
    with pytest.raises(ConfigError, match="nothing that could be probed"):
        module.probe(config, 60.0, print)


@pytest.mark.slow
def test_a_plan_by_a_probe_rests_on_what_the_model_did_here() -> None:
    told = CliRunner().invoke(
        app, ["plan", str(QUICKSTART), "--probe", "60s", "--json", "model.threads=1"]
    )
    assert told.exit_code == 0, told.output
    found = Plan.model_validate(json.loads(told.stdout))
    assert "probe of" in found.expected.basis and "tokens/s" in found.basis
    assert 0.3 < found.expected.acceptance <= 1.0
    assert found.expected.kept_instances > 0.3
