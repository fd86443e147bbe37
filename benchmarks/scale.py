"""How do time and memory grow with a run? One round at several sizes, written by a script.

    python benchmarks/scale.py                        # 3,000, 10,000 and 30,000 instructions
    python benchmarks/scale.py --sizes 10000 100000   # others
    python benchmarks/scale.py --million              # adds a million
    python benchmarks/scale.py --json                 # one line of JSON instead of the tables

A script stands in for the model, so what is measured is everything else: filters, pool,
classification, instances, the comparison of the training rows with a suite, their tokens in a
file, the report, and a start that finds all completions of a stopped run. One text in five is a
copy of an earlier one with a word changed, which the pool must find. Each size has a process and
a folder of its own; each stage is told on stderr when it ends. Times are CPU seconds, the script's
own share included; the peak of memory is that of the process during the stage, and includes those
pages of mapped files that the system keeps while it has room.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from novelty import synthesize
from transformers import AutoTokenizer

from selfinstruct_train.config import load_config
from selfinstruct_train.contamination.check import check
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.report.page import write_report
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.training.dataset import encode_rows, training_rows, write_dataset
from selfinstruct_train.training.encoded import ExampleIndex

SIZES = (3_000, 10_000, 30_000)
MILLION = 1_000_000
SETTINGS = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


class Stage(NamedTuple):
    """What one stage took."""

    name: str
    cpu_s: float
    peak_mb: float


class Measured(NamedTuple):
    """One round of a size."""

    instructions: int
    candidates: int
    instances: int
    stages: tuple[Stage, ...]


class Script:
    """Writes endless instructions of invented words, and one or two instances of each."""

    def __init__(self) -> None:
        self._texts = self._endless()

    def _endless(self) -> Iterator[str]:
        rng = random.Random(3)
        recent: list[str] = []
        words = synthesize(20_000)
        for number in count():
            # Lines of invented words joined at the middle: as many as one likes.
            one, other = rng.choice(words).split(), rng.choice(words).split()
            text = " ".join([*one, f"n{number % 9973}", *other])
            if len(recent) == 100 and rng.random() < 0.2:
                copied = rng.choice(recent).split()
                copied[rng.randrange(len(copied))] = rng.choice(one)
                text = " ".join(copied)
            elif len(recent) < 100:
                recent.append(text)
            else:
                recent[number % 100] = text
            yield text

    def answer(self, request: Request, adapter: Path | None) -> ScriptedAnswer:
        """A list, an input and its output, or a label and its input, as the prompt asks."""
        if "-instructions-" in request.id:
            first = 1 + sum(line[:1].isdigit() for line in request.prompt.splitlines()[:-1])
            items = [f" {next(self._texts)}\n{n}." for n in range(first + 1, 17)]
            return ScriptedAnswer("".join(items), "stop")
        rng = random.Random(request.sampling.seed)
        given, said = (" ".join(f"w{rng.randrange(5000)}" for _ in range(15)) for _ in range(2))
        if request.prompt.endswith("Label:"):
            return ScriptedAnswer(f" {said[:5]}\nInput: {given}\n")
        more = f"\nExample 2\nInput: {said}\nOutput: {given}\n" if rng.random() < 0.5 else "\n"
        return ScriptedAnswer(f"\nInput: {given}\nOutput: {said}{more}")

    @staticmethod
    def score(prompt: str, continuation: str) -> float:
        """One instruction in four is a classification task."""
        return float((continuation == " Yes") == (zlib.crc32(prompt[-80:].encode()) % 4 == 0))


class Clock:
    """Times stages and their peaks of memory."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self._name = ""
        self._began = 0.0

    def enter(self, name: str) -> None:
        """End the stage before, if it is another, and begin this one."""
        if name == self._name:
            return
        now = time.process_time()
        if self._name:
            # A round may come back to a stage.
            _, before, peak = self.stages.get(self._name, Stage("", 0.0, 0.0))
            cpu_s = before + now - self._began
            stage = self.stages[self._name] = Stage(self._name, cpu_s, max(peak, _peak_mb()))
            print(f"{stage.name}: {cpu_s:.1f} CPU s, {stage.peak_mb:,.0f} MB", file=sys.stderr)
        self._name, self._began = name, now
        _forget_peak()


def measure(size: int, folder: Path) -> Measured:
    """One round in a new folder."""
    config = load_config(
        SETTINGS,
        [
            "generation.prompts=en",
            "generation.instances.answers=as_written",
            f"generation.instructions_per_round={size}",
            f"generation.max_requests={size}",
        ],
        folder,
    )
    seeds = [
        SeedTask(
            id=f"seed_{number}",
            name=f"s{number}",
            instruction=text,
            instances=(Instance(output="x"),),
            is_classification=False,
        )
        for number, text in enumerate(synthesize(175))
    ]
    run, clock, script = RunDirectory(folder), Clock(), Script()
    run.open(config)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_WEIGHTS)
    clock.enter("instructions")

    def report(update: ProgressUpdate) -> None:
        clock.enter(update.stage.split()[-1])

    engine = ScriptedEngine(script.answer, script.score)
    engine.asked = _Forgetful()
    generate_round(config, engine, run, 0, seeds, None, lambda text, given: text, report)
    clock.enter("contamination")
    directory = run.round(0)
    rows = training_rows(seeds, partial(LiveRows(run).instances, 1), include_seeds=True)
    suite = load_suite("microworld-dev")
    found = check(
        rows, seeds, (), [SuiteTasks(suite.name, suite.tasks)], config.evaluation.contamination
    )
    rows = rows.without(found.left_out)
    clock.enter("training rows")
    counts = write_dataset(rows, directory)
    clock.enter("tokens")
    examples = encode_rows(
        rows,
        config.training,
        tokenizer,
        answers=load_answers("en"),
        max_length=256,
        seed=0,
        file=directory.encoded,
    )
    assert len(examples.kept) + len(examples.too_long) == counts.rows
    assert ExampleIndex(examples.kept).tokens > 0
    del examples
    clock.enter("report")
    write_report(run)
    clock.enter("journal")
    store = directory.store(directory.completions("instances"), StoredCompletion)
    Journal(store, engine)
    clock.enter("")
    mark = directory.mark("instructions")
    assert mark is not None
    return Measured(
        int(mark.figures["accepted"] or 0),
        int(mark.figures["candidates"] or 0),
        counts.generated_rows,
        tuple(clock.stages.values()),
    )


class _Forgetful(list[str]):
    """The engine's list of request ids is for tests; here it would be counted as the run's."""

    def append(self, _: str, /) -> None:
        pass


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget_peak() -> None:
    """Let the kernel count the peak from here on; where it cannot, peaks never fall."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def exponents(runs: list[Measured]) -> dict[str, float]:
    """By what power of the size the time of each stage grows, from the two largest sizes."""
    small, large = runs[-2:]
    return {
        one.name: math.log(two.cpu_s / one.cpu_s)
        / math.log(large.instructions / small.instructions)
        for one, two in zip(small.stages, large.stages, strict=True)
    }


def show(runs: list[Measured]) -> None:
    """Print a table for people."""
    heads = [f"{run.instructions:,} instructions" for run in runs]
    print("| stage | " + " | ".join(f"{h}: CPU s | peak MB" for h in heads) + " | exponent |")
    print("|---" * (2 * len(runs) + 2) + "|")
    growth = exponents(runs)
    for rows in zip(*(run.stages for run in runs), strict=True):
        cells = [f"{row.cpu_s:.1f} | {row.peak_mb:,.0f}" for row in rows]
        print(f"| {rows[0].name} | " + " | ".join(cells) + f" | {growth[rows[0].name]:.2f} |")
    print(
        "candidates and instances: " + ", ".join(f"{r.candidates:,} {r.instances:,}" for r in runs)
    )


def in_own_process(size: int) -> Measured:
    """Measure a size with a memory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", str(size), "--folder", f"{folder}/run"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    *head, stages = json.loads(output.splitlines()[-1])
    return Measured(*head, tuple(Stage(*stage) for stage in stages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="two or more")
    parser.add_argument("--million", action="store_true", help="add a million instructions")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.folder)))
        return
    sizes = [*options.sizes, MILLION] if options.million else options.sizes
    runs = [in_own_process(size) for size in sorted(sizes)]
    if options.json:
        found = [run._asdict() | {"stages": [s._asdict() for s in run.stages]} for run in runs]
        print(json.dumps({"runs": found, "exponents": exponents(runs)}))
    else:
        show(runs)


if __name__ == "__main__":
    main()
