"""What a run prints are its own lines: libraries, in whatever version, say nothing in between."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_libraries_say_nothing_while_a_model_writes_scores_and_is_trained(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.write_score_train", str(tmp_path / "round-0")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
