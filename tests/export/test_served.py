"""What is exported, served over HTTP by other programs, says what it says here.

Skipped unless the server is found; tests/helpers/real_servers.py says how.
"""

import importlib.util
import json
import urllib.request
from pathlib import Path

import pytest

from selfinstruct_train.export.model import export_model
from selfinstruct_train.run.directory import RunDirectory
from tests.export.test_model import PROMPTS, greedy, tuned
from tests.helpers.real_servers import KINDS, Kind, Running

__all__ = ["tuned"]
SAID = [
    {"role": "user", "content": "Write the word twice."},
    {"role": "user", "content": "bird"},
]
"""Instruction and input, as in training: the first of PROMPTS."""


def ask(server: Running, path: str, **asked: object) -> dict[str, object]:
    body = {"model": server.kind.model or "any", "temperature": 0, "max_tokens": 24} | asked
    request = urllib.request.Request(
        f"{server.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        found: dict[str, object] = json.load(reply)["choices"][0]
    return found


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_export_says_over_http_what_it_says_here(
    kind: Kind,
    tuned: RunDirectory,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind.needs_gguf and importlib.util.find_spec("gguf") is None:
        pytest.skip("the package gguf, which writes the file, is not installed")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "out"
    export_model(
        tuned, folder, merge=True, dtype="float32", gguf="f16" if kind.needs_gguf else None
    )
    ours = greedy(folder)
    assert ours != greedy("embedded"), "the adapter changes what the model says"
    model = folder / "run-f16.gguf" if kind.needs_gguf else folder
    name = None if kind.needs_gguf else str(folder)
    server = Running(kind._replace(model=name), model, tmp_path / "log")
    server.wait()
    try:
        if kind.dialect != "transformers":  # which has no endpoint for plain text
            assert [ask(server, "completions", prompt=prompt)["text"] for prompt in PROMPTS] == ours
        reply = ask(server, "chat/completions", messages=SAID)["message"]
        assert isinstance(reply, dict) and reply["content"] == ours[0]
    finally:
        server.kill()
