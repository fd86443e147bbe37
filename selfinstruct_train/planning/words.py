"""A plan as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from selfinstruct_train.planning.measured import Compared

if TYPE_CHECKING:
    from selfinstruct_train.planning.memory import Memory
    from selfinstruct_train.planning.plan import Plan

_GIB = 2**30
_PARTS = ("program", "weights", "cache", "adapter", "optimizer", "activations", "logits")


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan for a terminal: work and time by stage, memory, what does not fit, the sum."""
    yield f"estimate for {plan.model} ({plan.parameters:,} parameters) on {plan.machine}"
    yield f"times: {plan.basis}"
    yield plan.expected.sentence
    yield ""
    seconds = {stage.stage: stage.seconds for stage in plan.stages}
    asked = [
        (
            work.stage,
            f"{work.requests:,}",
            f"{work.prompt_tokens:,}",
            f"{work.prompt_tokens - work.shared_tokens:,}",
            f"{work.completion_tokens:,}",
            duration(seconds[work.stage]) if work.stage in seconds else "by the server",
        )
        for work in plan.asked
    ]
    yield from table(("stage", "requests", "prompt tokens", "computed", "written", "time"), asked)
    yield ""
    trained = [
        (
            work.stage,
            f"{work.trainings}",
            f"{work.rows:,}",
            f"{work.steps:,}",
            f"{work.tokens:,}",
            f"{work.computed_tokens:,}",
            duration(seconds[work.stage]),
        )
        for work in plan.trained
    ]
    names = ("stage", "trainings", "rows", "steps", "tokens", "with padding", "time")
    yield from table(names, trained)
    yield ""
    yield f"memory in GiB, of {plan.available / _GIB:.1f}:"
    rows = [(part.stage, *_amounts(part), f"{part.total / _GIB:.2f}") for part in plan.memory]
    yield from table(("stage", *_PARTS, "together"), rows)
    yield ""
    yield from plan.shortages
    if plan.served_prompt_tokens is not None:
        yield (
            f"tokens billed by the server: {plan.served_prompt_tokens:,} of prompts, "
            f"{plan.served_completion_tokens:,} written"
        )
    if plan.batches is not None:
        yield (
            f"asked in about {plan.batches:,} batches, one after another: most vendors take half "
            "the price for them, and up to 24 h each"
        )
    for assumption in plan.assumptions:
        yield f"assumed: {assumption}"
    if plan.left_out:
        yield f"not counted: {', '.join(plan.left_out)}"
    cost = "" if plan.cost is None else f", {plan.cost:,.2f} at that price"
    yield f"together (estimate): {duration(plan.hours * 3600)}{cost}"


def compared_lines(found: Sequence[Compared]) -> Iterator[str]:
    """Forecast (an estimate) against measured, figure by figure."""
    rows = [
        (
            row.figure,
            f"{row.forecast:,.0f}",
            f"{row.measured:,.0f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
        )
        for row in found
    ]
    yield from table(("figure", "estimate", "measured", "ratio"), rows)


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (names, *rows)) for i in range(len(names))]
    for row in (names, *rows):
        cells = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()


def duration(seconds: float) -> str:
    """A time in the unit that a person would use."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _amounts(memory: Memory) -> list[str]:
    return [f"{getattr(memory, part) / _GIB:.2f}" for part in _PARTS]
