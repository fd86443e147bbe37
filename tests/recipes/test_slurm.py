"""The recipe for Slurm: told to stop, it lets the program end in good order and asks to go on."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parent.parent.parent / "recipes/slurm.sh"
PROGRAM = """#!/bin/bash
echo "$@" >> "$FOLDER/begun"
trap 'sleep 0.3; echo saved >> "$FOLDER/saved"; exit 143' TERM
[ -e "$FOLDER/saved" ] && exit 0
echo ready
while true; do sleep 0.05; done
"""
QUEUE = '#!/bin/bash\necho "$@" >> "$FOLDER/queue"\n'


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_job_that_is_told_to_stop_is_requeued_and_goes_on(tmp_path: Path) -> None:
    for name, text in {"selfinstruct": PROGRAM, "scontrol": QUEUE}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "FOLDER": str(tmp_path),
        "SLURM_JOB_ID": "7",
    }

    def submit() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(RECIPE), "c.yaml", "rounds=3"],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            text=True,
        )

    job = submit()
    assert job.stdout is not None and job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 143
    assert (tmp_path / "saved").read_text() == "saved\n", "the program was waited for"
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    again = submit()
    again.communicate(timeout=30)
    assert again.returncode == 0
    assert (tmp_path / "begun").read_text() == "run c.yaml rounds=3\n" * 2
    assert (tmp_path / "queue").read_text() == "requeue 7\n", "a finished job is not"
