"""However a run is disturbed, it ends equal to an undisturbed one, or in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRIALS = {
    "kills": 2,
    "terms": 1,
    "moves": 1,
    "stops": 2,
    "damages": 4,
    "rank-kills": 1,
    "rank-terms": 1,
}


def may_mount(folder: Path) -> bool:
    """A full disk needs a file system of its own; root may make one, not in every container."""
    if os.geteuid() != 0:
        return False
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
    return mounted.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


@pytest.mark.slow
def test_a_disturbed_run_ends_equal_or_in_a_sentence(tmp_path: Path) -> None:
    wanted = TRIALS | ({"full": 1, "rank-full": 1} if may_mount(tmp_path) else {})
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
