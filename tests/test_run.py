from pathlib import Path

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.errors import ConfigError, DataError, RunError
from selfinstruct_train.records import Instance
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


def test_a_run_begun_with_other_settings_is_not_touched(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, output_dir=tmp_path / "run")
    run = RunDirectory(config.output_dir)
    run.open(config)
    other = load_config(QUICKSTART, ["training.lora_r=4"], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"training\.lora_r"):
        run.open(other)
    run.open(load_config(QUICKSTART, ["rounds=5"], tmp_path / "run"))
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
