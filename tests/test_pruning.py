"""Rows that are taken out of a run are read by nothing, and what was made of them is said."""

import json
from pathlib import Path

import pytest

from selfinstruct_train.cli import app
from selfinstruct_train.config import Config
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.records import GeneratedInstance, Instruction, Provenance, Sampling
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.pruning import descendants, prune, read_list
from selfinstruct_train.run.rows import LiveRows, Pruned
from selfinstruct_train.run.stores import RowStore

WRITTEN = (
    # (round, id, what its prompt showed)
    (0, "a", ("seed_1", "seed_2")),
    (0, "b", ("seed_2", "a")),
    (0, "c", ("seed_3",)),
    (1, "d", ("b", "seed_3")),
    (1, "e", ("c",)),
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two rounds, both trained, the first one evaluated."""
    found = RunDirectory(tmp_path / "a run")
    config = Config.model_validate(
        {
            "model": {"name_or_path": "embedded"},
            "seeds": {"path": "microworld-seeds"},
            "evaluation": {"suites": ["microworld"]},
            "rounds": 2,
            "output_dir": str(found.path),
        }
    )
    found.open(config)
    for number, id, shown in WRITTEN:
        provenance = Provenance(
            round=number,
            request="r",
            demonstrations=shown,
            sampling=Sampling(max_tokens=1),
            model="m",
            prompt_hash="0",
        )
        directory = found.round(number)
        RowStore(directory.instructions, Instruction).append(
            [Instruction(id=id, instruction=f"Do {id}.", provenance=provenance)]
        )
        RowStore(directory.instances, GeneratedInstance).append(
            GeneratedInstance(
                id=f"{id}-{i}",
                instruction_id=id,
                instruction=f"Do {id}.",
                input="",
                output=f"{i}",
                is_classification=False,
                provenance=provenance,
            )
            for i in range(2)
        )
    for number, stages in enumerate((("instances", "train", "evaluate"), ("instances", "train"))):
        for stage in stages:
            found.round(number).finish(stage, 1.0)
    return found


def live(run: RunDirectory) -> list[str]:
    return [row.id for row in LiveRows(run).instances(2)]


def test_an_instruction_takes_its_instances_along_and_the_files_stay(run: RunDirectory) -> None:
    before = run.round(0).instances.read_bytes()
    done = prune(run, [Pruned(id="a", reason="bad"), Pruned(id="c-1", reason="worse")])
    assert (done.pruned, done.before, done.instances) == (2, 0, 3)
    assert live(run) == ["b-0", "b-1", "c-0", "d-0", "d-1", "e-0", "e-1"]
    assert run.round(0).instances.read_bytes() == before
    assert [json.loads(line) for line in run.pruned.read_text().splitlines()] == [
        {"id": "a", "reason": "bad"},
        {"id": "c-1", "reason": "worse"},
    ]


def test_what_was_made_of_the_rows_is_said_round_by_round(run: RunDirectory) -> None:
    assert prune(run, [Pruned(id="a")]).stale == ("round 0: train, evaluate", "round 1: train")
    again = prune(run, [Pruned(id="a"), Pruned(id="a")])
    assert again == (0, 1, 0, ())
    assert len(run.pruned.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("ancestor", "found"),
    [
        ("a", ["a", "b", "d"]),
        ("c", ["c", "e"]),
        ("e", ["e"]),
        ("c-0", ["c-0"]),
        ("seed_2", ["a", "b", "d"]),
        ("seed_3", ["c", "d", "e"]),
    ],
)
def test_descendants_are_found_over_rounds_and_a_seed_is_none_of_its_own(
    run: RunDirectory, ancestor: str, found: list[str]
) -> None:
    rows = descendants(run, ancestor, "why")
    assert [row.id for row in rows] == found
    assert {row.reason for row in rows} == {"why"}


def test_an_id_of_no_row_prunes_nothing(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"1 of 2 ids are of no row .*: zz; take ids from"):
        prune(run, [Pruned(id="a"), Pruned(id="zz")])
    with pytest.raises(RunError, match="no row has the id 'zz'"):
        descendants(run, "zz", "")
    assert not run.pruned.exists()


def test_a_list_is_ids_or_rows_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('\ufeffa\r\n\n {"id": "b", "reason": "wrong"}\n{"id": "c"}\n', "utf-8")
    assert read_list(file, "by hand") == [
        Pruned(id="a", reason="by hand"),
        Pruned(id="b", reason="wrong"),
        Pruned(id="c", reason="by hand"),
    ]
    for text, said in (("", "names no row"), ('a\n{"ID": 1}\n', "line 2"), ("{\n", "line 1")):
        file.write_text(text)
        with pytest.raises(DataError, match=said):
            read_list(file, "")
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "none", "")


def test_the_command_says_what_to_do_next(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["selfinstruct", "prune", str(run.path), *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out + err

    code, said = call()
    assert code == 2 and "name rows by --ids ID …, --descendants-of ID or --from FILE" in said
    code, said = call("--ids", "e", "c-0")
    assert code == 0 and said.splitlines() == [
        f"pruned: 2 rows; training rows that are live no more: 3; see {run.pruned}",
        "made of these rows, to be made again: round 0: train, evaluate",
        "made of these rows, to be made again: round 1: train",
        f"selfinstruct run '{run.config_file}' --redo train",
    ]
    assert call("--descendants-of", "a")[0] == 0
    assert live(run) == ["c-1"]
