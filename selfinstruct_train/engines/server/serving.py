"""A server that is started for a while: its command, its health, its end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.errors import ConfigError, EngineError

_LOOK_SECONDS = 0.5
"""Between two looks at whether the server answers."""
_TELL_SECONDS = 10.0
"""Between two lines about a server that does not answer yet."""
_GRACE_SECONDS = 30.0
"""From the signal to stop until a server is killed."""
_TAIL_BYTES = 4096


def serve_command(template: str, engine: EngineConfig, source: str, name: str) -> list[str]:
    """The words of a command that starts a server.

    Args:
        template: the command; ``{model}``, ``{name}``, ``{host}`` and ``{port}`` stand for what is
            served, the name that it is asked for by, and the address.
        engine: the server's address.
        source: folder or Hub name of the model.
        name: the model's name, unless the engine's settings name another.

    Raises:
        ConfigError: the command is none, or names something else in braces.
    """
    parts = urlsplit(engine.base_url)
    known = {
        "model": source,
        "name": engine.server_model or name,
        "host": parts.hostname or "",
        "port": str(parts.port or (443 if parts.scheme == "https" else 80)),
    }
    try:
        words = [word.format(**known) for word in shlex.split(template)]
    except (ValueError, KeyError, IndexError) as error:
        raise ConfigError(
            f"--serve: {template!r} cannot be read as a command ({error}); quote it as a shell "
            "would, with {model}, {name}, {host} and {port} where they belong"
        ) from None
    if not words:
        raise ConfigError("--serve: is empty; write a command such as 'vllm serve {model}'")
    return words


@contextmanager
def serving(
    command: list[str],
    engine: EngineConfig,
    log: Path,
    ready_seconds: float,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Start a server, wait until it answers, and stop it and all that it started, come what may.

    Args:
        command: the words of the command.
        engine: its address, and the variable of its key.
        log: file that gets what the server writes.
        ready_seconds: longest that it may take to answer.
        say: told how far it is.

    Raises:
        ConfigError: the command cannot be started.
        EngineError: something else answers at the address, or the server does not answer in time.
    """
    if _answers(engine):
        raise EngineError(
            f"{engine.base_url}: a server answers there already; stop it, or set "
            "generation.engine.base_url to an address that is free"
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = _start(command, output)
        try:
            say(f"server: {shlex.join(command)} (process {process.pid}; its output: {log})")
            _wait_until_ready(process, engine, log, ready_seconds, say)
            yield
        finally:
            _stop(process)
            say(f"server: process {process.pid} has ended, its memory is free")


def _start(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    # In a group of its own, so that Ctrl-C reaches it through us, after who is asking it, and so
    # that what it starts can be ended with it.
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"--serve: '{command[0]}' cannot be started ({error.strerror}); install the server, or "
            "give the path of its program"
        ) from None


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    engine: EngineConfig,
    log: Path,
    ready_seconds: float,
    say: Callable[[str], None],
) -> None:
    began = told = time.monotonic()
    while not _answers(engine):
        if (code := process.poll()) is not None:
            raise EngineError(
                f"the server ended with exit code {code} before it answered{_last_line(log)}; "
                f"correct the command, see {log}"
            )
        now = time.monotonic()
        if now - began > ready_seconds:
            raise EngineError(
                f"{engine.base_url}: the server does not answer after {ready_seconds:.0f} s"
                f"{_last_line(log)}; see {log}, and give it longer with --ready-minutes"
            )
        if now - told > _TELL_SECONDS:
            told = now
            say(f"server: not ready after {now - began:.0f} s of {ready_seconds:.0f}")
        time.sleep(_LOOK_SECONDS)
    say(f"server: ready after {time.monotonic() - began:.0f} s")


def _answers(engine: EngineConfig) -> bool:
    """Whether the list of models comes, which every OpenAI-compatible server has."""
    key = os.environ.get(engine.api_key_variable, "").strip()
    request = urllib.request.Request(f"{engine.base_url.rstrip('/')}/models")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    # What we start is on this machine, which no proxy reaches.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return f" (it said last: {said[-1][:200]!r})" if said else ""
