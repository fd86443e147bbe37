"""Laws of a server that is started for a while: it is waited for, and ends whatever happens."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.server import serving as module
from selfinstruct_train.engines.server.serving import serve_command, serving
from selfinstruct_train.errors import ConfigError, EngineError
from tests.helpers.processes import is_alive, left_of

PROGRAM = """
import http.server, os, pathlib, signal, subprocess, sys, time
port, wait, deaf, pids = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "deaf", sys.argv[4]
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(pids).write_text(f"{os.getpid()} {worker.pid}")
print("loading weights", flush=True)
time.sleep(wait)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def engine() -> EngineConfig:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return EngineConfig(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1")


def program(engine: EngineConfig, folder: Path, wait: float = 0.0, deaf: str = "no") -> list[str]:
    (folder / "server.py").write_text(PROGRAM)
    template = f"{sys.executable} {folder / 'server.py'} {{port}} {wait} {deaf} {folder / 'pids'}"
    return serve_command(template, engine, "m", "m")


def test_a_server_is_waited_for_and_ended_with_what_it_started(
    engine: EngineConfig, tmp_path: Path
) -> None:
    said: list[str] = []
    with serving(program(engine, tmp_path, 1.0), engine, tmp_path / "log", 120, said.append):
        assert module._answers(engine)
    assert left_of(tmp_path / "pids") == [] and not module._answers(engine)
    assert (tmp_path / "log").read_text().startswith("loading weights\n")
    assert "ready after" in said[1] and "has ended" in said[-1]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_or_ctrl_c_ends_it_too_even_one_that_will_not_listen(
    engine: EngineConfig,
    tmp_path: Path,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.5)
    command = program(engine, tmp_path, deaf="deaf")
    with pytest.raises(error), serving(command, engine, tmp_path / "log", 120, lambda text: None):
        raise error
    assert left_of(tmp_path / "pids") == []


def test_a_server_that_is_not_ready_in_time_is_ended_and_quoted(
    engine: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TELL_SECONDS", 0.2)
    said: list[str] = []
    command = program(engine, tmp_path, wait=600.0)
    with (
        pytest.raises(EngineError, match=r"does not answer after 8 s.*'loading weights'.*minutes"),
        serving(command, engine, tmp_path / "log", 8, said.append),
    ):
        pytest.fail("it is not ready")
    assert left_of(tmp_path / "pids") == []
    assert any("not ready after" in line for line in said)


def test_a_server_that_ends_before_it_answers_is_quoted(
    engine: EngineConfig, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"]
    with (
        pytest.raises(EngineError, match="exit code 3 before it answered.*'no such model'"),
        serving(command, engine, tmp_path / "log", 60, lambda text: None),
    ):
        pytest.fail("it is not ready")


def test_a_program_that_is_not_there_and_an_address_that_is_taken_are_one_sentence(
    engine: EngineConfig, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(ConfigError, match="'no-such-server' cannot be started"),
        serving(["no-such-server"], engine, log, 60, lambda text: None),
    ):
        pytest.fail("it is not there")
    with serving(program(engine, tmp_path), engine, log, 120, lambda text: None):
        with (
            pytest.raises(EngineError, match="a server answers there already"),
            serving(program(engine, tmp_path), engine, log, 60, lambda text: None),
        ):
            pytest.fail("the address is taken")
        assert module._answers(engine), "the one that was there lives on"


def test_a_command_is_filled_in_and_one_that_cannot_be_is_refused(engine: EngineConfig) -> None:
    port = engine.base_url.split(":")[2].split("/")[0]
    template = "vllm serve {model} --served-model-name '{name}' --host {host} --port {port}"
    assert serve_command(template, engine, "/some where", "org/model") == [
        *("vllm", "serve", "/some where", "--served-model-name", "org/model"),
        *("--host", "127.0.0.1", "--port", port),
    ]
    for wrong in ("vllm serve {modle}", "vllm serve '", "", "vllm {"):
        with pytest.raises(ConfigError, match="--serve"):
            serve_command(wrong, engine, "m", "m")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> object:
    yield
    if (tmp_path / "pids").exists():
        for pid in (tmp_path / "pids").read_text().split():
            if is_alive(int(pid)):
                os.kill(int(pid), signal.SIGKILL)
