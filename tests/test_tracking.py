"""Laws of the figures that go to trackers and to Prometheus."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.progress import ProgressUpdate, Said
from selfinstruct_train.run.tracking import PrometheusFile, Tracking, figures_of, open_tracker

UPDATE = ProgressUpdate(
    "instructions", 30, 60, 30, Counter({"similar": 9, "too_short": 1}), 500, 10.0
)


def later(done: int, stage: str = "instructions") -> ProgressUpdate:
    return UPDATE._replace(done=done, stage=stage)


def test_figures_are_acceptance_and_pace_and_what_is_unknown_is_left_out() -> None:
    assert figures_of(UPDATE) == {
        **{"done": 30.0, "kept": 30.0, "dropped": 10.0, "acceptance": 0.75},
        **{"tokens_per_second": 50.0, "seconds_left": 10.0},
    }
    assert figures_of(ProgressUpdate("evaluation", 3, None, 0, Counter(), 0, 1.0)) == {"done": 3.0}


class Kept:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def close(self) -> None:
        self.closed += 1


def test_a_tracker_gets_each_stage_now_and_then_and_its_last_and_no_training() -> None:
    kept, opened = Kept(), []
    tracking = Tracking([lambda: opened.append(1) or kept], every_seconds=3600)
    tracking.record(Said("hello", False))
    tracking.record(later(2, "round 0 training"))
    assert opened == [], "nothing to tell, nothing opened"
    for done in (1, 2, 3, 60):
        tracking.record(later(done, "round 0 instructions"))
    tracking.record(later(1, "round 1 instances"))
    assert [figures["instructions/done"] for _, figures in kept.logged[:2]] == [1.0, 60.0]
    assert kept.logged[2][1]["instances/acceptance"] == 0.75
    assert [step for step, _ in kept.logged] == [0, 1, 2], "steps only grow"
    tracking.close()
    assert (len(opened), kept.closed) == (1, 1)


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_trackers_with_the_calls_of_wandb_are_opened_logged_to_and_finished(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    module = ModuleType(package)
    module.init = lambda **settings: calls.append(settings)  # type: ignore[attr-defined]
    module.log = lambda figures, step: calls.append((figures, step))  # type: ignore[attr-defined]
    module.finish = lambda: calls.append("finished")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setenv(f"{package.upper()}_PROJECT", "mine")
    tracker = open_tracker(package, tmp_path / "clinic")
    tracker.log({"a": 1.0}, 4)
    tracker.close()
    assert calls == [
        {"project": "mine", "name": "clinic generation"},
        ({"a": 1.0}, 4),
        "finished",
    ]


def test_tensorboard_gets_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = open_tracker("tensorboard", tmp_path)
    tracker.log({"a": 1.0}, 4)
    tracker.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_prometheus_reads_the_file_and_finds_each_stage_and_reason(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    path = tmp_path / "run.prom"
    tracking = Tracking([], PrometheusFile(path, "clinic"), every_seconds=0)
    tracking.record(UPDATE)
    tracking.record(later(5, "round 0 training"))
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    assert found["selfinstruct_acceptance", "clinic", "instructions"] == 0.75
    assert found["selfinstruct_tokens_per_second", "clinic", "instructions"] == 50.0
    assert found["selfinstruct_total", "clinic", "instructions"] == 60.0
    assert found["selfinstruct_dropped", "clinic", "instructions", "similar"] == 9.0
    assert found["selfinstruct_done", "clinic", "round 0 training"] == 5.0
    assert ("selfinstruct_last_update_timestamp_seconds", "clinic") in found
    assert [file.name for file in tmp_path.iterdir()] == ["run.prom"], "replaced as a whole"


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with pytest.raises(RunError, match=r"metrics_file: .*no/such/run\.prom cannot be written"):
        PrometheusFile(tmp_path / "no/such/run.prom", "clinic").write(UPDATE)


def test_without_the_package_its_name_and_the_command_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'selfinstruct-train\[metrics\]'"):
        PrometheusFile(tmp_path / "run.prom", "clinic")
