"""One process works on a run: who comes second is told who was first, and the dead hold nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.errors import RunError
from selfinstruct_train.run import lock
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.lock import Holder, hold, read_holder

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs/quickstart.yaml"
HOLDER = """
import sys, time
from pathlib import Path
from selfinstruct_train.cli.program import guard

def program():
    from selfinstruct_train.run.lock import hold
    held = hold(Path(sys.argv[1]) / "run.lock", "run", "give another output_dir")
    print(*held.notes, "held", flush=True)
    # In short pieces: a signal that arrives just before a sleep is only seen when that ends.
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        time.sleep(0.05)

guard(program)
"""


def start(folder: Path, seconds: float = 60) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_who_comes_second_is_told_who_holds_it_and_ends_with_2(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert first_line(first) == "held"
    second = start(tmp_path)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"error: {tmp_path}: process {first.pid} on {os.uname().nodename}" in said
    assert "last sign of life" in said and "give another output_dir" in said
    first.kill()
    first.wait()


def test_of_many_that_start_at_once_one_works(tmp_path: Path) -> None:
    begun = [start(tmp_path, seconds=3) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=120), begun))
    assert sorted(process.returncode for process in begun) == [0, 2, 2, 2], said
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_holder_that_a_signal_stops_gives_it_back(tmp_path: Path, sent: signal.Signals) -> None:
    first = start(tmp_path)
    assert first_line(first) == "held"
    first.send_signal(sent)
    first.communicate(timeout=120)
    assert not (tmp_path / "run.lock").exists()
    assert hold(tmp_path / "run.lock", "run", "").notes == ()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_line(tmp_path: Path) -> None:
    first = start(tmp_path)
    assert first_line(first) == "held"
    first.kill()
    first.wait()
    second = start(tmp_path, seconds=0)
    assert f"{tmp_path}: taken over from process {first.pid} on" in first_line(second)
    second.communicate(timeout=120)
    assert second.returncode == 0


def elsewhere(folder: Path, heartbeat: str = "2026-01-01T00:00:00+00:00") -> Path:
    holder = Holder(
        pid=1, host="elsewhere", command=("x",), since="2026-01-01T00:00:00+00:00",
        heartbeat=heartbeat,
    )  # fmt: skip
    (folder / "run.lock").write_text(holder.model_dump_json())
    return folder / "run.lock"


def test_a_holder_elsewhere_counts_while_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    file = elsewhere(tmp_path)
    assert "taken over from process 1 on elsewhere" in hold(file, "run", "").notes[0]
    elsewhere(tmp_path)

    def beat() -> None:
        for second in range(10):
            time.sleep(0.05)
            elsewhere(tmp_path, f"2026-01-01T00:00:{second:02}+00:00")

    with ThreadPoolExecutor() as pool:
        pool.submit(beat)
        with pytest.raises(RunError, match="process 1 on elsewhere"):
            hold(file, "run", "give another output_dir")


SIGNED = {"host": "x", "command": [], "since": "2026-01-01T00:00:00+00:00", "pid": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"pid": 1}'),
        *(
            json.dumps(SIGNED | {"heartbeat": at})
            for at in ("", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z")
        ),
        *(
            json.dumps(SIGNED | {"heartbeat": SIGNED["since"], "host": socket.gethostname()} | bad)
            for bad in ({"pid": 0}, {"pid": -1}, {"pid": 2**31}, {"pid": 2**70}, {"since": "x"})
        ),
    ],
)
def test_a_damaged_lock_of_a_dead_process_stops_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.lock").write_text(text)
    assert "taken over from a process that left" in hold(tmp_path / "run.lock", "run", "").notes[0]


def test_a_process_holds_a_lock_several_times_and_gives_it_back_with_the_last(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.lock"
    outer = hold(file, "run", "")
    with hold(file, "run", "") as inner:
        assert inner.notes == ()
    holder = read_holder(file)
    assert holder is not None and holder.pid == os.getpid() and holder.is_alive()
    outer.release()
    assert read_holder(file) is None
    second = start(tmp_path, seconds=0)
    second.communicate(timeout=120)
    assert second.returncode == 0


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with hold(tmp_path / "run.lock", "run", ""):
        (tmp_path / "run.lock").unlink()
        time.sleep(0.5)
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_a_run_is_owned_by_whoever_opened_it_and_read_by_all(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, output_dir=tmp_path / "run")
    run = RunDirectory(config.output_dir)
    run.open(config)
    second = start(run.path, seconds=0)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2 and f"process {os.getpid()}" in said
    assert RunDirectory(run.path).config() == config
    del run
    assert start(config.output_dir, seconds=0).wait(timeout=120) == 0
    assert RunDirectory(config.output_dir).open(config) == ()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: cannot be used .*; give another output_dir"):
        hold(tmp_path / "file/run.lock", "run", "give another output_dir")
