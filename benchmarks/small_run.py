"""A run of two rounds through every stage, as small as it can be, started without imports.

Seeds, a suite of its own and one in the layout of Super-NaturalInstructions, answers drawn and
chosen, training on answers and then on pairs, the seed tasks alone, a judge. A process that has
imported everything forks for each start, as one process or as the ranks of a launcher.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
_SETTINGS = """\
model: {name_or_path: embedded, threads: 1}
seeds: {path: seeds.jsonl}
generation:
  prompts: prompts
  instructions_per_round: 2
  instructions: {requests_per_batch: 1, max_tokens: 60, seed_demonstrations: 3,
    machine_demonstrations: 1, temperature: 1.0, top_p: 0.95}
  classification: {requests_per_batch: 6, yes_demonstrations: 1, no_demonstrations: 1}
  instances: {demonstrations: 2, max_tokens: 40, max_per_instruction: 1, best_of: 2,
    chooser: likelihood, draw_temperature: 1.5}
training: {method: sft+dpo, max_steps: 2, batch_size: 12, micro_batch_size: 12, save_steps: 1,
  logging_steps: 1, learning_rate: 1e-2, lora_r: 1, target_modules: [q_proj],
  preference: {pairs: [drawn, earlier_model], max_steps: 2}}
evaluation: {suites: [superni, own-dev.jsonl], max_tokens: 6, few_shot_demonstrations: 1,
  seeds_only_epochs: [], bootstrap_samples: 100,
  judge: {max_tokens: 2, pairwise_prompt: judge.txt}}
rounds: 2
"""
_JUDGE = """\
Task: Which number is the largest?
Input: 1, 2
Output: 2

Task: Which number is the smallest?
Input: 1, 2
Output: 1

Task: {instruction} {input} {first} or {second}?
Input: 1, 2
Output:
"""
_LOOK_SECONDS = 0.005
_GRACE_SECONDS = 30.0
"""From a launcher's SIGTERM to its SIGKILL."""


class Blow(NamedTuple):
    """A signal for one process, once that has used so much processor time."""

    signal: int
    rank: int
    seconds: float


class Ended(NamedTuple):
    """One start of the run."""

    codes: tuple[int, ...]
    """Exit code of each process; minus the number of the signal that ended it."""
    seconds: tuple[float, ...]
    """Processor time of each."""
    code: int
    """That of the first that failed, as a launcher sees it; 0 where none did."""
    text: str
    """What they wrote."""
    hung: bool
    """Whether one had to be killed after another one had ended."""


class SmallRun:
    """The files that the run is made of, and the run."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder.resolve() / "disk"
        """Holds the run alone. All runs stand there in turn, for there are paths in some files."""
        self.run = self.disk / "run"
        self._config = folder.resolve() / "config.yaml"
        self._folder = folder.resolve()
        shutil.copytree(ROOT / "data/microworld/prompts", folder / "prompts", dirs_exist_ok=True)
        rows = _rows("seed_tasks")
        rows.sort(key=lambda row: len(json.dumps(row)))
        _write(folder / "seeds.jsonl", [r for r in rows if not r["is_classification"]][:9])
        _write(folder / "seeds.jsonl", [r for r in rows if r["is_classification"]][:3], "a")
        tasks = _rows("dev")
        _write(folder / "own-dev.jsonl", tasks[:2])
        _write_like_superni(folder / "superni", tasks[10:14])
        (folder / "judge.txt").write_text(_JUDGE, "utf-8")
        self._config.write_text(_SETTINGS, "utf-8")

    def clear(self) -> None:
        """Take the run away, and the small disk under it."""
        if os.path.ismount(self.disk):
            subprocess.run(["umount", self.disk], check=True)
        shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir()

    def limit_disk(self, size: int) -> None:
        """Put the run on a disk of so many bytes; needs root.

        Raises:
            CalledProcessError: the system does not allow it.
        """
        option = "remount," if os.path.ismount(self.disk) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{option}size={size}", "tmpfs", self.disk]
        subprocess.run(command, check=True)

    def move(self) -> Path:
        """Move the run to a folder with blanks and letters of two scripts, behind a link.

        Returns:
            The link, as the new place.
        """
        home = self.disk / "a run, überall 跑"
        if self.run.exists():
            self.run.rename(home)
        else:  # it was stopped before it had a folder
            home.mkdir()
        place = self.disk / "link to it"
        place.symlink_to(home)
        return place

    def start(
        self,
        ranks: int = 1,
        blow: Blow | None = None,
        place: Path | None = None,
        watch: Callable[[str, tuple[Any, ...]], None] | None = None,
    ) -> Ended:
        """Start the run, or start it again, and wait for its end.

        Args:
            ranks: how many processes; the others are stopped once one has failed, as a launcher
                does.
            blow: what happens to them.
            place: the run directory, where the run was moved.
            watch: an audit hook for the only process.
        """
        logs = [self._folder / f"rank-{rank}.out" for rank in range(ranks)]
        address = _free_port() if ranks > 1 else 0
        children = []
        for rank, log in enumerate(logs):
            child = os.fork()
            if child == 0:
                if ranks > 1:
                    os.environ |= _launched(rank, ranks, address)
                self._become_the_run(log, place or self.run, watch)
            children.append(child)
        ended = _wait(children, blow)
        text = "\n".join(log.read_text("utf-8", "replace") for log in logs if log.exists())
        return ended._replace(text=text)

    def _become_the_run(
        self, log: Path, run: Path, watch: Callable[[str, tuple[Any, ...]], None] | None
    ) -> None:
        from selfinstruct_train.cli.app import main

        def program() -> None:
            to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(to, 1)
            os.dup2(to, 2)
            sys.argv = ["selfinstruct", "run", str(self._config), "--output-dir", str(run)]
            if watch is not None:
                sys.addaudithook(watch)
            main()

        end_as(program)


def end_as(program: Callable[[], None]) -> NoReturn:
    """Run a program in a forked process, which ends with its exit code and never returns."""
    code: int | str | None = 1
    try:
        program()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def import_everything(folder: Path) -> None:
    """Import what a run imports, as `load_libraries` does.

    Args:
        folder: the code is copied there, so that trials of hours are trials of one version.
    """
    shutil.rmtree(folder / "code", ignore_errors=True)
    shutil.copytree(ROOT / "selfinstruct_train", folder / "code" / "selfinstruct_train")
    sys.path.insert(0, str(folder.resolve() / "code"))
    load_libraries()


def load_libraries() -> None:
    """Import what a run imports, without starting a thread that a fork would lose."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from selfinstruct_train.environment import prepare_environment

    prepare_environment()
    import selfinstruct_train

    for found in pkgutil.walk_packages(selfinstruct_train.__path__, "selfinstruct_train."):
        if not found.name.endswith("__main__"):
            with suppress(ImportError):  # parts that need what is not installed
                importlib.import_module(found.name)
    gc.collect()
    gc.freeze()  # what is here stays: children neither look through it nor copy it


def _wait(children: list[int], blow: Blow | None) -> Ended:
    codes: dict[int, int] = {}
    seconds: dict[int, float] = {}
    first, told, hung = 0, 0.0, False
    while True:
        for rank, child in enumerate(children):
            if rank in codes:
                continue
            done, status, used = os.wait4(child, os.WNOHANG)
            if done:
                codes[rank] = os.waitstatus_to_exitcode(status)
                seconds[rank] = used.ru_utime + used.ru_stime
                first = first or codes[rank]
            elif blow is not None and blow.rank == rank and _used(child) >= blow.seconds:
                os.kill(child, blow.signal)
                blow = None
        alive = [child for rank, child in enumerate(children) if rank not in codes]
        if not alive:
            found = (tuple(of[rank] for rank in sorted(of)) for of in (codes, seconds))
            return Ended(*found, first, "", hung)
        if first and not told:
            told = time.monotonic()
            for child in alive:
                os.kill(child, signal.SIGTERM)
        elif told and not hung and time.monotonic() - told > _GRACE_SECONDS:
            hung = True
            for child in alive:
                os.kill(child, signal.SIGKILL)
        time.sleep(_LOOK_SECONDS)


def _used(process: int) -> float:
    """Processor time of a child in seconds: a busy machine changes nothing in where it is hit."""
    return time.clock_gettime((~process << 3) | 2)  # CPUCLOCK_SCHED of Linux


def _launched(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a launcher tells a process."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {name: str(value) for name, value in here.items()} | where


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / f"data/microworld/{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _write(path: Path, rows: list[dict[str, Any]], mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_like_superni(folder: Path, tasks: list[dict[str, Any]]) -> None:
    """Definitions with two instances each, and two references of each instance."""
    (folder / "splits/default").mkdir(parents=True, exist_ok=True)
    (folder / "tasks").mkdir(exist_ok=True)
    names = [f"task{number}_small" for number in range(len(tasks) // 2)]
    (folder / "splits/default/test_tasks.txt").write_text("\n".join(names) + "\n", "utf-8")
    for name, one, other in zip(names, tasks[::2], tasks[1::2], strict=True):
        found = [(task["instances"][0]["input"], task["instances"][0]) for task in (one, other)]
        task = {
            "Definition": [one["instruction"]],
            "Categories": [one["motivation_app"]],
            "Instances": [
                {"input": text or "nothing", "output": [instance["output"], "no answer"]}
                for text, instance in found
            ],
        }
        (folder / f"tasks/{name}.json").write_text(json.dumps(task), "utf-8")
