"""A server program that serves the embedded model: what `vllm serve` is to a large one.

python stand_in_server.py PORT [PID_FILE]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.models.load import load_model
from selfinstruct_train.records import Sampling


def answer(engine: TransformersEngine, body: dict[str, Any]) -> dict[str, Any]:
    """One completion, with the words Yes and No where log-probabilities of many are asked for."""
    settings = {
        name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed") if name in body
    }
    sampling = Sampling(
        **settings,
        stop=tuple(body.get("stop", ())),
        top_k=max(0, body.get("top_k", 0)),
        repetition_penalty=body.get("repetition_penalty", 1.0),
    )
    (found,) = engine.generate([Request("r", body["prompt"], sampling)])
    choice: dict[str, Any] = {"index": 0, "text": found.text, "finish_reason": "length"}
    if found.finish_reason != "length":
        choice |= {"finish_reason": "stop", "stop_reason": None}
        choice["stop_reason"] = sampling.stop[0] if found.finish_reason == "stop" else None
    if body.get("logprobs", 0) > 1:
        words = [" Yes", " No"]
        (scores,) = engine.score("", [body["prompt"]], words)
        top = dict(zip(words, scores, strict=True))
        best = max(top, key=lambda word: top[word])
        choice["logprobs"] = {
            "tokens": [best],
            "token_logprobs": [top[best]],
            "top_logprobs": [top],
        }
    usage = {"prompt_tokens": found.prompt_tokens, "completion_tokens": found.completion_tokens}
    return {"choices": [choice], "usage": usage}


def main(port: int, pids: Path | None) -> None:
    """Serve until told to stop."""
    if pids is not None:
        # As engines of servers are: a process of its own, which dies with the server or never.
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n{worker.pid}\n")
    model = load_model(ModelConfig(name_or_path="embedded", device="cpu", threads=1))
    engine, lock = TransformersEngine(model, EngineConfig(max_batch_size=1)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({"data": [{"id": "embedded"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body.get("echo"):
                self.reply({"error": {"message": "no echo"}}, 400)
                return
            with lock:
                found = answer(engine, body)
            self.reply(found)

        def reply(self, body: object, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
