"""Disturbs a small run of two rounds wherever it can be, and damages every file that it leaves.

Run ``python -m benchmarks.kills FOLDER --kills N``, with any of the options below and ``--seed N``.
After each disturbance the run is started again. A trial ends in one of three ways: ``equal`` (all
files as an undisturbed run leaves them, times aside), ``sentence`` (exit code 2 and one line that
names what is wrong), or ``fault``, whose run is kept in ``FOLDER/faults``.

- kills: SIGKILL at a random moment of the run's processor time. terms: SIGTERM, which must end it
  with exit code 143. moves: as kills, and the run is moved before it goes on.
- stops: goes on from what is on the disk before an operation on a file of the run, spread evenly
  over all that leave another state.
- damages: a file of the finished run is removed, emptied, cut, flipped by a bit or doubled.
- full: the disk of the run has too little room, on a ladder of sizes; root only. The run must end
  in a sentence, and is then given room.
- rank-…: the same on two processes, of which one is hit.

Each trial is a line of ``FOLDER/trials.jsonl``. The same command goes on where it was stopped, and
sums up all.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.small_run import Blow, Ended, SmallRun, import_everything
from benchmarks.states import States

_TIMED = {
    *("manifest.json", "report.html", "forecast.json", "config.yaml", "run.log", ".run.lock"),
    *("training.json", "training.jsonl", "README.md", "manifest.json.damaged"),
}
"""What holds times, counts starts, or is put aside because it was damaged."""
_PAGE = 4096
_KINDS = {
    "kills": "SIGKILL at a random moment",
    "terms": "SIGTERM at a random moment",
    "moves": "SIGKILL, then moved behind a link, blanks and other scripts in the path",
    "stops": "stopped before an operation on a file",
    "damages": "a file of the finished run",
    "full": "disk full",
    "rank-kills": "one of two processes: SIGKILL at a random moment",
    "rank-terms": "one of two processes: SIGTERM at a random moment",
    "rank-full": "two processes: disk full",
}


class Trial(NamedTuple):
    """One disturbance, and how the run ended after it."""

    option: str
    number: int
    """Among those of its option."""
    kind: str
    where: str
    result: str
    """``equal``, ``sentence`` or ``fault``."""
    said: str
    """The last line that the last start wrote."""
    seconds: float


class Verdict(NamedTuple):
    """How a start ended, if it may end so: ``equal``, ``sentence`` or ``fault``; and its words."""

    result: str
    said: str


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


def judge(ended: Ended, run: Path, whole: dict[str, bytes]) -> Verdict:
    """Say how the last start of a disturbed run ended."""
    lines = ended.text.strip().splitlines() or [""]
    last = next((line for line in lines if line.startswith("error:")), lines[-1])
    if ended.hung or "Traceback" in ended.text or ended.code not in (0, 2):
        return Verdict("fault", f"exit codes {ended.codes}: {last}")
    if ended.code == 2:
        return Verdict("sentence", last)
    found = contents(run)
    differ = sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))
    return Verdict("fault" if differ else "equal", ", ".join(differ) or last)


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
    """Undisturbed runs, and trials beside them."""

    def __init__(self, folder: Path, seed: int, rank_counts: tuple[int, ...] = (1,)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._seed = folder, seed
        self._small = SmallRun(folder)
        self._states: States | None = None
        self.whole: dict[int, dict[str, bytes]] = {}
        self.used: dict[int, tuple[float, ...]] = {}
        """Processor seconds of each process of an undisturbed run, by how many there are."""
        for ranks in rank_counts:
            self._small.clear()
            ended = self._small.start(ranks)
            assert ended.code == 0, ended.text
            self.whole[ranks], self.used[ranks] = contents(self._small.run), ended.seconds
            shutil.rmtree(folder / f"whole-{ranks}", ignore_errors=True)
            shutil.copytree(self._small.run, folder / f"whole-{ranks}")

    def trial(self, option: str, number: int, count: int) -> Trial:
        """Disturb the run for the ``number``-th of ``count`` times in this way."""
        rng = random.Random(f"{self._seed} {option} {number}")
        began = time.monotonic()
        self._small.clear()
        match option:
            case "kills" | "rank-kills" | "moves":
                kind, where, verdict = self._hit(option, signal.SIGKILL, rng)
            case "terms" | "rank-terms":
                kind, where, verdict = self._hit(option, signal.SIGTERM, rng)
            case "full" | "rank-full":
                kind, where, verdict = self._fill_disk(option, (number + 0.5) / count)
            case "stops":
                kind, where, verdict = self._stop(number, count)
            case _:
                kind, where, verdict = self._damage(number)
        if verdict.result == "fault":
            kept = self._folder / "faults" / f"{option}-{number}"
            shutil.copytree(self._small.disk, kept, dirs_exist_ok=True)
            for said in self._folder.glob("rank-*.out"):
                shutil.copy(said, kept)
        seconds = round(time.monotonic() - began, 1)
        return Trial(option, number, kind, where, *verdict, seconds)

    def _hit(
        self, option: str, number: signal.Signals, rng: random.Random
    ) -> tuple[str, str, Verdict]:
        ranks = 2 if option.startswith("rank") else 1
        rank = rng.randrange(ranks)
        whole = self.used[ranks][rank]
        blow = Blow(number, rank, rng.uniform(0, whole))
        first = self._small.start(ranks, blow)
        where = f"{blow.seconds:.2f} of {whole:.2f} s" + (f", process {rank}" if ranks > 1 else "")
        if first.hung:
            return _KINDS[option], where, Verdict("fault", "the other process hung")
        told = number == signal.SIGTERM
        if told and (first.code not in (0, 143) or "Traceback" in first.text):
            said = f"exit codes {first.codes} at SIGTERM: {first.text.strip()[-300:]}"
            return _KINDS[option], where, Verdict("fault", said)
        if option == "moves":
            return _KINDS[option], where, self._finish_moved(self._small.move())
        return _KINDS[option], where, self._finish(ranks)

    def _finish_moved(self, place: Path) -> Verdict:
        # This page alone of those that are compared tells where the run is.
        whole = {name: found for name, found in self.whole[1].items() if name != "rows.html"}
        ended = self._small.start(place=place)
        (place / "rows.html").unlink(missing_ok=True)
        return judge(ended, place, whole)

    def _fill_disk(self, option: str, share: float) -> tuple[str, str, Verdict]:
        ranks = 2 if option.startswith("rank") else 1
        pages = sum(-(-len(found) // _PAGE) for found in self.whole[ranks].values())
        # While it is made a run takes more than it leaves: scratch files, checkpoints.
        size = max(1, round(1.5 * pages * share)) * _PAGE
        self._small.limit_disk(size)
        first = self._small.start(ranks)
        where = f"{size // 1024} KiB"
        verdict = judge(first, self._small.run, self.whole[ranks])
        if verdict.result == "fault":
            return _KINDS[option], where, verdict
        self._small.limit_disk(100 * pages * _PAGE)
        return _KINDS[option], where, self._finish(ranks)

    def _stop(self, number: int, count: int) -> tuple[str, str, Verdict]:
        if self._states is None:
            self._states = States(self._small.run, self._folder / "states")
            self._small.start(watch=self._states.watch)
            self._small.clear()
        total = len(self._states)
        place = min(total - 1, number * total // min(count, total))
        self._states.restore(place)
        return _KINDS["stops"], f"{place + 1} of {total}", self._finish(1)

    def _damage(self, number: int) -> tuple[str, str, Verdict]:
        name, way = self._damages()[number]
        shutil.copytree(self._folder / "whole-1", self._small.run)
        damages()[way](self._small.run / name)
        return f"{_KINDS['damages']} {way}", name, self._finish(1)

    def _damages(self) -> list[tuple[str, str]]:
        whole = self._folder / "whole-1"
        names = [str(path.relative_to(whole)) for path in files(whole)]
        trials = [(name, way) for name in names for way in damages()]
        random.Random(self._seed).shuffle(trials)
        return trials

    def most(self, option: str) -> int:
        """How many different trials there are."""
        return len(self._damages()) if option == "damages" else sys.maxsize

    def _finish(self, ranks: int) -> Verdict:
        return judge(self._small.start(ranks), self._small.run, self.whole[ranks])

    def close(self) -> None:
        """Take away what a disk was mounted for."""
        self._small.clear()


def summary(trials: list[Trial]) -> str:
    """The table of docs/reliability.md."""
    counts: dict[str, Counter[str]] = {}
    for trial in sorted(trials, key=lambda trial: (list(_KINDS).index(trial.option), trial.kind)):
        counts.setdefault(trial.kind, Counter())[trial.result] += 1
    lines = ["| disturbance | trials | equal | a sentence | fault |", "|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {found.total()} | {found['equal']} | {found['sentence']} | {found['fault']} |"
        for kind, found in counts.items()
    ]
    return "\n".join(lines)


def run_trials(
    folder: Path, wanted: dict[str, int], seed: int = 0, report: Callable[[str], None] = print
) -> list[Trial]:
    """Run the trials that are not in the folder yet, the kinds in turn, and return all.

    Args:
        folder: where the runs and ``trials.jsonl`` are.
        wanted: how many trials of each option.
        seed: of the random moments.
        report: is given a line for each trial.
    """
    two = any(count and option.startswith("rank") for option, count in wanted.items())
    bench = Bench(folder, seed, (1, 2) if two else (1,))
    for ranks, used in bench.used.items():
        each = ", ".join(f"{seconds:.1f}" for seconds in used)
        report(f"an undisturbed run on {ranks} processes took {each} s of processor time")
    path = folder / "trials.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    trials = [Trial(**json.loads(line)) for line in lines]
    done = {(trial.option, trial.number) for trial in trials}
    counts = {option: min(count, bench.most(option)) for option, count in wanted.items()}
    # The kinds in turn, so that a bench that is stopped has seen something of each.
    planned = sorted((n / count, o, n) for o, count in counts.items() for n in range(count))
    with path.open("a", encoding="utf-8") as file:
        for _, option, number in planned:
            if (option, number) in done:
                continue
            trials.append(bench.trial(option, number, counts[option]))
            line = json.dumps(trials[-1]._asdict(), ensure_ascii=False)
            file.write(line + "\n")
            file.flush()
            report(line)
    bench.close()
    return trials


def main() -> None:
    """Run the trials that the command line asks for and print what became of all so far."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for option in _KINDS:
        parser.add_argument(f"--{option}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    import_everything(given["folder"])
    wanted = {option: given[option.replace("-", "_")] for option in _KINDS}
    report = partial(print, flush=True)
    print(summary(run_trials(given["folder"], wanted, given["seed"], report)))


if __name__ == "__main__":
    main()
