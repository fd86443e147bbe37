"""What each method adds to the plain loop, on the embedded model, whose oracle knows what is right.

python benchmarks/experiments.py --arms loop best-of pairs --seeds 0 1 2 --folder runs/experiments

Each arm is the quickstart with other settings; a stopped experiment goes on where it was. The table
has, for each arm: how much of the kept data is right, what the tuned model gets right on the suite
that chooses and on the one that is reported, the difference to the plain loop (the same tasks, the
same seeds, tasks resampled), and the tokens that the data took. Choose on the first suite alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct_train.evaluation.suites import load_suite, read_predictions
from selfinstruct_train.microworld.oracle import judge
from selfinstruct_train.records import GeneratedInstance
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.statistics import bootstrap_interval, comparison_rng

ROOT = Path(__file__).parents[1]
DEV, TEST = "microworld-dev", "microworld"
_DRAWS = ("generation.instances.answers=as_written", "generation.instances.best_of=4")
_PAIRS = (
    "training.method=sft+dpo",
    "training.preference.max_steps=60",
    "training.preference.learning_rate=2e-4",
)
ARMS: dict[str, tuple[str, ...]] = {
    "loop": (),
    "asked-again": ("generation.instances.answers=asked_again",),
    "best-of": (*_DRAWS, "generation.instances.chooser=majority"),
    "arbiter": (*_DRAWS, "generation.instances.chooser=arbiter"),
    "pairs": (*_DRAWS, "generation.instances.chooser=majority", *_PAIRS),
    "earlier-model": (*_PAIRS, "training.preference.pairs=[earlier_model]"),
}
"""Name -> settings beyond the quickstart's."""


class Result(NamedTuple):
    """One run of one arm."""

    kept: int
    """Instances."""
    right: float
    """Percent of the kept instances that the oracle can judge that are right."""
    tokens: int
    """Written in steps 1 and 3, all rounds."""
    dev: NDArray[np.float64]
    """Of the last round's tuned model: 100 where an answer is right, else 0, shape (tasks,)."""
    test: NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--set", nargs="*", default=[], help="settings of all arms: key=value …")
    arguments = parser.parse_args()
    results = {
        arm: [
            run(arm, seed, arguments.folder / f"{arm}-{seed}", arguments.set)
            for seed in arguments.seeds
        ]
        for arm in arguments.arms
    }
    print_table(results)


def run(arm: str, seed: int, folder: Path, more: list[str]) -> Result:
    """Run an arm to its end and read what it reached."""
    program = [sys.executable, "-m", "selfinstruct_train.cli.app", "run", "configs/quickstart.yaml"]
    settings = [f"seed={seed}", "evaluation.seeds_only=false", *ARMS[arm], *more]
    output = ["--output-dir", str(folder.absolute())]
    subprocess.run([*program, *settings, *output], cwd=ROOT, check=True, stdout=sys.stderr)
    directory = RunDirectory(folder)
    rounds = directory.rounds()
    rows = [
        row for number in rounds for row in number.store(number.instances, GeneratedInstance).read()
    ]
    verdicts = [judge(row.instruction, row.input, row.output) for row in rows]
    judged = [verdict == "right" for verdict in verdicts if verdict != "unknown"]
    marks = [number.mark(stage) for number in rounds for stage in ("instructions", "instances")]
    return Result(
        kept=len(rows),
        right=100.0 * float(np.mean(judged)) if judged else float("nan"),
        tokens=sum(int(mark.figures["completion_tokens"] or 0) for mark in marks if mark),
        dev=answers(directory, DEV),
        test=answers(directory, TEST),
    )


def answers(run: RunDirectory, name: str) -> NDArray[np.float64]:
    """Which answers of the last round's tuned model to a suite are right."""
    suite = load_suite(name)
    path = run.rounds()[-1].evaluation(suite.name) / "tuned.jsonl"
    rows = read_predictions(path, suite)
    return np.array(
        [100.0 * (judge(row.instruction, row.input, row.response) == "right") for row in rows]
    )


def print_table(results: dict[str, list[Result]]) -> None:
    """A row for each arm."""
    print("| arm | runs | kept | right | tokens | dev right | test right | test minus loop |")
    print("|---|---|---|---|---|---|---|---|")
    plain = results.get("loop")
    for arm, runs in results.items():
        # The same task of several seeds is one task, not several.
        test = np.mean([found.test for found in runs], axis=0)
        delta = ""
        if plain and arm != "loop":
            difference = test - np.mean([found.test for found in plain], axis=0)
            interval = bootstrap_interval(difference, comparison_rng(0, arm), 10_000, 0.95)
            delta = f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
        print(
            f"| {arm} | {len(runs)} | {np.mean([r.kept for r in runs]):.0f} "
            f"| {np.mean([r.right for r in runs]):.1f} % "
            f"| {np.mean([r.tokens for r in runs]):,.0f} "
            f"| {np.mean([r.dev.mean() for r in runs]):.1f} % | {test.mean():.1f} % | {delta} |"
        )


if __name__ == "__main__":
    main()
