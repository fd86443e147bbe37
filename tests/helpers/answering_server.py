"""A loopback server that answers each completion request by a function of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

KEY = "sk-very-secret-4711"


class Answer(NamedTuple):
    """What the server says to a request."""

    body: Any
    """JSON, or text that is sent as it is."""
    status: int = 200
    headers: Mapping[str, str] = {}


class Server:
    """Answers POST requests by a function of (body, how many came before) and remembers them."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        lock, under_way, outer = threading.Lock(), [0], self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.paths.append(self.path)
                    outer.keys.append(self.headers["Authorization"])
                    under_way[0] += 1
                    outer.most_at_once = max(outer.most_at_once, under_way[0])
                known = self.path in ("/v1/completions", "/v1/chat/completions")
                found = answer(body, number) if known else Answer("", 404)
                text = found.body if isinstance(found.body, str) else json.dumps(found.body)
                with lock:
                    under_way[0] -= 1
                self.send_response(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


StartServer = Callable[[Callable[[dict[str, Any], int], Answer]], Server]


def reply(text: str, reason: str = "stop", **others: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": text, "finish_reason": reason, **others}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def shout(body: dict[str, Any], number: int) -> Answer:
    return Answer(reply(body["prompt"].upper()))
