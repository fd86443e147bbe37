"""Kills a small run of two rounds wherever it can be killed, and damages every file that it leaves.

Run ``python -m benchmarks.kills FOLDER [--stops N] [--kills N] [--damages N] [--seed N]``. Each
trial ends in one of three ways: ``equal`` (all files as an undisturbed run leaves them, times
aside), ``sentence`` (exit code 2 and one line that names what is wrong), or ``fault``. A process
that has imported everything forks for each start, so a start costs no imports.

- stops: the process ends at once before its k-th operation on a file of the run, for k spread
  evenly over all; the run is then started again.
- kills: SIGKILL at a random moment; likewise.
- damages: a file of the finished run is removed, emptied, cut, flipped by a bit or doubled, and the
  run is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_SMALL = (
    *("rounds=2", "model.threads=1", "evaluation.seeds_only_epochs=[]"),
    *("generation.instructions_per_round=3", "generation.instructions.requests_per_batch=1"),
    *("generation.instructions.max_tokens=120", "generation.instances.max_tokens=60"),
    *("generation.classification.requests_per_batch=4", "generation.instances.demonstrations=3"),
    *("training.max_steps=3", "training.batch_size=2", "training.save_steps=1"),
    *("evaluation.max_tokens=8", "evaluation.few_shot_demonstrations=1"),
    "evaluation.bootstrap_samples=200",
)
_TIMED = {
    *("manifest.json", "report.html", "config.yaml", "run.log", ".run.lock"),
    *("training.json", "training.jsonl", "README.md"),
}
"""What holds times or counts starts."""
_NEVER = 1 << 30
_CHANGES = frozenset(("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"))


class Trial(NamedTuple):
    """One disturbance, and how the run ended after it."""

    kind: str
    where: str
    result: str
    """``equal``, ``sentence`` or ``fault``."""
    said: str
    """The last line that the last start wrote."""


class Ended(NamedTuple):
    """One start of the run."""

    operations: int
    """On files of the run, where they were counted."""

    code: int
    """Exit code; minus the number of the signal that ended it."""
    text: str
    """What it wrote."""


def start(run: Path, suite: Path, *, stop_at: int = 0, kill_after: float = 0.0) -> Ended:
    """Start the run in a process of its own and wait for its end.

    Args:
        run: the run directory.
        suite: what is evaluated on.
        stop_at: end before this operation on a file, counted from 1.
        kill_after: seconds until SIGKILL.
    """
    log = run.with_name(run.name + ".out")
    child = os.fork()
    if child == 0:
        _become_the_run(run, suite, log, stop_at)
    timer = threading.Timer(kill_after, os.kill, (child, signal.SIGKILL))
    if kill_after:
        timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    counted = _count_file(run)
    operations = int(counted.read_text()) if counted.exists() else 0
    text = log.read_text("utf-8", "replace")
    return Ended(operations, os.waitstatus_to_exitcode(status), text)


def _become_the_run(run: Path, suite: Path, log: Path, stop_at: int) -> None:
    from selfinstruct_train.cli.app import main

    code = 1
    seen: list[str] = []
    try:
        to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        config = str(ROOT / "configs" / "quickstart.yaml")
        sys.argv = ["selfinstruct", "run", config, *_SMALL]
        sys.argv += [f"evaluation.suites=[{suite}]", "--output-dir", str(run)]
        if stop_at:
            sys.addaudithook(_counter(run, stop_at, seen))
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _count_file(run).write_text(str(len(seen)))
        os._exit(code)


def _count_file(run: Path) -> Path:
    return run.with_name("operations")


def _counter(run: Path, stop_at: int, seen: list[str]) -> Callable[[str, tuple[object, ...]], None]:
    inside = str(run) + os.sep

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _CHANGES or not str(arguments[0]).startswith(inside):
            return
        if event == "open":
            flags = arguments[2]
            if isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR):
                return
        seen.append(event)
        if len(seen) == stop_at:
            os._exit(9)

    return count


def files(run: Path) -> Iterator[Path]:
    """Every file of a run, in order."""
    return (path for path in sorted(run.rglob("*")) if path.is_file())


def contents(run: Path) -> dict[str, bytes]:
    """What a run must leave however often it was disturbed."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in files(run)
        if path.name not in _TIMED and path.parent.name != "done" and "replaced" not in path.parts
    }


def judge(kind: str, where: str, ended: Ended, run: Path, whole: dict[str, bytes]) -> Trial:
    """Say how a disturbed run ended."""
    last = (ended.text.strip().splitlines() or [""])[-1]
    if "Traceback" in ended.text or ended.code not in (0, 2):
        return Trial(kind, where, "fault", f"exit code {ended.code}: {last}")
    if ended.code == 2:
        return Trial(kind, where, "sentence", last)
    found = contents(run)
    differ = sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))
    return Trial(kind, where, "fault" if differ else "equal", ", ".join(differ) or last)


def damages() -> dict[str, Callable[[Path], object]]:
    """Ways to damage a file."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        if data:
            data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return {
        "removed": Path.unlink,
        "emptied": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "flipped": flip,
        "doubled": lambda path: path.write_bytes(path.read_bytes() * 2),
    }


class Bench:
    """An undisturbed run, and trials beside it."""

    def __init__(self, folder: Path, seed: int, report: Callable[[Trial], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = (ROOT / "data/microworld/dev.jsonl").read_text("utf-8").splitlines()
        self._suite = folder / "four.jsonl"
        self._suite.write_text("\n".join(lines[:4]) + "\n", "utf-8")
        self._rng = random.Random(seed)
        self._run = folder / "run"
        self._whole_run = folder / "whole"
        self._report = report
        # All runs stand in one place in turn: paths are in some files.
        began = time.monotonic()
        ended = start(self._run, self._suite)
        self.seconds = time.monotonic() - began
        assert ended.code == 0, ended.text
        shutil.rmtree(self._whole_run, ignore_errors=True)
        shutil.copytree(self._run, self._whole_run)
        self._whole = contents(self._run)

    def stops(self, times: int) -> None:
        """End before operations on files spread evenly over the run."""
        self._clear()
        total = start(self._run, self._suite, stop_at=_NEVER).operations
        places = {round(1 + i * (total - 1) / max(1, times - 1)) for i in range(times)}
        for place in sorted(places):
            self._clear()
            start(self._run, self._suite, stop_at=place)
            self._finish("stopped before an operation on a file", f"{place} of {total}")

    def kills(self, times: int) -> None:
        """SIGKILL at random moments of the run."""
        for _ in range(times):
            self._clear()
            moment = self._rng.uniform(0, self.seconds)
            start(self._run, self._suite, kill_after=moment)
            self._finish("SIGKILL at a random moment", f"{moment:.1f} of {self.seconds:.1f} s")

    def damages(self, times: int) -> None:
        """Damage files of the finished run, a random choice of file and way."""
        names = [str(path.relative_to(self._whole_run)) for path in files(self._whole_run)]
        trials = [(name, way) for name in names for way in damages()]
        for name, way in self._rng.sample(trials, min(times, len(trials))):
            self._clear()
            shutil.copytree(self._whole_run, self._run)
            damages()[way](self._run / name)
            self._finish(f"a file of the finished run {way}", name)

    def _finish(self, kind: str, where: str) -> None:
        ended = start(self._run, self._suite)
        self._report(judge(kind, where, ended, self._run, self._whole))

    def _clear(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)


def summary(trials: list[Trial]) -> str:
    """The table of docs/reliability.md."""
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        counts.setdefault(trial.kind, Counter())[trial.result] += 1
    lines = ["| disturbance | trials | equal | a sentence | fault |", "|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {found.total()} | {found['equal']} | {found['sentence']} | {found['fault']} |"
        for kind, found in counts.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the trials that the command line asks for and print what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for name in ("stops", "kills", "damages"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import_everything()
    trials: list[Trial] = []

    def report(trial: Trial) -> None:
        trials.append(trial)
        print(json.dumps(trial._asdict()), flush=True)

    bench = Bench(given.folder, given.seed, report)
    print(f"an undisturbed run took {bench.seconds:.1f} s", flush=True)
    bench.damages(given.damages)
    bench.kills(given.kills)
    if given.stops:
        bench.stops(given.stops)
    print(summary(trials))


def import_everything() -> None:
    """Import what a run imports, without starting a thread that a fork would lose."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from selfinstruct_train.environment import prepare_environment

    prepare_environment()
    from selfinstruct_train.rounds import loop  # noqa: F401
    from selfinstruct_train.training import sft  # noqa: F401


if __name__ == "__main__":
    main()
