import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import Instance, Sampling
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore, write_atomically

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def rows(*outputs: str) -> list[Instance]:
    return [Instance(output=output) for output in outputs]


def test_a_resumed_stage_writes_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowStore(path, Instance).emit(rows("a", "b"))
    before = path.stat().st_size
    again = RowStore(path, Instance)
    again.emit(rows("a"))
    again.emit(rows("b"))
    assert path.stat().st_size == before
    again.emit(rows("c"))
    assert [row.output for row in RowStore(path, Instance).read()] == ["a", "b", "c"]


def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    RowStore(whole, Instance).emit(rows("a", "b", "cd"))
    data = whole.read_bytes()
    for length in range(len(data)):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(data[:length])
        RowStore(torn, Instance).emit(rows("a", "b", "cd"))
        assert torn.read_bytes() == data


def test_a_run_that_would_write_something_else_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowStore(path, Instance).emit(rows("a"))
    with pytest.raises(RunError, match="line 1"):
        RowStore(path, Instance).emit(rows("b"))
    assert len(path.read_text().splitlines()) == 1


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"output": "a"}\n{"output": 1}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2"):
        RowStore(path, Instance).read()


def test_a_second_process_reads_but_never_writes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowStore(path, Instance, writable=False).emit(rows("a"))
    assert not path.exists()
    path.write_text('{"input":"","output":"a"}\n{"torn')
    RowStore(path, Instance, writable=False).emit(rows("a", "b"))
    assert path.read_text().endswith('{"torn')


def test_lines_hold_any_text_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = "a\nb\u2028c\u0085d\x1ce"
    RowStore(path, Instance).emit(rows(text))
    assert [row.output for row in RowStore(path, Instance).read()] == [text]
    RowStore(path, Instance).emit(rows(text))
    assert path.read_bytes().count(b"\n") == 1


def test_resume_passes_over_whole_batches_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowStore(path, Instance).emit(rows("a", "b", "c"))
    store = RowStore(path, Instance)
    assert store.resume(2) == 2
    store.emit(rows("c", "d"))
    assert [row.output for row in store.read()] == ["a", "b", "c", "d"]


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "rows.jsonl"
    link.symlink_to(full)
    store = RowStore(tmp_path / "none.jsonl", Instance)
    store.path = link
    with pytest.raises(RunError, match="No space left"):
        store.emit(rows("a"))


def test_a_mark_is_there_only_when_the_stage_is_done(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path).round(0)
    assert directory.mark("train") is None
    directory.finish("train", 1.5, steps=3)
    mark = directory.mark("train")
    assert mark is not None and mark.figures == {"steps": 3} and mark.seconds == 1.5
    assert [p.name for p in (directory.path / "done").iterdir()] == ["train.json"]


def test_an_atomic_write_never_leaves_a_half(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_run_takes_other_settings_until_a_stage_depends_on_them(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, output_dir=tmp_path / "run")
    run = RunDirectory(config.output_dir)
    run.open(config)
    other = load_config(QUICKSTART, ["training.lora_r=4"], tmp_path / "run")
    run.open(other)
    run.round(0).finish("train", 1.0, steps=1)
    with pytest.raises(RunError, match=r"training\.lora_r: 4 -> .*--redo train"):
        run.open(config)
    run.open(load_config(QUICKSTART, ["training.lora_r=4", "rounds=5"], tmp_path / "run"))
    assert run.config().rounds == 5


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    config = load_config(QUICKSTART, output_dir=tmp_path)
    with pytest.raises(RunError, match="holds files but no run"):
        RunDirectory(tmp_path).open(config)
    with pytest.raises(RunError, match="not a run directory"):
        RunDirectory(tmp_path).config()


def test_a_stage_with_nothing_to_say_leaves_an_empty_file(tmp_path: Path) -> None:
    RowStore(tmp_path / "rows.jsonl", Instance).emit([])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files as they were seen on the disk, in order."""
    sizes: list[int] = []
    monkeypatch.setattr("os.fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    return sizes


def test_a_batch_of_rows_waits_for_the_disk_once(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "rows.jsonl"
    RowStore(path, Instance).emit(rows(*map(str, range(10_000))))
    assert synced == [path.stat().st_size]


def test_rows_that_need_not_wait_are_synced_now_and_then_and_on_demand(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "rows.jsonl", [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    store = RowStore(path, Instance)
    for number in range(100):
        clock[0] = number / 50
        store.append(rows(str(number)), sync=False)
    assert 1 <= len(synced) <= 4
    store.sync()
    assert synced[-1] == path.stat().st_size


def test_a_kill_loses_no_row_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from selfinstruct_train.records import Instance; "
        "from selfinstruct_train.run.stores import RowStore; "
        "store = RowStore(Path(sys.argv[1]), Instance); "
        "[store.append([Instance(output=str(n))], sync=False) for n in range(500)]; "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert [row.output for row in RowStore(path, Instance).stream()] == [*map(str, range(500))]


def test_a_store_does_not_hold_its_file_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    written = rows(*(f"{n:02000}" for n in range(5_000)))
    RowStore(path, Instance).emit(written)
    tracemalloc.start()
    store = RowStore(path, Instance)
    store.emit(written[:3_000])
    assert sum(1 for _ in store.stream()) == 5_000
    store.emit(written[3_000:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 10


def test_after_a_failed_write_the_half_line_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    store = RowStore(path, Instance)
    store.emit(rows("a"))

    def full(path: Path, data: bytes, **options: bool) -> None:
        with path.open("ab") as file:
            file.write(data[:5])
        raise RunError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("selfinstruct_train.run.stores.append_bytes", full)
        with pytest.raises(RunError, match="full"):
            store.emit(rows("b"))
    store.emit(rows("c"))
    assert [row.output for row in store.read()] == ["a", "c"]


def test_replies_that_came_one_by_one_are_on_the_disk_before_the_stage_goes_on(
    tmp_path: Path, synced: list[int]
) -> None:
    path = tmp_path / "completions.jsonl"
    engine = ScriptedEngine(lambda request, _: ScriptedAnswer("x"), independent_requests=True)
    asked = [Request(str(n), "say x", Sampling(max_tokens=1)) for n in range(200)]
    Journal(RowStore(path, StoredCompletion), engine).ask(asked, None)
    assert synced[-1] == path.stat().st_size
    assert len(synced) < 20


def test_stored_completions_are_found_again_and_their_texts_stay_on_the_disk(
    tmp_path: Path,
) -> None:
    path = tmp_path / "completions.jsonl"
    engine = ScriptedEngine(lambda request, _: ScriptedAnswer(f"{request.id} " * 400))
    asked = [Request(str(n), "say x", Sampling(max_tokens=1)) for n in range(1_000)]
    first = Journal(RowStore(path, StoredCompletion), engine).ask(asked, None)
    engine.asked.clear()
    tracemalloc.start()
    again = Journal(RowStore(path, StoredCompletion), engine)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500_000 < path.stat().st_size
    assert again.ask(asked, None) == first
    assert engine.asked == []
