"""However a run is disturbed, it ends equal to an undisturbed one, or in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRIALS = {
    "kills": 3,
    "terms": 2,
    "moves": 1,
    "stops": 4,
    "damages": 10,
    "rank-kills": 2,
    "rank-terms": 1,
}


@pytest.mark.slow
def test_a_disturbed_run_ends_equal_or_in_a_sentence(tmp_path: Path) -> None:
    # A full disk needs a file system of its own, which only root may make.
    wanted = TRIALS | ({"full": 3, "rank-full": 1} if os.geteuid() == 0 else {})
    options = [text for option, n in wanted.items() for text in (f"--{option}", str(n))]
    command = [sys.executable, "-m", "benchmarks.kills", str(tmp_path), *options]
    # In a process of its own: it forks, which a process with threads must not.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in lines]
    assert len(trials) == sum(wanted.values())
    assert [trial for trial in trials if trial["result"] == "fault"] == []
    # Nothing but damage, and a second start with what it left, has a reason to be refused.
    refused = [t for t in trials if t["result"] == "sentence" and t["option"] != "damages"]
    assert refused == []
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (tmp_path / "trials.jsonl").read_text().splitlines() == lines, "goes on from there"
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
