"""A loopback server that answers each completion request by a function of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.helpers.loopback import LoopbackServer, QuietHandler

KEY = "sk-very-secret-4711"


class Answer(NamedTuple):
    """What the server says to a request."""

    body: Any
    """JSON, or text that is sent as it is."""
    status: int = 200
    headers: Mapping[str, str] = {}


class Server(LoopbackServer):
    """Answers POST requests by a function of (body, how many came before) and remembers them."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        lock, under_way, outer = threading.Lock(), [0], self

        class Handler(QuietHandler):
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
                kind = {"Content-Type": "application/json"}
                self.send_text(found.status, text, **found.headers, **kind)

        super().__init__(Handler)


StartServer = Callable[[Callable[[dict[str, Any], int], Answer]], Server]


def reply(text: str, reason: str = "stop", **others: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": text, "finish_reason": reason, **others}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def shout(body: dict[str, Any], number: int) -> Answer:
    return Answer(reply(body["prompt"].upper()))
