"""Signs of life: run.log holds what happened and no secret, and `status` tells it from outside."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.cli.signals import Stopped
from selfinstruct_train.config import load_config
from selfinstruct_train.errors import EngineError, RunError
from selfinstruct_train.progress import Progress, ProgressUpdate
from selfinstruct_train.run import log
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.log import RunLog
from selfinstruct_train.run.status import read_status

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs/quickstart.yaml"


def opened(folder: Path) -> RunDirectory:
    run = RunDirectory(folder)
    run.open(load_config(QUICKSTART, output_dir=folder))
    return run


def update(done: int, stage: str = "instructions", total: int | None = 10) -> ProgressUpdate:
    dropped = Counter({"too_long": 2, "not_new": 1})
    return ProgressUpdate(stage, done, total, done - 3, dropped, 100 * done, float(done))


def kinds(run: RunDirectory) -> list[str]:
    return [event.event for event in run.log.events()]


def test_the_log_has_a_line_of_json_for_each_event(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    progress = Progress(record=run.log.record)
    with run.log.recording("generate"):
        run.round(0).begin("instructions")
        for done in range(3, 8):
            progress(update(done))
        run.round(0).finish("instructions", 1.5, accepted=4)
        progress.say("words are compared")
        progress.warn("few rows")
        logging.getLogger("selfinstruct_train.engines").warning("slow %s", "server")
    lines = [json.loads(line) for line in (run.path / "run.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        *("started", "begun", "progress", "progress", "finished"),
        *("note", "warning", "warning", "ended"),
    ]
    assert all(line["at"].endswith("+00:00") and line["pid"] == os.getpid() for line in lines)
    assert [line["progress"]["done"] for line in lines if "progress" in line] == [3, 7]
    assert (lines[4]["where"], lines[4]["stage"]) == ("round-0", "instructions")
    assert lines[4]["text"] == "1.5 s; accepted 4" and lines[7]["text"] == "slow server"


def test_progress_is_logged_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_EVERY_SECONDS", 0.05)
    run = opened(tmp_path / "run")
    for done in range(3, 100):
        run.log.record(update(done, total=None))
        time.sleep(0.005)
    assert 3 < kinds(run).count("progress") < 20


@pytest.mark.parametrize(
    ("error", "event", "text"),
    [
        (Stopped(signal.SIGTERM), "stopped", "SIGTERM"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (RunError("no room"), "failed", "no room"),
        (ValueError("odd"), "failed", "ValueError: odd"),
    ],
)
def test_the_log_says_how_a_process_ended(
    error: BaseException, event: str, text: str, tmp_path: Path
) -> None:
    run = opened(tmp_path / "run")
    with pytest.raises(type(error)), run.log.recording("train"):
        run.log.record(update(4))
        raise error
    last = list(run.log.events())[-1]
    assert (last.event, last.text) == (event, text)
    assert kinds(run) == ["started", "progress", event]


def test_no_secret_reaches_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "run")
    for name, value in {
        "OPENAI_API_KEY": "sk-first-1234",
        "HF_TOKEN": "sk-first-1234-longer",
        "DB_PASSWORD": "päss wörd",
        "MINE": "named-by-the-config",
        "SHORT_KEY": "en",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["selfinstruct", "run", "sk-first-1234"])
    change = "generation.engine.api_key_variable=MINE"
    run.open(load_config(QUICKSTART, [change], output_dir=run.path))
    told = "sk-first-1234 sk-first-1234-longer päss wörd named-by-the-config en"
    with pytest.raises(EngineError), run.log.recording("generate"):
        run.log.record(update(3)._replace(note=told))
        logging.getLogger("selfinstruct_train.engines").warning("it said %s", told)
        raise EngineError(told)
    text = (run.path / "run.log").read_text()
    assert text.count("*** *** *** *** en") == 3 and "*** ***-longer" not in text
    for secret in ("sk-first", "päss", "named-by"):
        assert secret not in text


def test_a_log_that_a_kill_tore_is_gone_on_with(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    with (run.path / "run.log").open("a") as file:
        file.write('{"at":"2026-01-01T00:')
    again = opened(tmp_path / "run")
    again.log.write("note", text="whole")
    assert kinds(again) == ["started", "started", "note"]


def test_who_does_not_own_the_run_writes_no_log(tmp_path: Path) -> None:
    RunLog(tmp_path / "run.log").write("note", text="x")
    assert list(tmp_path.iterdir()) == []


WORKER = """
import sys, time
from collections import Counter
from pathlib import Path
from selfinstruct_train.cli.program import guard

def program():
    from selfinstruct_train.config import load_config
    from selfinstruct_train.progress import Progress, ProgressUpdate
    from selfinstruct_train.run.directory import RunDirectory
    run = RunDirectory(Path(sys.argv[1]))
    run.open(load_config(Path("configs/quickstart.yaml"), output_dir=run.path))
    progress = Progress(record=run.log.record)
    with run.log.recording("generate"):
        directory = run.round(0)
        directory.begin("instructions")
        directory.finish("instructions", 2.0)
        directory.begin("classification")
        progress.warn("the first")
        progress.warn("the \\x1b[31mlast")
        progress(ProgressUpdate("instances", 20, 100, 15, Counter(empty=4, long=1), 900, 10.0))
        print("working", flush=True)
        time.sleep(60)

guard(program)
"""


def status(run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfinstruct_train.cli.app", "status", str(run), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def contents(run: Path) -> dict[Path, bytes]:
    found = (p for p in run.rglob("*") if p.is_file() and not p.name.startswith("run.lock"))
    return {path: path.read_bytes() for path in found}


def test_status_tells_from_another_process_what_a_run_is_at(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdout is not None and worker.stdout.readline() == "working\n"
    before = contents(run)
    shown = status(run)
    assert shown.returncode == 0, shown.stderr
    first, stages, pace, warned, last = shown.stdout.splitlines()
    assert first.startswith(f"{run}: working (process {worker.pid} on {os.uname().nodename}")
    assert stages == "round-0: instructions finished, classification begun"
    assert pace == (
        "instances: 20/100 · kept 15 · dropped 5 (empty 4, long 1) · 90 tokens/s · 40 s left"
        " · 2.00 rows/s"
    )
    assert warned == r"last of 2 warnings: the \x1b[31mlast" and "s ago" in last
    found = json.loads(status(run, "--json").stdout)
    assert found["state"] == "working" and found["holder"]["pid"] == worker.pid
    assert found["progress"][0]["seconds_left"] == 40.0
    assert found["progress"][0]["figures"]["dropped"] == {"empty": 4, "long": 1}
    assert contents(run) == before
    worker.send_signal(signal.SIGTERM)
    worker.wait()
    assert status(run, "--watch").stdout.startswith(f"{run}: stopped (SIGTERM)")


def test_status_of_a_killed_run_says_so(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    assert read_status(run).state == "working"
    del run
    found = read_status(RunDirectory(tmp_path / "run"))
    assert (found.state, found.holder) == ("killed", None)


@pytest.mark.parametrize("at", ["", "x", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00Z"])
def test_a_line_of_the_log_without_a_time_is_left_out(at: str, tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    event = {"event": "note", "pid": 1, "text": "x"}
    with (run.path / "run.log").open("a") as file:
        file.write(json.dumps(event | {"at": at}) + "\n" + "\0" * 100)
    assert kinds(run) == ["started"] and list(read_status(run).lines)


def test_a_log_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (opened(tmp_path / "run").path / "run.log").unlink()
    (tmp_path / "run/run.log").mkdir()
    with pytest.raises(RunError, match=r"run\.log: cannot be written \(Is a directory\)"):
        opened(tmp_path / "run")
    assert read_status(RunDirectory(tmp_path / "run")).last_event_at is None


@pytest.mark.parametrize("name", ["x" * 300, "loop", "loop/under"])
def test_status_of_what_no_folder_can_be_is_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RunError, match="not a run directory"):
        read_status(RunDirectory(tmp_path / name))


def test_status_of_a_folder_that_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        read_status(RunDirectory(tmp_path))
