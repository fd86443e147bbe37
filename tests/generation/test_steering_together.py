"""Attributes, operations, groups, labels, fixed answers: the same on one and two processes."""

from pathlib import Path

from selfinstruct_train.records import Instruction
from selfinstruct_train.run.directory import RoundDirectory
from tests.generation.test_generate import contents
from tests.helpers.processes import run_on_two
from tests.helpers.steer_on_processes import write


def test_two_processes_write_the_steered_round_that_one_writes(tmp_path: Path) -> None:
    alone = write(tmp_path / "one").round(0)
    run_on_two("steer_on_processes.py", str(tmp_path / "two"))
    together = RoundDirectory(tmp_path / "two" / "run" / "round-0")
    assert contents(together) == contents(alone)
    # All of it took part.
    rows = alone.store(alone.instructions, Instruction).read()
    assert any(row.provenance.operation for row in rows)
    assert any(row.provenance.attributes for row in rows)
    assert any(row.category for row in rows)
    assert alone.labels.exists()
    assert any("-fix-" in line for line in alone.completions("instances").read_text().splitlines())
