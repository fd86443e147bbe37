"""What a run says of the machine and the code that made it."""

import subprocess
from pathlib import Path

from selfinstruct_train.run.machine import commit, memory_gib, processor


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_a_checkout_is_named_and_so_is_that_files_were_changed(
    tmp_path: Path,
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    assert commit(package) is None
    git(tmp_path, "init")
    assert commit(package) is None
    (package / "code.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(package) == head
    (package / "code.py").write_text("2\n")
    assert commit(package) == f"{head} with uncommitted changes"


def test_what_the_system_does_not_say_is_unknown_and_no_error() -> None:
    assert processor() is None or processor()
    found = memory_gib()
    assert found is None or found > 0
