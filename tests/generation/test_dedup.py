import gzip
import json
import os
from itertools import islice
from pathlib import Path

import pytest

from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.generation.dedup import DedupRow, dedup

KNOWN = "Write a poem about the sea."
COPY = "Write a poem about the lake."
FRESH = "Sort these numbers from small to large."


def write(path: Path, *lines: str) -> Path:
    text = "".join(line + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def as_json(*texts: str) -> list[str]:
    return [json.dumps({"id": str(i), "instruction": text}) for i, text in enumerate(texts)]


def run(pool: Path, *candidates: Path, threshold: float = 0.7) -> list[DedupRow]:
    return list(dedup([pool], candidates, threshold, "rouge"))


def test_a_row_says_what_became_of_a_candidate_and_what_it_resembles(tmp_path: Path) -> None:
    rows = run(write(tmp_path / "pool.txt", KNOWN), write(tmp_path / "new.txt", COPY, FRESH))
    assert [row.model_dump() for row in rows] == [
        {"text": COPY, "accepted": False, "score": 10 / 12, "nearest": KNOWN},
        {"text": FRESH, "accepted": True, "score": 0.0, "nearest": KNOWN},
    ]
    assert list(json.loads(rows[0].model_dump_json())) == ["text", "accepted", "score", "nearest"]


@pytest.mark.parametrize("name", ["new.txt", "new.txt.gz", "new.jsonl", "new.jsonl.gz", "new"])
def test_every_form_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    pool = write(tmp_path / "pool.txt", KNOWN)
    plain = run(pool, write(tmp_path / "plain.txt", COPY, "", FRESH, FRESH))
    lines = (COPY, FRESH, FRESH)
    other = write(tmp_path / name, *(as_json(*lines) if "jsonl" in name else lines))
    assert run(pool, other) == plain
    assert [row.accepted for row in plain] == [False, True, False]


def test_candidates_that_are_new_join_for_those_after_them_across_files(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.txt", FRESH)
    rows = run(pool, write(tmp_path / "a.txt", KNOWN), write(tmp_path / "b.jsonl", *as_json(COPY)))
    assert [(row.accepted, row.nearest) for row in rows] == [(True, FRESH), (False, KNOWN)]


def test_an_empty_pool_resembles_nothing(tmp_path: Path) -> None:
    rows = run(write(tmp_path / "pool.txt"), write(tmp_path / "new.txt", KNOWN))
    assert rows == [DedupRow(text=KNOWN, accepted=True, score=0.0, nearest=None)]


def test_the_threshold_is_the_highest_score_that_is_new(tmp_path: Path) -> None:
    pool, new = write(tmp_path / "pool.txt", "a b c d"), write(tmp_path / "new.txt", "a b x y")
    assert run(pool, new, threshold=0.5)[0].accepted
    assert not run(pool, new, threshold=0.49)[0].accepted


def test_rows_come_while_candidates_are_still_being_written(tmp_path: Path) -> None:
    pipe = tmp_path / "candidates"
    os.mkfifo(pipe)
    rows = dedup([write(tmp_path / "pool.txt", KNOWN)], [pipe], 0.7, "rouge")
    # Open for both ends, so that neither the reader nor the writer waits for the other.
    with open(os.open(pipe, os.O_RDWR), "w", buffering=1) as writer:
        for number in range(1000):
            writer.write(f"candidate {number}\n")
        seen = list(islice(rows, 64))
        rows.close()
    assert [row.text for row in seen] == [f"candidate {number}" for number in range(64)]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("x.jsonl", '{"instruction": "a b"}\nnope\n', "line 2: not JSON"),
        ("x.jsonl", '{"instruction": "a b"}\n\n{"text": "c"}\n', "line 3: no 'instruction'"),
        ("x.jsonl", '["a"]\n', "line 1: no 'instruction'"),
        ("x.jsonl", '{"instruction": 7}\n', "line 1: no 'instruction'"),
        ("x.json", '[{"instruction": "a b"}]\n', "one document"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str, fault: str
) -> None:
    pool = write(tmp_path / "pool.txt", KNOWN)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=fault) as caught:
        run(pool, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_bad_threshold_are_the_users_faults(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.txt", KNOWN)
    with pytest.raises(DataError, match="no such file"):
        run(pool, tmp_path / "absent.txt")
    with pytest.raises(ConfigError, match="from 0 to 1"):
        run(pool, pool, threshold=2.0)
