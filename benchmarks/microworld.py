"""What a run on the embedded model reached, judged by the microworld's oracle.

python benchmarks/microworld.py runs/quickstart [--json]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from selfinstruct_train.evaluation.compare import read_comparison
from selfinstruct_train.microworld.instructions import Microworld, world
from selfinstruct_train.microworld.oracle import judge
from selfinstruct_train.records import Classified, GeneratedInstance, Instruction
from selfinstruct_train.run.directory import RunDirectory

Figures = dict[str, float | int | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    arguments = parser.parse_args()
    run = RunDirectory(arguments.run)
    figures: Figures = {}
    families: set[str] = set()
    for number in range(len(run.rounds())):
        figures |= data_figures(run, number, families)
        figures |= score_figures(run, number)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:55} {value if isinstance(value, int) else f'{value:.1f}'}")


def data_figures(run: RunDirectory, number: int, families: set[str]) -> Figures:
    """Yield and quality of one round's data, in percent unless a count."""
    directory = run.round(number)
    known: Microworld = world()
    kept = directory.store(directory.instructions, Instruction).read()
    mark = directory.mark("instructions")
    parsed = {row.id: known.parse(row.instruction) for row in kept}
    families |= {found.family.name for found in parsed.values() if found}
    classified = directory.store(directory.classified, Classified).read()
    judged = [(row, parsed[row.id]) for row in classified]
    right = [
        row.is_classification == found.family.is_classification for row, found in judged if found
    ]
    instances = directory.store(directory.instances, GeneratedInstance).read()
    verdicts = Counter(judge(row.instruction, row.input, row.output) for row in instances)
    by_kind = Counter(
        (row.is_classification, judge(row.instruction, row.input, row.output)) for row in instances
    )
    name = f"round {number}: "
    figures: Figures = {
        name + "instructions accepted": len(kept),
        name + "instructions that the parser knows, %": percent(
            sum(found is not None for found in parsed.values()), len(kept)
        ),
        name + "families in the pool so far": len(families),
        name + "classification right, %": percent(sum(right), len(right)),
        name + "share of classification, %": percent(
            sum(row.is_classification for row in classified), len(classified)
        ),
        name + "instances kept": len(instances),
        name + "instances right of those judged, %": percent(
            verdicts["right"], verdicts["right"] + verdicts["wrong"]
        ),
        name + "instances right of all, %": percent(verdicts["right"], len(instances)),
        name + "instances right, input-first, %": percent(
            by_kind[False, "right"], by_kind[False, "right"] + by_kind[False, "wrong"]
        ),
        name + "instances right, output-first, %": percent(
            by_kind[True, "right"], by_kind[True, "right"] + by_kind[True, "wrong"]
        ),
        name + "instances unknown to the oracle": verdicts["unknown"],
    }
    if mark is not None:
        candidates = int(mark.figures["candidates"] or 0)
        figures[name + "acceptance, %"] = percent(len(kept), candidates)
    return figures


def score_figures(run: RunDirectory, number: int) -> Figures:
    """Scores of every system on every suite."""
    figures: Figures = {}
    for path in sorted((run.round(number).path / "eval").glob("*/comparison.json")):
        comparison = read_comparison(path)
        for score in comparison.scores:
            name = f"round {number}: {comparison.suite}: {score.system}: "
            figures[name + "ROUGE-L"] = score.rouge_l
            if score.oracle_accuracy is not None:
                figures[name + "right, %"] = score.oracle_accuracy
    return figures


def percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


if __name__ == "__main__":
    main()
