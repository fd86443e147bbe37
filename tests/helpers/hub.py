"""A stand-in of the Hugging Face Hub: it makes repositories and takes commits, over HTTP."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What it was sent."""

    def __init__(self) -> None:
        self.address = ""
        self.refuses = False
        self.tokens: set[str] = set()
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}


@contextmanager
def hub() -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            found.tokens.add(self.headers["Authorization"] or "")
            if found.refuses:
                return self._say(403, {"error": "this token may not write"})
            if self.path.startswith("/api/repos/create"):
                asked = json.loads(body)
                name = f"{asked.get('organization', 'me')}/{asked['name']}"
                found.repositories[name] = asked
                self._say(200, {"url": f"{found.address}/datasets/{name}", "name": name})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                self._say(
                    200,
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for f in asked
                        ]
                    },
                )
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        content = base64.b64decode(row["value"]["content"])
                        found.files[row["value"]["path"]] = content
                where = self.path.removeprefix("/api").removeprefix("/models")
                commit = {"commitUrl": found.address + where, "commitOid": "1" * 40}
                self._say(200, commit)
            else:
                self._say(200, {})

        def do_GET(self) -> None:
            self._say(404, {"error": "not here"})

        def _say(self, status: int, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
