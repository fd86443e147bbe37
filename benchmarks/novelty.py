"""How fast is the exact novelty test, and does it decide as rouge_score does?

    python benchmarks/novelty.py --quick          # minutes; a table
    python benchmarks/novelty.py --quick --json   # the same as one JSON object
    python benchmarks/novelty.py --million        # adds a pool that grows to a million entries

Beside the index stand the two ways in use: that of the paper's scripts (4 processes started for
each candidate, rouge_score on the texts) and that of Stanford Alpaca (the same on texts tokenized
beforehand). All three are asked in turn within one run, so a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rouge_score import rouge_scorer

from selfinstruct_train.sources.reader import read_lines
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import words

MATERIAL = Path(os.environ.get("SELFINSTRUCT_MATERIAL", Path(__file__).parents[2] / "shared"))
INSTRUCTIONS = MATERIAL / "bench" / "instructions_en_52k.txt.gz"
STREAM = 52_002
SIZES = (1_000, 5_000, 20_000, 52_000)
THRESHOLD = 0.7
MILLION = 1_000_000
MILESTONES = (10_000, 20_000, 50_000, 100_000, 200_000, 300_000, 500_000, 700_000, MILLION)
BATCH = 64
PROCESSES = 4
SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


class Cost(NamedTuple):
    """Seconds for one candidate; `cpu` counts the processes that were started for it."""

    wall: float
    cpu: float


class Asked(NamedTuple):
    """What asking one way took, and the highest score of the candidate."""

    cost: Cost
    score: float


class Spread(NamedTuple):
    """Of the repeats."""

    median: float
    lowest: float
    highest: float


class Growth(NamedTuple):
    """Median costs at one pool size, and how many times longer the old ways take (wall clock)."""

    pool: int
    ours: Cost
    reference: Cost
    alpaca: Cost
    ratio_reference: Spread
    ratio_alpaca: Spread
    ratio_reference_cpu: Spread
    decisions_differ: int
    scores_differ: int


class Milestone(NamedTuple):
    """How far a stream was when its pool had grown to a size."""

    pool: int
    candidates: int
    cpu_s: float
    peak_mb: float
    """Of the whole process so far."""


class Stream(NamedTuple):
    """A stream of candidates into a pool that is empty at first."""

    accepted: list[bool]
    cpu_s: float
    milestones: list[Milestone]


def score_as_paper(pool: Sequence[str], candidate: str) -> list[float]:
    with Pool(PROCESSES) as processes:
        scores = processes.map(partial(SCORER.score, candidate), pool)
    return [score["rougeL"].fmeasure for score in scores]


def score_as_alpaca(pool: Sequence[list[str]], candidate: str) -> list[float]:
    with Pool(PROCESSES) as processes:
        scores = processes.map(partial(rouge_scorer._score_lcs, words(candidate, "rouge")), pool)
    return [score.fmeasure for score in scores]


def timed(call: Callable[[], list[float]], candidates: int) -> Asked:
    """Run a way to score some candidates; its last score is kept."""
    wall, cpu = time.perf_counter(), _cpu()
    score = max(call())
    return Asked(
        Cost((time.perf_counter() - wall) / candidates, (_cpu() - cpu) / candidates), score
    )


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def synthesize(count: int) -> list[str]:
    """Lines of invented words, some far more frequent than others, as in a language."""
    rng = random.Random(11)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)]
    weights = [1.0 / (rank + 3) for rank in range(len(vocabulary))]
    lengths = [max(3, round(rng.gauss(10, 4))) for _ in range(count)]
    drawn = iter(rng.choices(vocabulary, weights, k=sum(lengths)))
    return [" ".join(islice(drawn, length)) for length in lengths]


def recombine(instructions: Sequence[str], count: int, seed: int = 13) -> Iterator[str]:
    """Head of one instruction and tail of another; one in five a copy with one word changed."""
    rng = random.Random(seed)
    split = [instruction.split() for instruction in instructions]
    for _ in range(count):
        one, other = rng.choice(split), rng.choice(split)
        if rng.random() < 0.2:
            at = rng.randrange(len(one))
            yield " ".join([*one[:at], rng.choice(other), *one[at + 1 :]])
        else:
            yield " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])


def compare(instructions: Sequence[str], size: int, repeats: int) -> Growth:
    """Ask the three ways in turn, each time about one more candidate (the index about a batch)."""
    pool = random.Random(size).sample(instructions, size)
    tokens = [words(text, "rouge") for text in pool]
    index = NoveltyIndex(threshold=THRESHOLD)
    index.extend((text, text) for text in pool)
    batches = [list(recombine(pool, BATCH, seed)) for seed in range(repeats)]
    own, paper, alpaca = [], [], []
    for number, batch in enumerate(batches):
        # Every other one is a copy with a word more, so that both decisions occur.
        batch[-1] = batch[-1] if number % 2 else f"{pool[number]} please"
        last = batch[-1]
        own.append(timed(partial(_own_scores, index, batch), BATCH))
        paper.append(timed(partial(score_as_paper, pool, last), 1))
        alpaca.append(timed(partial(score_as_alpaca, tokens, last), 1))
    asked = list(zip(own, paper, alpaca, strict=True))
    return Growth(
        size,
        _median(own),
        _median(paper),
        _median(alpaca),
        _spread([b.cost.wall / a.cost.wall for a, b, _ in asked]),
        _spread([c.cost.wall / a.cost.wall for a, _, c in asked]),
        _spread([b.cost.cpu / a.cost.cpu for a, b, _ in asked]),
        sum(len({ask.score > THRESHOLD for ask in asks}) > 1 for asks in asked),
        sum(len({ask.score for ask in asks}) > 1 for asks in asked),
    )


def _own_scores(index: NoveltyIndex, batch: Sequence[str]) -> list[float]:
    """Of a whole batch, since that is how the index is asked; returned is the last candidate's."""
    return [index.search(batch)[-1].score]


def _median(asked: Sequence[Asked]) -> Cost:
    return Cost(
        statistics.median(ask.cost.wall for ask in asked),
        statistics.median(ask.cost.cpu for ask in asked),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def admit_in_order(candidates: Sequence[str]) -> int:
    """Resolve a stream with the index, and with rouge_score in plain loops; count differences."""
    verdicts = NoveltyIndex(threshold=THRESHOLD).admit([(text, text) for text in candidates])
    pool: list[str] = []
    differ = 0
    for text, verdict in zip(candidates, verdicts, strict=True):
        score = max((SCORER.score(text, entry)["rougeL"].fmeasure for entry in pool), default=0.0)
        differ += verdict.accepted != (not score > THRESHOLD) or verdict.score != score
        if not score > THRESHOLD:
            pool.append(text)
    return differ


def stream(candidates: Iterator[str], *, scores: bool, until: int | None = None) -> Stream:
    """Put candidates through an index that is empty at first, in batches, `until` it is large."""
    index = NoveltyIndex(threshold=THRESHOLD)
    accepted: list[bool] = []
    milestones: list[Milestone] = []
    ahead = deque(MILESTONES)
    pool, cpu = 0, 0.0
    while (until is None or pool < until) and (
        batch := [("", text) for text in islice(candidates, 1024)]
    ):
        began = time.process_time()
        rows = index.admit(batch) if scores else index.decide(batch)
        cpu += time.process_time() - began
        accepted += [row.accepted for row in rows]
        pool += sum(row.accepted for row in rows)
        if ahead and pool >= ahead[0]:
            ahead.popleft()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            milestones.append(Milestone(pool, len(accepted), cpu, peak))
            print(f"# pool {pool:,}: {cpu:.1f} CPU s, {peak:,.0f} MB", file=sys.stderr)
    return Stream(accepted, cpu, milestones)


class Report(NamedTuple):
    """What is printed; times in seconds."""

    stream_52k_cpu_s: float
    """Decisions on 52,002 instructions, each against all accepted before it."""
    stream_52k_scores_cpu_s: float
    """The same stream with full scores: highest, nearest, mean."""
    ratio_reference: float
    """The paper's way over the index, wall clock per candidate, at the largest pool: the median."""
    ratio_reference_spread: Spread
    ratio_reference_cpu: float
    """The same in CPU seconds: what the way costs, however many cores share it."""
    ratio_alpaca: float
    ratio_alpaca_spread: Spread
    reference_52k_cpu_hours_extrapolated: float
    """The paper's way for the whole stream, from the cost per candidate at the pool sizes measured,
    lines between them."""
    decisions_compared: int
    decisions_differ: int
    scores_differ: int
    growth: list[Growth]
    million: list[Milestone]
    """Decisions alone while the pool grows to a million; with `--million` alone."""


def run(instructions: Sequence[str], repeats: int, in_order: int, million: bool) -> Report:
    """All measurements, one after the other."""
    # First, so that the peak of memory is its own.
    big = []
    if million:
        endless = recombine(instructions, 10 * MILLION)
        big = stream(endless, scores=False, until=MILLION).milestones
    full = stream(iter(instructions), scores=True)
    quick = stream(iter(instructions), scores=False)
    mixed = list(recombine(instructions, 10_000))
    both = [stream(iter(mixed), scores=scores).accepted for scores in (True, False)]
    ordered = admit_in_order(mixed[:in_order])
    growth = [compare(instructions, min(size, len(instructions)), repeats) for size in SIZES]
    last = growth[-1]
    sizes, costs = zip(*((row.pool, row.reference.cpu) for row in growth), strict=True)
    expected = np.interp(np.arange(len(instructions)), [0, *sizes], [costs[0], *costs]).sum()
    return Report(
        stream_52k_cpu_s=quick.cpu_s,
        stream_52k_scores_cpu_s=full.cpu_s,
        ratio_reference=last.ratio_reference.median,
        ratio_reference_spread=last.ratio_reference,
        ratio_reference_cpu=last.ratio_reference_cpu.median,
        ratio_alpaca=last.ratio_alpaca.median,
        ratio_alpaca_spread=last.ratio_alpaca,
        reference_52k_cpu_hours_extrapolated=float(expected) / 3600,
        decisions_compared=len(instructions) + len(mixed) + in_order + repeats * len(SIZES),
        decisions_differ=ordered
        + _differences(full.accepted, quick.accepted)
        + _differences(*both)
        + sum(row.decisions_differ for row in growth),
        scores_differ=ordered + sum(row.scores_differ for row in growth),
        growth=growth,
        million=big,
    )


def _differences(some: Sequence[bool], others: Sequence[bool]) -> int:
    return sum(a != b for a, b in zip(some, others, strict=True))


def show(report: Report) -> None:
    """Print a table for people."""
    print(f"{STREAM:,} instructions, each against all accepted before it, one core:")
    print(f"  full scores     {report.stream_52k_scores_cpu_s:8.1f} CPU s")
    print(f"  decisions alone {report.stream_52k_cpu_s:8.1f} CPU s")
    hours = report.reference_52k_cpu_hours_extrapolated
    print(f"  paper's way     {hours:8.1f} CPU h, extrapolated from the samples below")
    print("CPU milliseconds a candidate (medians); times longer by the clock: median (from to)")
    print("    pool      ours     paper    Alpaca   paper / ours                 Alpaca / ours")
    for row in report.growth:
        times = [1000 * cost.cpu for cost in (row.ours, row.reference, row.alpaca)]
        ratios = [
            f"{ratio.median:,.0f} ({ratio.lowest:,.0f} to {ratio.highest:,.0f})".ljust(29)
            for ratio in (row.ratio_reference, row.ratio_alpaca)
        ]
        print(f"{row.pool:8,}{times[0]:10.2f}{times[1]:10.0f}{times[2]:10.0f}   {''.join(ratios)}")
    print(
        f"decisions that differ: {report.decisions_differ} of {report.decisions_compared:,}; "
        f"scores that differ: {report.scores_differ}"
    )
    if report.million:
        print("recombined instructions, decisions alone, one core:")
        print("      pool  candidates   CPU s   peak MB of the process")
    for row in report.million:
        print(f"{row.pool:10,}{row.candidates:12,}{row.cpu_s:8.1f}{row.peak_mb:10,.0f}")


def plot(report: Report, path: Path) -> None:
    """Draw cost against pool size, and the growth to a million."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (axes, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = [row.pool for row in report.growth]
    for label, costs in (
        ("paper's scripts", [row.reference.cpu for row in report.growth]),
        ("Alpaca", [row.alpaca.cpu for row in report.growth]),
        ("this index, full scores", [row.ours.cpu for row in report.growth]),
    ):
        axes.loglog(sizes, [1000 * cost for cost in costs], marker="o", label=label)
    axes.set(xlabel="instructions in the pool", ylabel="CPU milliseconds a candidate")
    axes.grid(alpha=0.3)
    axes.legend()
    rows = report.million
    right.loglog([row.pool for row in rows], [row.cpu_s for row in rows], marker="o")
    right.set(xlabel="instructions in the pool", ylabel="CPU seconds since it was empty")
    right.set_title("decisions alone", fontsize=10)
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def as_json(value: object) -> object:
    """Named tuples as objects with their field names."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: as_json(part) for key, part in value._asdict().items()}
    return [as_json(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats: about a CPU minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--million", action="store_true", help="add the growth to a million")
    parser.add_argument("--instructions", type=Path, help="one a line, .gz or plain")
    parser.add_argument("--plot", type=Path, help="write a picture of the growth")
    options = parser.parse_args()
    path = options.instructions or (INSTRUCTIONS if INSTRUCTIONS.exists() else None)
    lines = (line for _, line in read_lines(path)) if path else iter(synthesize(STREAM))
    instructions = list(islice(lines, STREAM))
    print(f"instructions: {path or 'invented'}, {len(instructions):,}", file=sys.stderr)
    repeats, in_order = (3, 300) if options.quick else (21, 1000)
    report = run(instructions, repeats, in_order, options.million)
    if options.plot:
        plot(report, options.plot)
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
