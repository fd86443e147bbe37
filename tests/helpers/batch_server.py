"""A loopback server that plays a vendor's Batch API, and counts what it would have billed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.helpers.loopback import LoopbackServer, QuietHandler

Reply = tuple[int, dict[str, Any]]
"""Status and body of the answer to one line."""
_PAGE = 2
"""Jobs that a list shows at once."""


class BatchServer(LoopbackServer):
    """Files, jobs and answers; a job is answered by its fourth look."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply]) -> None:
        self.files: dict[str, str] = {}
        self.jobs: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.on: Callable[[str], int] = lambda step: 0
        """Called with upload, create, list, state or content when the work is done and before it is
        told; a status other than 0 is told in its place."""
        self.ends_as = "completed"
        self.left_out: set[str] = set()
        """Prompts that a job leaves without an answer."""
        self._answer = answer
        self._lock = threading.Lock()
        outer = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                outer.keys.add(self.headers["Authorization"])
                with outer._lock:
                    if self.path == "/v1/files":
                        self.tell("upload", outer.store(data))
                    elif self.path == "/v1/batches":
                        self.tell("create", outer.order(json.loads(data)))
                    else:
                        self.tell("", None, 404)

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                with outer._lock:
                    if parts.path == "/v1/batches":
                        after = parse_qs(parts.query).get("after", [None])[0]
                        self.tell("list", outer.page(after))
                    elif found := re.fullmatch(r"/v1/batches/(\w+)", parts.path):
                        self.tell("state", outer.look(found[1]))
                    elif found := re.fullmatch(r"/v1/files/(\w+)/content", parts.path):
                        self.tell("content", outer.files[found[1]])
                    else:
                        self.tell("", None, 404)

            def tell(self, step: str, body: object, status: int = 200) -> None:
                status = outer.on(step) or status
                text = body if isinstance(body, str) else json.dumps(body)
                try:
                    self.send_text(status, text)
                except OSError:
                    return  # whoever asked was killed

        super().__init__(Handler)

    @property
    def billed(self) -> list[str]:
        """Prompts of all jobs that were ordered."""
        return [line["body"]["prompt"] for job in self.jobs for line in self.requests(job)]

    def requests(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        lines = self.files[job["input_file_id"]].splitlines()
        return [json.loads(line) for line in lines]

    def store(self, data: bytes) -> dict[str, Any]:
        assert b'name="purpose"' in data and b"batch" in data
        lines = [line for line in data.decode().split("\n") if line.startswith("{")]
        return {"id": self._file("\n".join(lines)), "object": "file", "purpose": "batch"}

    def _file(self, text: str) -> str:
        name = f"file{len(self.files)}"
        self.files[name] = text
        return name

    def order(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["completion_window"] == "24h" and asked["input_file_id"] in self.files
        name = f"batch{len(self.jobs)}"
        self.jobs.append({"id": name, "status": "validating", "looks": 0, **asked})
        return self.jobs[-1]

    def page(self, after: str | None) -> dict[str, Any]:
        newest = self.jobs[::-1]
        start = 1 + [job["id"] for job in newest].index(after) if after else 0
        shown = newest[start : start + _PAGE]
        return {"object": "list", "data": shown, "has_more": start + _PAGE < len(newest)}

    def look(self, name: str) -> dict[str, Any]:
        (job,) = [job for job in self.jobs if job["id"] == name]
        job["looks"] += 1
        total = len(self.requests(job))
        if job["looks"] < 4:
            done = total * (job["looks"] - 1) // 4
            job["status"] = ["validating", "in_progress", "in_progress"][job["looks"] - 1]
            job["request_counts"] = {"total": total, "completed": done, "failed": 0}
        elif job["status"] != self.ends_as:
            self._end(job)
        return job

    def _end(self, job: dict[str, Any]) -> None:
        job["status"] = self.ends_as
        if self.ends_as == "failed":
            fault = {"code": "invalid_json_line", "message": "Line is no JSON.", "line": 3}
            job["errors"] = {"object": "list", "data": [fault]}
            return
        number = self.jobs.index(job)
        good, bad = [], []
        for line in self.requests(job):
            if line["body"]["prompt"] in self.left_out:
                continue
            status, body = self._answer(line["body"], number)
            response = {"status_code": status, "request_id": "r", "body": body}
            row = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if status == 200 else bad).append(json.dumps(row))
        # In another order than they were asked in, as vendors say.
        job["output_file_id"] = self._file("\n".join(good[::-1])) if good else None
        job["error_file_id"] = self._file("\n".join(bad)) if bad else None
