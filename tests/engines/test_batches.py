"""Laws of asking in batches: each answer is paid for once, whatever is killed and whenever."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.server import batches as module
from selfinstruct_train.engines.server import client
from selfinstruct_train.engines.server.client import RefusedError
from selfinstruct_train.engines.server.engine import ServerEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.records import Sampling
from selfinstruct_train.run.stores import RowStore
from tests.helpers.batch_server import BatchServer, Reply

ROOT = Path(__file__).parents[2]
Start = Callable[..., BatchServer]


def shout(body: dict[str, Any], job: int) -> Reply:
    choice = {"index": 0, "text": body["prompt"].upper(), "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(module, "_FIRST_LOOK", 0.01)
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    monkeypatch.setenv("WRITER_KEY", "sk-secret")
    started: list[BatchServer] = []

    def begin(answer: Callable[[dict[str, Any], int], Reply] = shout) -> BatchServer:
        started.append(BatchServer(answer))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def engine(url: str, folder: Path, say: Any = print, **settings: Any) -> ServerEngine:
    asked = {"api_key_variable": "WRITER_KEY", "max_retries": 2, "server_mode": "batch"} | settings
    config = EngineConfig(base_url=url, **asked)
    return ServerEngine(config, "org/model", 64, None, folder / "batches", say)


def requests(count: int) -> list[Request]:
    return [Request(f"r{i}", f"p{i}", Sampling(max_tokens=8, seed=i)) for i in range(count)]


def ask(url: str, folder: Path, count: int = 6, **settings: Any) -> dict[str, str]:
    """Through the journal, as every stage asks."""
    store = RowStore(folder / "journal.jsonl", StoredCompletion)
    rows = Journal(store, engine(url, folder, **settings)).ask(requests(count), None)
    return {row.id: row.text for row in rows}


def expected(count: int = 6) -> dict[str, str]:
    return {f"r{i}": f"P{i}" for i in range(count)}


def test_a_call_is_one_job_and_is_told_of(start: Start, tmp_path: Path) -> None:
    server = start()
    said: list[str] = []
    given = engine(server.url, tmp_path, said.append)
    found = {c.id: (c.text, c.prompt_tokens) for c in given.generate(requests(6))}
    assert found == {f"r{i}": (f"P{i}", 7) for i in range(6)}
    (job,) = server.jobs
    assert job["endpoint"] == "/v1/completions"
    (first, *_) = server.requests(job)
    assert (first["method"], first["url"]) == ("POST", "/v1/completions")
    assert first["body"]["seed"] == 0 and first["body"]["max_tokens"] == 8
    assert server.keys == {"Bearer sk-secret"}
    assert said[0] == "batch batch0: 6 requests are handed over"
    assert any("in_progress, 1/6" in line for line in said)
    assert any("min left" in line for line in said) or len(said) < 5
    assert said[-1] == "batch batch0: completed"


PROGRAM = """
import os, signal, sys
from pathlib import Path
from selfinstruct_train.engines.server import batches, client
from tests.engines.test_batches import ask
batches._FIRST_LOOK = client._FIRST_WAIT = 0.01
after = int(sys.argv[3])
if after:
    from selfinstruct_train.run.stores import RowStore
    append, count = RowStore.append, [0]
    def counted(self, rows, **settings):
        append(self, rows, **settings)
        count[0] += 1
        if count[0] == after:
            os.kill(os.getpid(), signal.SIGKILL)
    RowStore.append = counted
ask(sys.argv[1], Path(sys.argv[2]))
"""


def killed(server: BatchServer, folder: Path, step: str | None, after: int = 0) -> None:
    """A process that asks and is killed at a step of the server, or after so many answers."""
    arguments = [sys.executable, "-c", PROGRAM, server.url, str(folder), str(after)]
    process = subprocess.Popen(arguments, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})

    def on(reached: str) -> int:
        if reached == step:
            process.kill()
            process.wait()
        return 0

    server.on = on
    assert process.wait(timeout=300) == -signal.SIGKILL
    server.on = lambda reached: 0


@pytest.mark.parametrize(
    ("step", "after"),
    [("upload", 0), ("create", 0), ("state", 0), ("content", 0), (None, 3)],
    ids=["uploaded", "ordered", "waiting", "fetching", "delivering"],
)
def test_a_kill_in_any_state_ends_as_if_undisturbed_and_nothing_is_paid_twice(
    start: Start, tmp_path: Path, step: str | None, after: int
) -> None:
    server = start()
    for _ in range(3):  # of other people, on other pages of the list
        server.order({"input_file_id": server._file("{}"), "completion_window": "24h"})
    others = len(server.jobs)
    killed(server, tmp_path, step, after)
    assert len(server.jobs) - others == (step != "upload")
    for number in range(3) if step == "create" else ():
        server.order({"input_file_id": f"file{number}", "completion_window": "24h"})
    assert ask(server.url, tmp_path) == expected()
    own = [job for job in server.jobs if "endpoint" in job]
    assert len(own) == 1 and len(server.requests(own[0])) == 6


def test_an_order_whose_answer_was_lost_is_found_and_not_repeated(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    lost = iter([502])
    server.on = lambda step: next(lost, 0) if step == "create" else 0
    assert ask(server.url, tmp_path) == expected()
    assert len(server.jobs) == 1


def test_lines_that_failed_for_a_while_go_into_another_job_alone(
    start: Start, tmp_path: Path
) -> None:
    def busy(body: dict[str, Any], job: int) -> Reply:
        if body["prompt"] == "p2" and job < 2:
            return 429, {"error": {"message": "slow down"}}
        return shout(body, job)

    server = start(busy)
    assert ask(server.url, tmp_path) == expected()
    assert [len(server.requests(job)) for job in server.jobs] == [6, 1, 1]


def test_what_a_job_left_out_goes_into_another_until_the_tries_are_used_up(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    server.ends_as, server.left_out = "expired", {"p1"}
    with pytest.raises(EngineError, match=r"a request of a batch failed \(try 3"):
        ask(server.url, tmp_path)
    assert len(server.jobs) == 3
    server.left_out = set()
    assert ask(server.url, tmp_path) == expected(), "later the tries are counted from none"
    assert sorted(server.billed) == sorted([*(f"p{i}" for i in range(6)), "p1", "p1", "p1"])


def test_a_line_that_is_refused_is_told_after_the_others_are_kept(
    start: Start, tmp_path: Path
) -> None:
    def strict(body: dict[str, Any], job: int) -> Reply:
        if body["prompt"] == "p0":
            return 400, {"error": {"message": "seed is not supported"}}
        return shout(body, job)

    server = start(strict)
    with pytest.raises(RefusedError, match="seed is not supported"):
        ask(server.url, tmp_path)
    kept = RowStore(tmp_path / "journal.jsonl", StoredCompletion).read()
    assert {row.id for row in kept} == {f"r{i}" for i in range(1, 6)}
    assert len(server.jobs) == 1


def test_a_job_that_is_refused_as_a_whole_is_one_sentence_and_the_next_start_orders_anew(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    server.ends_as = "failed"
    with pytest.raises(EngineError, match=r"was refused \(Line is no JSON\. \(line 3\)\)"):
        ask(server.url, tmp_path)
    server.ends_as = "completed"
    assert ask(server.url, tmp_path) == expected()
    assert len(server.jobs) == 2


def test_requests_that_are_the_same_are_asked_once_and_answered_each(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    same = [Request(f"r{i}", "p", Sampling(max_tokens=8)) for i in range(3)]
    found = {c.id: c.text for c in engine(server.url, tmp_path).generate(same)}
    assert found == dict.fromkeys(["r0", "r1", "r2"], "P")
    assert server.billed == ["p"]


def test_kinds_are_scored_by_a_job_too_without_trying_out_the_server(
    start: Start, tmp_path: Path
) -> None:
    def likely(body: dict[str, Any], job: int) -> Reply:
        assert body["logprobs"] == 5 and not body.get("echo")
        top = {" Yes": -0.5, " No": -1.5} if "a" in body["prompt"] else {" No": -0.1, " Yes": -3.0}
        logprobs = {"tokens": [" Yes"], "token_logprobs": [-0.5], "top_logprobs": [top]}
        choice = {"text": " Yes", "finish_reason": "length", "logprobs": logprobs}
        return 200, {"choices": [choice]}

    server = start(likely)
    scores = engine(server.url, tmp_path).score("T:", [" a", " b"], [" Yes", " No"])
    assert scores == [[-0.5, -1.5], [-3.0, -0.1]]
    assert len(server.jobs) == 1


def test_a_server_without_batches_is_one_sentence(start: Start, tmp_path: Path) -> None:
    server = start()
    address = server.url.removesuffix("/v1") + "/elsewhere"
    with pytest.raises(EngineError, match="endpoints /files and /batches"):
        ask(address, tmp_path)


def test_jobs_of_another_address_are_left_alone(start: Start, tmp_path: Path) -> None:
    one, other = start(), start()
    assert ask(one.url, tmp_path) == expected()
    (tmp_path / "journal.jsonl").unlink()
    assert ask(other.url, tmp_path) == expected()
    assert len(one.jobs) == len(other.jobs) == 1
    (tmp_path / "journal.jsonl").unlink()
    assert ask(one.url, tmp_path) == expected()
    assert len(one.jobs) == 1, "answers that are kept are not paid for again"


def test_a_damaged_file_of_answers_is_named_with_the_fix(start: Start, tmp_path: Path) -> None:
    server = start()
    ask(server.url, tmp_path)
    (tmp_path / "journal.jsonl").unlink()
    (answers,) = (tmp_path / "batches").glob("*.jsonl")
    answers.write_text(json.dumps({"custom_id": 5}) + "\n")
    with pytest.raises(EngineError, match=f"{answers.name}.*delete the file to fetch it again"):
        ask(server.url, tmp_path)
    answers.unlink()
    assert ask(server.url, tmp_path) == expected()
    assert len(server.jobs) == 1


def test_a_batch_goes_to_one_server() -> None:
    with pytest.raises(ValueError, match="a batch is handed to one"):
        EngineConfig(base_urls=("http://a/v1",), server_mode="batch")
