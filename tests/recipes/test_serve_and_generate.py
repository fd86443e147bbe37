"""The recipe that starts a server of its own, with a program that serves the embedded model."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import left_of
from tests.recipes.conftest import ROOT, environment, small_run

pytestmark = pytest.mark.slow
_LIMIT = 900


def command(suite: Path, folder: Path) -> list[str]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    program = ROOT / "tests/helpers/stand_in_server.py"
    settings = f"kind: server, base_url: 'http://127.0.0.1:{port}/v1', server_dialect: vllm"
    more = (f"generation.engine={{{settings}, timeout_seconds: 600}}", "rounds=1")
    serve = f"{sys.executable} {program} {{port}} {folder / 'pids'}"
    start = [sys.executable, "recipes/serve_and_generate.py", "--serve", serve, "--config"]
    return [*start, *small_run(suite, folder / "run", more)]


def test_a_server_writes_is_stopped_and_then_the_model_is_trained_and_measured(
    suite: Path, tmp_path: Path
) -> None:
    arguments = command(suite, tmp_path)
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "pids").read_text().split()) == 2 and left_of(tmp_path / "pids") == []
    freed = done.stderr.index("its memory is free")
    assert done.stderr.index("instances: ") < freed < done.stderr.index("train: loading")
    assert done.stdout.count("report:") == 1
    assert (tmp_path / "run/round-0/adapter/adapter_model.safetensors").is_file()
    again = subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LIMIT
    )
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "pids").read_text().split()) == 2, "what is written needs no server"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_writes_stops_the_server_too(
    suite: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        command(suite, tmp_path),
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "run/round-0"
    end = time.monotonic() + _LIMIT
    while not list(journal.glob("**/*.jsonl")) and time.monotonic() < end:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.5)
    # Ctrl-C reaches the whole group of the terminal, a job's end only the first process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert left_of(tmp_path / "pids") == []
    assert "its memory is free" in said and "Traceback" not in said
