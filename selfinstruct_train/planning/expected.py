"""What a model is expected to yield: ratios of the recorded quickstart, or of an earlier run."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.errors import RunError
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.marks import Mark

RECORDED = "the recorded quickstart of the embedded model (docs/log.md)"


Assumed = Literal["kept_of_texts", "held_wrong", "right_again", "kept_of_replay"]
"""Figures that the recorded quickstart does not have, for it does without what they are of."""


class Expected(Row):
    """Ratios that turn settings into numbers of requests, rows and tokens.

    The defaults are those of both rounds of ``configs/quickstart.yaml`` on the embedded model,
    2026-11-25. Lengths are relative to the seeds', so that they carry over to other seeds.
    """

    basis: str = RECORDED
    """Where the figures come from."""
    list_fill: float = 0.98
    """Candidates of step 1 of all that the lists have room for."""
    acceptance: float = 0.94
    """Candidates that join the pool."""
    with_instance: float = 0.95
    """Accepted instructions that end with an instance."""
    classification: float = 0.21
    """Accepted instructions that are classification tasks."""
    written_instances: float = 2.4
    """Complete instances written for one instruction."""
    kept_instances: float = 2.0
    """Instances kept of one instruction, before ``max_per_instruction`` is applied and before the
    arbiter judges their answers."""
    instruction_length: float = 1.03
    """Tokens of a list item relative to a seed's instruction with its number."""
    instances_length: float = 0.9
    """Tokens that step 3 writes for an instruction, relative to as many of the seeds' instances."""
    own_answer: float = 0.4
    """Tokens of an answer in the style ``magpie``, relative to the limit at which it is cut."""
    kept_of_texts: float = 0.4
    """What is kept of all that is written for passages (SmolLM2-135M, docs/log.md: 9 of 22)."""
    held_wrong: float = 0.2
    """Answers that the arbiter holds wrong."""
    right_again: float = 0.5
    """Of these, answers that it holds right when they are written again."""
    kept_of_replay: float = 0.9
    """Answers to prompts of replay that are neither cut nor dropped."""
    assumed: tuple[Assumed, ...] = ("kept_of_texts", "held_wrong", "right_again", "kept_of_replay")
    """Figures above that are not of the source but assumed."""

    @property
    def sentence(self) -> str:
        """The figures, named."""
        return (
            f"expected, from {self.basis}: {self.acceptance:.0%} of candidates accepted, lists "
            f"{self.list_fill:.0%} full, {self.written_instances:.2g} instances written and "
            f"{self.kept_instances:.2g} kept an instruction, {self.with_instance:.0%} of "
            f"instructions with one, {self.classification:.0%} classification"
        )


MAGPIE = Expected(
    basis="200 rows that SmolLM2-135M-Instruct wrote in the style magpie (docs/log.md)",
    list_fill=0.95,
    acceptance=0.93,
    with_instance=0.6,
    classification=0.24,
    written_instances=1.0,
    kept_instances=0.6,
    instruction_length=1.36,
)
"""Where instructions and instances both come of a chat model's own accord."""


def recorded(config: Config) -> Expected:
    """The ratios of the recorded run that asks as the config does.

    Args:
        config: the settings, their style settled.
    """
    generation = config.generation
    styles = {
        step.style or generation.style for step in (generation.instructions, generation.instances)
    }
    return MAGPIE if styles == {"magpie"} else Expected()


class Yield(Row):
    """What the finished rounds of a run yielded, in absolute figures."""

    requests: int
    """Of step 1."""
    candidates: int
    accepted: int
    with_instance: int
    classification: int
    written: int
    """Instances, before any filter."""
    kept: int
    item_tokens: float
    """Mean tokens of a list item."""
    instances_tokens: float
    """Mean tokens that step 3 wrote for an instruction, answers that were asked again left out."""
    asked_of_texts: int = 0
    """Requests about passages."""
    kept_of_texts: int = 0
    judged: int = 0
    """Answers that the arbiter was asked about, where the run had it judge."""
    right_again: int = 0
    """Answers that were held wrong, and right when they were written again."""
    wrong_again: int = 0
    """Those that were held wrong twice, and so are not among the kept."""


class EarlierRun(NamedTuple):
    """A run whose yields are expected again."""

    path: Path
    found: Yield


def read_earlier(path: Path) -> EarlierRun:
    """Read what a run yielded.

    Raises:
        RunError: no round has finished generating.
    """
    return EarlierRun(path, read_yield(RunDirectory(path)))


def read_yield(run: RunDirectory) -> Yield:
    """Add up the finished rounds of a run.

    Raises:
        RunError: no round has finished generating.
    """
    found = [(part, marks) for part in run.rounds() if (marks := _marks(part))]
    if not found:
        raise RunError(
            f"{run.path}: no round has finished its instances, so there is nothing to go by; "
            "finish `selfinstruct generate`, or leave --from out"
        )
    totals = [_figures(*marks) for _, marks in found]
    lists = [row for part, _ in found for row in _journal(part, "instructions")]
    texts = [
        row.completion_tokens
        for part, _ in found
        for row in _journal(part, "instances")
        # Others of the journal are answers that were asked for again.
        if row.id.split("-")[1] == "instances"
    ]
    candidates = sum(total[1] for total in totals)
    return Yield(
        requests=sum(total[0] for total in totals),
        candidates=candidates,
        accepted=sum(total[2] for total in totals),
        with_instance=sum(total[3] for total in totals),
        classification=sum(total[4] for total in totals),
        written=sum(total[5] for total in totals),
        kept=sum(total[6] for total in totals),
        item_tokens=sum(row.completion_tokens for row in lists) / max(1, candidates),
        instances_tokens=fmean(texts) if texts else 0.0,
        asked_of_texts=sum(_int(first, "candidates_of_texts") for _, (first, _, _) in found),
        kept_of_texts=sum(_int(first, "accepted_of_texts") for _, (first, _, _) in found),
        judged=sum(
            total[6] + _int(third, "not_fixed")
            for total, (_, (_, _, third)) in zip(totals, found, strict=True)
            if "fixed" in third.figures
        ),
        right_again=sum(_int(third, "fixed") for _, (_, _, third) in found),
        wrong_again=sum(_int(third, "not_fixed") for _, (_, _, third) in found),
    )


def expected_from(
    found: Yield,
    source: str,
    room: float,
    item_tokens: float,
    instance_tokens: float,
    most_tokens: int,
) -> Expected:
    """The ratios of an earlier run.

    Args:
        found: what it yielded.
        source: its name.
        room: items that one of its requests had room for.
        item_tokens: of a seed's instruction as a list item.
        instance_tokens: of a seed's instance as step 3 writes it.
        most_tokens: at which step 3 cuts an answer.
    """
    accepted, written = max(1, found.accepted), found.written / max(1, found.accepted)
    seen: dict[Assumed, float] = {}
    if found.asked_of_texts:
        seen["kept_of_texts"] = found.kept_of_texts / found.asked_of_texts
    wrong = found.right_again + found.wrong_again
    if found.judged:
        seen["held_wrong"] = wrong / found.judged
    if wrong:
        seen["right_again"] = found.right_again / wrong
    return Expected(
        basis=source,
        list_fill=found.candidates / max(1, found.requests * room),
        acceptance=found.accepted / max(1, found.candidates),
        with_instance=found.with_instance / accepted,
        classification=found.classification / accepted,
        written_instances=written,
        kept_instances=(found.kept + found.wrong_again) / accepted,
        instruction_length=found.item_tokens / item_tokens,
        instances_length=found.instances_tokens / max(1.0, instance_tokens * written),
        own_answer=min(1.0, found.instances_tokens / most_tokens),
        assumed=tuple(name for name in Expected().assumed if name not in seen),
        **seen,
    )


def _marks(directory: RoundDirectory) -> tuple[Mark, Mark, Mark] | None:
    first, second, third = (
        directory.read_mark(stage) for stage in ("instructions", "classification", "instances")
    )
    return (first, second, third) if first and second and third else None


def _figures(first: Mark, second: Mark, third: Mark) -> tuple[int, ...]:
    accepted, without = _int(first, "accepted"), _int(third, "instructions_without_instance")
    kept, dropped = _int(third, "kept"), _int(third, "dropped")
    # Rows for own texts are no lists and have one instance each.
    of_texts = _int(first, "accepted_of_texts")
    return (
        _int(first, "requests"),
        _int(first, "candidates") - _int(first, "candidates_of_texts"),
        accepted - of_texts,
        accepted - of_texts - without,
        _int(second, "classification"),
        kept + dropped - of_texts,
        kept - of_texts,
    )


def _int(mark: Mark, name: str) -> int:
    return int(mark.figures.get(name) or 0)


def _journal(directory: RoundDirectory, stage: str) -> tuple[StoredCompletion, ...]:
    return directory.store(directory.completions(stage), StoredCompletion).read()
