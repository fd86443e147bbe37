"""What each method adds to the plain loop, on the embedded model, whose oracle knows what is right.

python benchmarks/experiments.py --arms loop best-of pairs --seeds 0 1 2 --folder runs/experiments

Each arm is the quickstart with other settings; a stopped experiment goes on where it was. The first
table has, for each arm: how much of the kept data is right, what the tuned model of the last round
gets right on the suite that chooses and on the one that is reported, the difference to the plain
loop (the same tasks, the same seeds, tasks resampled), and the tokens that the data took. The
second has what each round reached, and the last minus the first. Choose on the first suite alone.
``loop`` also trains on the seed tasks alone, for as many steps; ``larger`` spends the tokens that
four answers to each question take on more instructions.
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
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.statistics import bootstrap_interval, comparison_rng

ROOT = Path(__file__).parents[1]
DEV, TEST = "microworld-dev", "microworld"
_DRAWS = ("generation.instances.answers=as_written", "generation.instances.best_of=4")
_PAIRS = (
    "training.method=sft+dpo",
    "training.preference.max_steps=60",
    "training.preference.learning_rate=2e-4",
)
_SELECTED = (
    "generation.select.by.arbiter=1",
    "generation.select.by.ifd=1",
    "generation.select.by.length=1",
    "generation.select.keep=0.6",
)
_MAJORITY = (*_DRAWS, "generation.instances.chooser=majority")
_NO_SEEDS_ONLY = ("evaluation.seeds_only=false",)
ARMS: dict[str, tuple[str, ...]] = {
    "loop": (),
    "larger": ("generation.instructions_per_round=600",),
    "asked-again": ("generation.instances.answers=asked_again",),
    "best-of": _MAJORITY,
    "arbiter": (*_DRAWS, "generation.instances.chooser=arbiter"),
    "select": _SELECTED,
    "pairs": (*_MAJORITY, *_PAIRS),
    "all": (*_MAJORITY, *_PAIRS, *_SELECTED),
    "earlier-model": (*_PAIRS, "training.preference.pairs=[earlier_model]"),
}
"""Name -> settings beyond the quickstart's."""


class Result(NamedTuple):
    """One run of one arm. Scores are 100 where an answer is right, else 0: (rounds, tasks)."""

    kept: int
    """Instances of all rounds."""
    right: float
    """Percent of the kept instances that the oracle can judge that are right."""
    tokens: int
    """Written in steps 1 and 3, all rounds."""
    dev: NDArray[np.float64]
    test: NDArray[np.float64]
    few_shot: NDArray[np.float64]
    """Of the base on the reported suite, shape (tasks,)."""
    seeds_only: NDArray[np.float64] | None
    """Of the model tuned on the seed tasks alone, likewise; None where it was not trained."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--set", nargs="*", default=[], help="settings of all arms: key=value …")
    arguments = parser.parse_args()
    # Seed by seed, so that an experiment that is stopped has compared all arms on the first.
    found = {
        (arm, seed): run(arm, seed, arguments.folder / f"{arm}-{seed}", arguments.set)
        for seed in arguments.seeds
        for arm in arguments.arms
    }
    results = {arm: [found[arm, seed] for seed in arguments.seeds] for arm in arguments.arms}
    print_table(results)
    print_rounds(results)


def run(arm: str, seed: int, folder: Path, more: list[str]) -> Result:
    """Run an arm to its end and read what it reached."""
    program = [sys.executable, "-m", "selfinstruct_train.cli.app", "run", "configs/quickstart.yaml"]
    settings = [f"seed={seed}", *(() if arm == "loop" else _NO_SEEDS_ONLY), *ARMS[arm], *more]
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
        dev=np.stack([answers(number, DEV, "tuned") for number in rounds]),
        test=np.stack([answers(number, TEST, "tuned") for number in rounds]),
        few_shot=answers(rounds[0], TEST, "base-few-shot"),
        seeds_only=answers(rounds[-1], TEST, "seeds-only") if arm == "loop" else None,
    )


def answers(of: RoundDirectory, name: str, system: str) -> NDArray[np.float64]:
    """Which answers of a system to a suite are right: 100 or 0, shape (tasks,)."""
    suite = load_suite(name)
    rows = read_predictions(of.evaluation(suite.name) / f"{system}.jsonl", suite)
    return np.array(
        [100.0 * (judge(row.instruction, row.input, row.response) == "right") for row in rows]
    )


def mean(scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Over the seeds. The same task of several seeds is one task, not several."""
    return np.asarray(np.mean(scores, axis=0), dtype=np.float64)


def minus(name: str, one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """A paired difference, tasks resampled, as text."""
    found = bootstrap_interval(one - other, comparison_rng(0, name), 10_000, 0.95)
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def print_table(results: dict[str, list[Result]]) -> None:
    """A row for each arm."""
    print("| arm | runs | kept | right | tokens | dev right | test right | test minus loop |")
    print("|---|---|---|---|---|---|---|---|")
    plain = results.get("loop")
    for arm, runs in results.items():
        test = mean([found.test[-1] for found in runs])
        delta = ""
        if plain and arm != "loop":
            delta = minus(arm, test, mean([found.test[-1] for found in plain]))
        print(
            f"| {arm} | {len(runs)} | {np.mean([r.kept for r in runs]):.0f} "
            f"| {np.mean([r.right for r in runs]):.1f} % "
            f"| {np.mean([r.tokens for r in runs]):,.0f} "
            f"| {np.mean([r.dev[-1].mean() for r in runs]):.1f} % | {test.mean():.1f} % | {delta} |"
        )


def print_rounds(results: dict[str, list[Result]]) -> None:
    """What each round of each arm reached, against the first round and against no own data."""
    plain = results.get("loop")
    taught = [found.seeds_only for found in plain or () if found.seeds_only is not None]
    seeds_only = mean(taught) if taught else None
    print("\n| arm | right in each round | last minus first | last minus few-shot base |", end="")
    print(" last minus seeds-only |\n|---|---|---|---|---|")
    for arm, runs in results.items():
        first, last = (mean([found.test[place] for found in runs]) for place in (0, -1))
        each = " / ".join(f"{score:.1f}" for score in mean([r.test for r in runs]).mean(axis=1))
        few_shot = minus(f"{arm} few-shot", last, mean([found.few_shot for found in runs]))
        alone = "" if seeds_only is None else minus(f"{arm} seeds-only", last, seeds_only)
        print(f"| {arm} | {each} | {minus(f'{arm} rounds', last, first)} | {few_shot} | {alone} |")


if __name__ == "__main__":
    main()
