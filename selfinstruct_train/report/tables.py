"""The run's data in numbers: yield by reason, the paper's statistics, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from selfinstruct_train.report.facts import RoundFacts, RunFacts
from selfinstruct_train.report.wording import number, share


class YieldRow(NamedTuple):
    """How many candidates met one fate."""

    fate: str
    """``kept``, or the reason of the rejection."""
    rows: int
    percent: float


class Acceptance(NamedTuple):
    """The acceptance rate over one stretch of a round."""

    candidates: int
    """Candidates of the round up to the end of the stretch."""
    percent: float


class Statistic(NamedTuple):
    """One line of the paper's Table 1."""

    name: str
    run: str
    run_share: str
    paper: str
    paper_share: str


def instruction_yield(rounds: Iterable[RoundFacts]) -> tuple[YieldRow, ...]:
    """What became of the instruction candidates of all rounds: kept, then by falling count."""
    kept = 0
    reasons: Counter[str] = Counter()
    for facts in rounds:
        kept += len(facts.instructions)
        reasons.update(r.reason for r in facts.rejections if r.stage == "instruction")
    return _yield(kept, reasons)


def instance_yield(rounds: Iterable[RoundFacts]) -> tuple[YieldRow, ...]:
    """What became of the instances of all rounds, contamination included."""
    rounds = tuple(rounds)
    kept = sum(len(facts.instances) for facts in rounds)
    reasons = Counter(
        r.reason for facts in rounds for r in facts.rejections if r.stage != "instruction"
    )
    return _yield(kept, reasons)


def _yield(kept: int, reasons: Counter[str]) -> tuple[YieldRow, ...]:
    total = kept + reasons.total()
    if not total:
        return ()
    fates = [("kept", kept), *sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    return tuple(
        YieldRow(fate.replace("_", " "), count, 100 * count / total) for fate, count in fates
    )


def acceptance(facts: RoundFacts, points: int = 15, fewest: int = 20) -> tuple[Acceptance, ...]:
    """The share of candidates that joined the pool, over stretches of whole requests.

    Args:
        facts: the round.
        points: about how many stretches.
        fewest: least candidates of a stretch, so that its rate means something.
    """
    asked: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for row in facts.instructions:
        kept[row.provenance.request] += 1
    for dropped in facts.rejections:
        if dropped.stage == "instruction" and dropped.provenance is not None:
            asked[dropped.provenance.request] += 1
    asked.update(kept)
    least = max(fewest, asked.total() // points)
    found, seen, total, good = [], 0, 0, 0
    # Request ids end in a padded number: their order is the order in which they were asked.
    for request in sorted(asked):
        total, good = total + asked[request], good + kept[request]
        if total >= least:
            seen += total
            found.append(Acceptance(seen, 100 * good / total))
            total = good = 0
    return tuple(found)


def count_words(text: str) -> int:
    """Words between white space."""
    return len(text.split())


def paper_statistics(facts: RunFacts) -> tuple[Statistic, ...]:
    """The data of this run beside Table 1 of the paper (Wang et al., arXiv 2212.10560)."""
    instructions = [row for r in facts.rounds for row in r.instructions]
    classified = [row for r in facts.rounds for row in r.classified]
    instances = [row for r in facts.rounds for row in r.instances]
    yes = sum(row.is_classification for row in classified)
    inputs = [row.input for row in instances if row.input.strip()]
    empty = len(instances) - len(inputs)
    return (
        Statistic("Instructions", number(len(instructions)), "", "52,445", ""),
        _part("… classification", yes, len(classified), 11_584, 52_445),
        _part("… not classification", len(classified) - yes, len(classified), 40_861, 52_445),
        Statistic("Instances", number(len(instances)), "", "82,439", ""),
        _part("… with empty input", empty, len(instances), 35_878, 82_439),
        _length("Words of an instruction, mean", [row.instruction for row in instructions], "15.9"),
        _length("Words of an input that is not empty, mean", inputs, "12.7"),
        _length("Words of an output, mean", [row.output for row in instances], "18.9"),
    )


def _part(name: str, part: int, whole: int, paper: int, paper_whole: int) -> Statistic:
    run = number(part) if whole else number(None)
    return Statistic(name, run, share(part, whole), f"{paper:,}", share(paper, paper_whole))


def _length(name: str, texts: list[str], paper: str) -> Statistic:
    mean = sum(map(count_words, texts)) / len(texts) if texts else None
    return Statistic(name, number(mean), "", paper, "")
