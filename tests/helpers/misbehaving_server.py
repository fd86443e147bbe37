"""A loopback server that says to each request what a script holds next, byte by byte if need be."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Act = Callable[[socket.socket], None]
"""What the server does with one request, which it has read."""


def says(body: object, status: int = 200, **headers: str) -> Act:
    """A whole reply: JSON, or text that is sent as it is."""
    text = body if isinstance(body, str) else json.dumps(body)
    data = text.encode(errors="surrogatepass")
    return lambda connection: connection.sendall(_head(status, len(data), headers) + data)


def cuts(body: object, after: int) -> Act:
    """A reply whose connection ends before its body does."""
    data = json.dumps(body).encode()
    return lambda connection: connection.sendall(_head(200, len(data), {}) + data[:after])


def hangs_up(connection: socket.socket) -> None:
    """No reply at all."""


def dribbles(data: bytes, every_seconds: float) -> Act:
    """One byte now and then, as long as anybody listens."""

    def act(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(every_seconds)

    return act


def floods(megabytes: int, status: int = 200) -> Act:
    """A reply of many megabytes."""

    def act(connection: socket.socket) -> None:
        connection.sendall(_head(status, megabytes * 2**20, {}))
        for _ in range(megabytes):
            connection.sendall(b"x" * 2**20)

    return act


def slow_head() -> bytes:
    """Headers that never end."""
    return b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1000


def slow_body() -> bytes:
    """Headers of a long reply, and its first bytes."""
    return _head(200, 10_000, {}) + b"{" + b" " * 1000


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    given = {"Content-Type": "application/json", "Content-Length": str(length), **headers}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class MisbehavingServer:
    """Plays a script, act after act, and the last act again once it is through."""

    def __init__(self, script: Sequence[Act]) -> None:
        self.requests = 0
        self._script = script
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more requests."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            _read_request(connection)
            with self._lock:
                act = self._script[min(self.requests, len(self._script) - 1)]
                self.requests += 1
            try:
                act(connection)
            except OSError:
                return  # the client has had enough


def _read_request(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = sum(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    found: dict[str, Any] = json.loads(body or "{}")
    return found
