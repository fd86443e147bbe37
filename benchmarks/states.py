"""What stands on the disk before each operation on a file of a run: what a kill there leaves.

The states of one undisturbed run are kept, each different content of a file once, instead of
stopping another run before each operation.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_CHANGES = {
    "open": None,
    "os.rename": 2,
    "os.remove": 1,
    "os.truncate": None,
    "os.mkdir": 2,
    "os.rmdir": 1,
}
"""Audit events that change files, and which argument is the folder that a name is relative to."""
_NO_MATTER = frozenset(("run.log", "run.lock", "run.lock.tmp"))
"""Change with every breath of a run; a state in which nothing else is new is no other state."""


class States:
    """An audit hook for a run, and the states that it left."""

    def __init__(self, run: Path, folder: Path) -> None:
        self._run = run
        self._contents = folder / "contents"
        self._contents.mkdir(parents=True, exist_ok=True)
        self._list = folder / "states.jsonl"
        self._list.unlink(missing_ok=True)
        self._before: dict[str, str] | None = None
        self._one_at_a_time = threading.Lock()

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep the state before an operation that changes a file of the run."""
        if event not in _CHANGES or not self._is_within(event, arguments):
            return
        with self._one_at_a_time:
            state = dict(self._read())
            known = {name: digest for name, digest in state.items() if name not in _NO_MATTER}
            if known == self._before:
                return
            self._before = known
            with self._list.open("a", encoding="utf-8") as file:
                file.write(json.dumps(state) + "\n")

    def __len__(self) -> int:
        """How many different states there were."""
        return len(self._list.read_text("utf-8").splitlines())

    def restore(self, number: int) -> None:
        """Put a state into the run's place, which is empty."""
        state = json.loads(self._list.read_text("utf-8").splitlines()[number])
        for name, digest in state.items():
            path = self._run / name
            if digest is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((self._contents / digest).read_bytes())

    def _is_within(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return False
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return False
        name = os.fsdecode(arguments[0])
        place = _CHANGES[event]
        if place is not None and not os.path.isabs(name) and arguments[place] >= 0:
            with suppress(OSError):
                name = os.path.join(os.readlink(f"/proc/self/fd/{arguments[place]}"), name)
        return name.startswith(str(self._run))

    def _read(self) -> Iterator[tuple[str, str | None]]:
        """The name of each folder and file, and the digest of a file's content."""
        for folder, _, names in os.walk(self._run):
            yield os.path.relpath(folder, self._run), None
            for name in sorted(names):
                path = Path(folder) / name
                with suppress(FileNotFoundError):  # another thread's scratch file
                    content = path.read_bytes()
                    digest = hashlib.sha256(content).hexdigest()
                    if not (kept := self._contents / digest).exists():
                        kept.write_bytes(content)
                    yield str(path.relative_to(self._run)), digest
