import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from selfinstruct_train.run.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


class Client:
    """Asks one server, with any headers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.base = parts.netloc, parts.path

    def ask(
        self, path: str, sent: object = None, base: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        body = None if sent is None else json.dumps(sent)
        known = {"Host": self.host} | ({"Content-Type": "application/json"} if body else {})
        address = (self.base if base is None else base) + path
        connection.request("POST" if body else "GET", address, body, known | headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, text


def test_only_who_has_the_address_is_answered_and_every_reply_is_safe(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]]
) -> None:
    _, url = serve(make_run())
    client = Client(url)
    assert client.host.startswith("127.0.0.1:")
    for status, path, base, headers in (
        (200, "", None, {}),
        (200, "api/start", None, {"Origin": f"http://{client.host}"}),
        (404, "", "/", {}),
        (404, "api/start", "/wrong/", {}),
        (404, "api/start", "/", {}),
        (404, "", None, {"Host": "evil.example"}),
        (404, "", None, {"Host": client.host + ".evil.example"}),
        (404, "api/start", None, {"Origin": "http://evil.example"}),
        (404, "../server.py", None, {}),
    ):
        got, sent, _ = client.ask(path, base=base, **headers)
        assert got == status, (path, base, headers)
        assert "default-src 'none'" in sent["content-security-policy"]
        assert sent["referrer-policy"] == "no-referrer"


def test_what_is_sent_is_checked_and_nothing_is_written(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]]
) -> None:
    run = make_run()
    _, url = serve(run)
    client = Client(url)
    question = json.loads(client.ask("api/question?rater=ann")[2])
    good = {
        "rater": "ann",
        "question": question["id"],
        "answer": question["answers"][0]["id"],
        "grade": "A",
        "comment": "",
    }
    for change in (
        {"grade": "E"},
        {"rater": " "},
        {"question": "0"},
        {"answer": "0"},
        {"comment": "x" * 4001},
        {"comment": "x" * 70_000},
        {"system": "tuned"},
    ):
        assert client.ask("api/rate", good | change)[0] == 400, change
    plain = {"Content-Type": "text/plain"}
    assert client.ask("api/rate", good, **plain)[0] == 400
    assert not (run.path / "ratings.jsonl").exists()


def test_the_page_is_not_told_which_model_answered(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]]
) -> None:
    _, url = serve(make_run())
    text = Client(url).ask("api/question?rater=ann")[2]
    assert not {"tuned", "seeds-only", "base"} & set(text.replace('"', " ").split())
    assert {*json.loads(text)["answers"][0]} == {"id", "text", "grade", "comment"}


def test_a_kill_right_after_the_reply_loses_no_grade(
    make_run: MakeRun, serve: Callable[..., tuple[subprocess.Popen[str], str]]
) -> None:
    run = make_run()
    process, url = serve(run)
    client = Client(url)
    question = json.loads(client.ask("api/question?rater=ann")[2])
    sent = {"rater": "ann", "question": question["id"], "grade": "B", "comment": "fine"}
    assert client.ask("api/rate", sent | {"answer": question["answers"][1]["id"]})[0] == 200
    process.kill()
    process.wait()
    # Half a line, as a kill in the middle of a write leaves it.
    with (run.path / "ratings.jsonl").open("a") as file:
        file.write('{"act": "ra')
    client = Client(serve(run)[1])
    again = json.loads(client.ask(f"api/question?rater=ann&index={question['index']}")[2])
    assert [(a["grade"], a["comment"]) for a in again["answers"]] == [
        (None, ""),
        ("B", "fine"),
        (None, ""),
    ]
    assert client.ask("api/rate", sent | {"answer": question["answers"][0]["id"]})[0] == 200
    assert len((run.path / "ratings.jsonl").read_text("utf-8").splitlines()) == 2


def test_without_the_extra_the_command_names_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from selfinstruct_train.cli.program import guard\n"
        "def program():\n    import selfinstruct_train.rating.server\n"
        "guard(program)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "pip install 'selfinstruct-train[rate]'" in done.stderr


def test_a_port_that_is_taken_is_said_in_one_sentence(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]]
) -> None:
    from selfinstruct_train.errors import RunError
    from selfinstruct_train.rating.server import rate

    run = make_run()
    port = urlsplit(serve(run)[1]).port
    assert port is not None
    with pytest.raises(RunError, match="--port 0"):
        rate(run, port, None)
