"""Attributes, operations, groups, labels, fixed answers: the same on one and two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from selfinstruct_train.records import Instruction
from selfinstruct_train.run.directory import RoundDirectory
from tests.generation.test_generate import ROOT, contents
from tests.helpers.steer_on_processes import write


def test_two_processes_write_the_steered_round_that_one_writes(tmp_path: Path) -> None:
    alone = write(tmp_path / "one").round(0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    meeting |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).parents[1] / "helpers" / "steer_on_processes.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "two")],
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    together = RoundDirectory(tmp_path / "two" / "run" / "round-0")
    assert contents(together) == contents(alone)
    # All of it took part.
    rows = alone.store(alone.instructions, Instruction).read()
    assert any(row.provenance.operation for row in rows)
    assert any(row.provenance.attributes for row in rows)
    assert any(row.category for row in rows)
    assert alone.labels.exists()
    assert any("-fix-" in line for line in alone.completions("instances").read_text().splitlines())
