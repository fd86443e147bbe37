"""The run's data in numbers: yield by reason, the paper's statistics, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfinstruct_train.report.counts import Trait
from selfinstruct_train.report.facts import RoundFacts, RunFacts
from selfinstruct_train.report.wording import number, share

_NO_FAULT = {
    "kept": "kept",
    "too_many": "over the cap, no fault",
    "over_budget": "over the budget of the selection, no fault",
}
"""Fates that say nothing against a row, as the page names them."""


class YieldRow(NamedTuple):
    """How many candidates met one fate."""

    fate: str
    """``kept``, or the reason of the rejection."""
    is_fault: bool
    """Whether something was wrong with it; what is over a cap was only not needed."""
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
        kept += facts.counts.instructions
        reasons.update(_reasons(facts, instruction=True))
    return _yield(kept, reasons)


def instance_yield(rounds: Iterable[RoundFacts]) -> tuple[YieldRow, ...]:
    """What became of the instances of all rounds, contamination included."""
    rounds = tuple(rounds)
    kept = sum(facts.counts.instances for facts in rounds)
    reasons: Counter[str] = Counter()
    for facts in rounds:
        reasons.update(_reasons(facts, instruction=False))
    return _yield(kept, reasons)


def _reasons(facts: RoundFacts, instruction: bool) -> Counter[str]:
    found: Counter[str] = Counter()
    for why, rows in facts.counts.dropped.items():
        if (why.stage == "instruction") == instruction:
            found[why.reason] += rows
    return found


def _yield(kept: int, reasons: Counter[str]) -> tuple[YieldRow, ...]:
    total = kept + reasons.total()
    if not total:
        return ()
    fates = [("kept", kept), *sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    return tuple(
        YieldRow(reason_words(fate), fate not in _NO_FAULT, count, 100 * count / total)
        for fate, count in fates
    )


def reason_words(reason: str) -> str:
    """A reason as the page names it."""
    return _NO_FAULT.get(reason, reason.replace("_", " "))


def acceptance(facts: RoundFacts, points: int = 15, fewest: int = 20) -> tuple[Acceptance, ...]:
    """The share of candidates that joined the pool, over stretches of whole requests.

    Args:
        facts: the round.
        points: about how many stretches.
        fewest: least candidates of a stretch, so that its rate means something.
    """
    asked, kept = facts.counts.candidates, facts.counts.accepted
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


def paper_statistics(facts: RunFacts) -> tuple[Statistic, ...]:
    """The data of this run beside Table 1 of the paper (Wang et al., arXiv 2212.10560)."""
    counts = [r.counts for r in facts.rounds]
    instructions = sum(c.instructions for c in counts)
    classified = sum(c.classified for c in counts)
    instances = sum(c.instances for c in counts)
    yes = sum(c.classification for c in counts)
    empty = sum(c.empty_inputs for c in counts)
    of_texts = sum(c.of_texts for c in counts)
    length = sum(c.instruction_length for c in counts)
    input_length = sum(c.input_length for c in counts)
    output_length = sum(c.output_length for c in counts)
    units = facts.units.capitalize()
    # The paper counts words, and nothing else can stand beside its figures.
    paper = ("15.9", "12.7", "18.9") if facts.units == "words" else ("", "", "")
    return (
        Statistic("Instructions", number(instructions), "", "52,445", ""),
        _part("… classification", yes, classified, 11_584, 52_445),
        _part("… not classification", classified - yes, classified, 40_861, 52_445),
        Statistic("Instances", number(instances), "", "82,439", ""),
        _part("… with empty input", empty, instances, 35_878, 82_439),
        *(
            [
                Statistic(
                    "… for your own texts", number(of_texts), share(of_texts, instances), "", ""
                )
            ]
            if of_texts
            else []
        ),
        _mean(f"{units} of an instruction, mean", length, instructions, paper[0]),
        _mean(
            f"{units} of an input that is not empty, mean",
            input_length,
            instances - empty,
            paper[1],
        ),
        _mean(f"{units} of an output, mean", output_length, instances, paper[2]),
        *_labels(facts),
        *_topic(facts),
    )


def _labels(facts: RunFacts) -> Iterator[Statistic]:
    """Instructions by category and task type, where the seeds say these."""
    found: Counter[Trait] = Counter()
    for r in facts.rounds:
        found += r.counts.labels
    instructions = sum(r.counts.instructions for r in facts.rounds)
    for label, n in sorted(found.items(), key=lambda item: (item[0].name, -item[1])):
        name = f"… {label.name}: {label.value}"
        yield Statistic(name, number(n), share(n, instructions), "", "")


def _own_texts(rows: int, instances: int) -> tuple[Statistic, ...]:
    name = "… for your own texts"
    return (Statistic(name, number(rows), share(rows, instances), "", ""),) if rows else ()


def _topic(facts: RunFacts) -> tuple[Statistic, ...]:
    """How much of the data is on the topic of the seeds, and how well that can be told."""
    marks = [r.marks["instances"].figures for r in facts.rounds if "instances" in r.marks]
    found = [figures for figures in marks if figures.get("on_topic") is not None]
    if not found:
        return ()
    rows = (
        ("Written rows on the topic of the seeds, last round", "on_topic"),
        ("… of the seeds themselves, each left out", "seeds_on_topic"),
        ("… of everyday tasks, each left out", "everyday_on_topic"),
    )
    shares = [(name, float(found[-1][key] or 0)) for name, key in rows]
    return tuple(Statistic(name, "", f"{100 * value:.1f} %", "", "") for name, value in shares)


def _part(name: str, part: int, whole: int, paper: int, paper_whole: int) -> Statistic:
    run = number(part) if whole else number(None)
    return Statistic(name, run, share(part, whole), f"{paper:,}", share(paper, paper_whole))


def _mean(name: str, total: int, rows: int, paper: str) -> Statistic:
    return Statistic(name, number(total / rows if rows else None), "", paper, "")
