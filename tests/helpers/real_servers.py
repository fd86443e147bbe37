"""Real servers of language models on loopback, and which of them are to be found here."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers.utils.import_utils import is_serve_available

from selfinstruct_train.models.source import EMBEDDED_WEIGHTS

START_SECONDS = 180


class Kind(NamedTuple):
    """A kind of server."""

    dialect: str
    model: str | None
    """Name to ask for; None where any will do."""
    command: Callable[[Path, int], list[str]]
    """Arguments from the model, as GGUF or as a folder, and the port."""
    needs_gguf: bool = False


def python_with(package: str, variable: str) -> str | None:
    """A Python that has the package."""
    if importlib.util.find_spec(package) is not None:
        return sys.executable
    return os.environ.get(variable)


LLAMA_PYTHON = python_with("llama_cpp", "LLAMA_CPP_PYTHON")
GGUF_PYTHON = python_with("gguf", "LLAMA_CPP_PYTHON")
LLAMA_SERVER = os.environ.get("LLAMA_SERVER")
VLLM_PYTHON = python_with("vllm", "VLLM_PYTHON")


def llama_cpp_python(gguf: Path, port: int) -> list[str]:
    settings = ["--model", str(gguf), "--port", str(port), "--host", "127.0.0.1"]
    settings += ["--logits_all", "true", "--n_ctx", "2048"]  # the first for log-probabilities
    return [str(LLAMA_PYTHON), "-m", "llama_cpp.server", *settings, "--n_threads", "1"]


def llama_server(gguf: Path, port: int) -> list[str]:
    settings = ["-m", str(gguf), "--port", str(port), "--host", "127.0.0.1", "-t", "1"]
    return [str(LLAMA_SERVER), *settings, "-c", "8192", "-np", "4"]


def vllm(folder: Path, port: int) -> list[str]:
    settings = ["--model", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    settings += ["--dtype", "float32", "--max-num-seqs", "8", "--gpu-memory-utilization", "0.2"]
    return [str(VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server", *settings]


def transformers_serve(folder: Path, port: int) -> list[str]:
    settings = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    program = str(Path(sys.executable).with_name("transformers"))
    return [program, "serve", str(folder), *settings]


def kind(name: str, found: bool, reason: str, *kind: object) -> object:
    skip = pytest.mark.skipif(not found, reason=f"no {name}: {reason}")
    return pytest.param(Kind(*kind), id=name, marks=skip)  # type: ignore[arg-type]


WEIGHTS = str(EMBEDDED_WEIGHTS)
KINDS = {
    "llama-cpp-python": kind(
        "llama-cpp-python",
        bool(LLAMA_PYTHON and GGUF_PYTHON),
        "install llama-cpp-python[server] and gguf, or set LLAMA_CPP_PYTHON",
        *("llama.cpp", None, llama_cpp_python, True),
    ),
    "llama-server": kind(
        "llama-server",
        bool(LLAMA_SERVER and GGUF_PYTHON),
        "set LLAMA_SERVER to the program, and install gguf or set LLAMA_CPP_PYTHON",
        *("llama.cpp", None, llama_server, True),
    ),
    "vllm": kind(
        "vllm",
        bool(VLLM_PYTHON),
        "install vllm or set VLLM_PYTHON",
        *("vllm", WEIGHTS, vllm),
    ),
    "transformers": kind(
        "transformers serve",
        is_serve_available(),
        "install transformers[serving]",
        *("transformers", WEIGHTS, transformers_serve),
    ),
}


class Running:
    """A server under way."""

    def __init__(self, kind: Kind, model: Path, log: Path) -> None:
        self.kind = kind
        self._log = log
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self._port = unused.getsockname()[1]
        self._command = kind.command(model, self._port)
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self.start()

    def start(self) -> None:
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=os.environ
                | quiet
                | {"OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(self._log.parent)},
                start_new_session=True,
            )

    def wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        self.kill()
        pytest.fail("the server did not start:\n" + self._log.read_text()[-2000:])

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait()
