"""Known data sets: fetched whole and right, or not at all, with a way out in the message."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from selfinstruct_train.errors import DataError
from selfinstruct_train.sources.fetch import describe_sources, identify, pull, pull_source, resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.sources.registry import SOURCES, Source, SourceFile, find_source

GOOD = b'{"id": "a"}\n' * 9000
HASH = hashlib.sha256(GOOD).hexdigest()


class Handler(BaseHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path.endswith("missing.jsonl"):
            self.send_error(404)
            return
        body = b"changed\n" if self.path.endswith("changed.jsonl") else GOOD
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:70_000] if self.path.endswith("torn.jsonl") else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[tuple[str, list[str]]]:
    """Address of a loopback server, and the paths that it was asked for."""
    requests: list[str] = []
    handler = type("Logged", (Handler,), {"requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def official() -> Path:
    """The official files, where the optional material is at hand."""
    beside = Path(__file__).parents[1].parent / "shared"
    folder = Path(os.environ.get("SELFINSTRUCT_MATERIAL", beside)) / "official"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; name a folder with it in SELFINSTRUCT_MATERIAL")
    return folder


def source(address: str, *names: str, sha256: str | None = HASH) -> Source:
    files = tuple(SourceFile(name, f"{address}/{name}", sha256) for name in names)
    return Source("things", "seeds", "for tests", files, is_folder=len(files) > 1)


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_file_with_the_right_hash_is_kept_and_not_fetched_twice(
    served: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, requests = served
    path = pull_source(source(address, "good.jsonl"), cache=tmp_path)
    assert path.read_bytes() == GOOD
    assert pull_source(source(address, "good.jsonl"), cache=tmp_path) == path
    assert requests == ["/good.jsonl"]
    assert left_over(tmp_path) == ["good.jsonl"]


def test_a_kept_file_that_was_damaged_is_fetched_again(
    served: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, requests = served
    path = pull_source(source(address, "good.jsonl"), cache=tmp_path)
    path.write_bytes(b"damaged")
    pull_source(source(address, "good.jsonl"), cache=tmp_path)
    assert path.read_bytes() == GOOD
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("changed.jsonl", "sha256"),
        ("missing.jsonl", "404"),
        ("torn.jsonl", f"broke off after 70000 of {len(GOOD)} bytes"),
    ],
)
def test_a_failed_fetch_names_the_way_out_and_leaves_nothing(
    served: tuple[str, list[str]], tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        pull_source(source(served[0], name), cache=tmp_path)
    assert "selfinstruct data pull things --from PATH" in str(caught.value)
    assert left_over(tmp_path) == []


def test_a_torn_fetch_is_seen_without_a_hash_too(
    served: tuple[str, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="broke off"):
        pull_source(source(served[0], "torn.jsonl", sha256=None), cache=tmp_path)


def test_an_unreachable_server_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched.*--from PATH"):
        pull_source(source("http://127.0.0.1:9", "good.jsonl"), cache=tmp_path)


def test_another_address_or_a_local_file_or_folder_serves_as_well(
    served: tuple[str, list[str]], tmp_path: Path
) -> None:
    wanted = source("http://127.0.0.1:9", "good.jsonl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "good.jsonl").write_bytes(GOOD)
    origins = (f"{served[0]}/copy.jsonl", tmp_path / "mine" / "good.jsonl", tmp_path / "mine")
    for number, origin in enumerate(origins):
        path = pull_source(wanted, str(origin), tmp_path / str(number))
        assert path.read_bytes() == GOOD


def test_a_local_file_that_is_not_the_official_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b"changed\n")
    with pytest.raises(DataError, match="by its path"):
        pull_source(
            source("http://127.0.0.1:9", "good.jsonl"),
            str(tmp_path / "mine.jsonl"),
            tmp_path / "cache",
        )
    with pytest.raises(DataError, match="cannot be read"):
        pull("self-instruct-seeds", str(tmp_path / "none.jsonl"), tmp_path / "cache")


def test_several_files_come_as_a_folder_and_a_local_folder_may_hold_some(
    served: tuple[str, list[str]], tmp_path: Path
) -> None:
    wanted = source(served[0], "a.jsonl", "b.jsonl")
    assert left_over(pull_source(wanted, cache=tmp_path / "all")) == ["a.jsonl", "b.jsonl"]
    from_base = pull_source(wanted, f"{served[0]}/mirror/", tmp_path / "base")
    assert left_over(from_base) == ["a.jsonl", "b.jsonl"]
    assert served[1][-1] == "/mirror/b.jsonl"
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="holds no file of 'things'"):
        pull_source(wanted, str(tmp_path / "mine"), tmp_path / "some")
    (tmp_path / "mine" / "b.jsonl").write_bytes(GOOD)
    some = pull_source(wanted, str(tmp_path / "mine"), tmp_path / "some")
    assert left_over(some) == ["b.jsonl"]
    with pytest.raises(DataError, match="name a folder"):
        pull_source(wanted, str(tmp_path / "mine" / "b.jsonl"), tmp_path / "some")


def test_a_path_comes_before_a_name_and_own_data_need_no_pull(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("x")
    assert resolve(str(mine), tmp_path) == mine
    assert len(read_seed_tasks(resolve("microworld-seeds", tmp_path))) == 175
    assert pull("microworld") == resolve("microworld")
    found = identify(resolve("microworld-dev"))
    assert found is not None and found.name == "microworld-dev"
    assert identify(mine) is None


def test_what_cannot_be_resolved_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="selfinstruct data pull user-oriented-252"):
        resolve("user-oriented-252", tmp_path)
    with pytest.raises(DataError, match="did you mean 'microworld-seeds'"):
        resolve("microworld-seed", tmp_path)
    with pytest.raises(DataError, match="no such file"):
        resolve(str(tmp_path / "none.jsonl"), tmp_path)


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path))
    target = tmp_path / "user-oriented-252" / "user_oriented_instructions.jsonl"
    target.parent.mkdir()
    target.write_text("x")
    assert resolve("user-oriented-252") == target


def test_every_known_data_set_is_listed_with_its_state(tmp_path: Path) -> None:
    lines = describe_sources(tmp_path)
    assert [line.split()[0] for line in lines] == [known.name for known in SOURCES]
    assert "not pulled" in lines[0]
    assert "never trained on" in lines[1]
    folder = tmp_path / "published-predictions"
    folder.mkdir()
    (folder / "davinci_predictions.jsonl").write_text("x")
    assert "1 of 8" in describe_sources(tmp_path)[2]


def test_official_files_are_pinned_by_commit_and_hash_or_say_that_they_are_not() -> None:
    for known in SOURCES:
        for file in known.files:
            if "huggingface.co" in file.url:
                assert file.sha256 is not None or "not pinned" in known.note
                continue
            assert "0b26ccaa415992100fa32df62d41b994cf928e23" in file.url
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
    assert all(
        f.sha256 for n in ("self-instruct-seeds", "user-oriented-252") for f in find_source(n).files
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("self-instruct-seeds", "seed_tasks.jsonl"),
        ("user-oriented-252", "user_oriented_instructions.jsonl"),
        ("published-predictions", "predictions"),
    ],
)
def test_the_official_files_are_what_the_table_says(
    official: Path, tmp_path: Path, name: str, file: str
) -> None:
    assert pull(name, str(official / file), tmp_path) == resolve(name, tmp_path)
