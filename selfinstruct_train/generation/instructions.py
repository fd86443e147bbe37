"""Step 1: the model continues a numbered list of instructions; what is new joins the pool."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.evolution import evolved_from
from selfinstruct_train.generation.filters import FilterResult, InstructionFilter
from selfinstruct_train.generation.instruction_requests import (
    ask_instructions,
    list_room,
    read_answer,
)
from selfinstruct_train.generation.pool import UNLABELLED, Candidate, Entry, Group, Pool
from selfinstruct_train.packs.operations import Operations
from selfinstruct_train.records import Instance, Instruction, Neighbour, Provenance, Rejection


class Found(NamedTuple):
    """A candidate as it was read from a completion."""

    text: str
    provenance: Provenance
    group: Group = UNLABELLED
    instance: Instance | None = None
    """What it was written for, where that is there already."""
    fault: FilterResult | None = None
    """Why it is dropped whatever it says."""


class InstructionWriter:
    """Grows the pool until the round has its share, or the model has nothing new to say.

    It can be asked for more again and again: candidates that were left over come first. What it
    writes follows from the targets alone, so a resumed round that asks for the same writes the
    same.
    """

    def __init__(self, context: StageContext, pool: Pool) -> None:
        config = context.config.generation
        self._context = context
        self._pool = pool
        self._accepted = context.directory.store(context.directory.instructions, Instruction)
        self._rejected = context.directory.store(
            context.directory.rejected("instructions"), Rejection
        )
        self._journal = context.journal("instructions")
        # A system message of the pack's or a domain's is not looked for: tasks may share its words.
        own = context.style("instructions") != "completion"
        preamble = context.template.without_system().user_prefix() if own else ""
        self._screen = InstructionFilter(config.filters, context.pack.rules, preamble)
        self._adapter = context.adapter if config.instruction_writer == "tuned" else None
        self._counts = Counts(f"round {context.round} instructions", context.report)
        self._recent: deque[bool] = deque(maxlen=config.saturation_window)
        self._waiting: list[Found] = []
        self._requests = self._candidates = self._unused_room = 0
        # Of these, candidates and accepted ones that others found.
        self._others = self._others_kept = 0
        self._noted: dict[str, float | int | str | None] = {}

    def admit(self, found: Sequence[Found], tokens: int) -> list[Entry | None]:
        """Screen candidates that others found; those that are new join the round and the pool.

        Args:
            found: in their order.
            tokens: written for them.

        Returns:
            For each the instruction, or None where it was dropped.
        """
        before = self._candidates
        operations = self._context.pack.operations
        kept = {n: _entry(row, operations) for row, n in self._sort_out(found)}
        self._counts.tokens += tokens
        self._others += len(found)
        self._others_kept += len(kept)
        return [kept.get(n) for n in range(before, self._candidates)]

    def note(self, figures: dict[str, float | int | str | None]) -> None:
        """Keep figures of those who found others for the completion mark."""
        self._noted = figures

    def write(self, target: int) -> list[Entry]:
        """Go on until the round has so many instructions.

        It ends before that when the last ``saturation_window`` candidates yielded less than
        ``saturation_floor``, or after ``max_requests`` requests.

        Args:
            target: instructions of the round, those of earlier calls included.

        Returns:
            The new ones; what else is known of them stays on the disk.

        Raises:
            EngineError: the engine failed, or a prompt cannot fit the context.
        """
        written: list[Entry] = []
        counts = self._counts
        while counts.kept < target:
            if not self._waiting:
                if self._why_stop() is not None:
                    break
                self._ask_batch(target - counts.kept)
            # As many as are missing at most, so that none is accepted beyond the target.
            missing = target - counts.kept
            found, self._waiting = self._waiting[:missing], self._waiting[missing:]
            before = self._candidates
            kept = self._sort_out(found)
            written += [_entry(row, self._context.pack.operations) for row, _ in kept]
            numbers = {number for _, number in kept}
            self._recent.extend(n in numbers for n in range(before, self._candidates))
            counts.show(counts.kept, target)
        return written

    def _sort_out(self, found: Sequence[Found]) -> list[tuple[Instruction, int]]:
        """Store what is kept and what is dropped of candidates; the kept ones with their number."""
        kept, dropped = _screen(self._context, self._pool, self._screen, found, self._candidates)
        self._candidates += len(found)
        self._accepted.emit(row for row, _ in kept)
        self._counts.drop(self._rejected, dropped)
        self._counts.kept += len(kept)
        return kept

    def finish(self) -> None:
        """Write the completion mark, which says why the stage ended."""
        reason = self._why_stop() or "enough"
        counts = self._counts
        self._context.directory.finish(
            "instructions",
            counts.seconds,
            requests=self._requests,
            candidates=self._candidates,
            accepted=counts.kept,
            stopped_because=reason,
            tokenizer=self._pool.tokenizer,
            completion_tokens=counts.tokens,
            trimmed_prompts=counts.trimmed,
            **self._of_texts(),
            **self._noted,
        )
        counts.show(counts.kept, None, note=reason)

    def _of_texts(self) -> dict[str, int]:
        generation = self._context.config.generation
        if generation.texts is None:
            return {}
        return {
            # Each was asked once for every task.
            "passages": self._others // len(generation.passages.tasks),
            "candidates_of_texts": self._others,
            "accepted_of_texts": self._others_kept,
        }

    def _ask_batch(self, missing: int) -> None:
        config = self._context.config.generation
        step, counts = config.instructions, self._counts
        size = min(
            step.requests_per_batch, config.max_requests - self._requests, self._needed(missing)
        )
        batch = [
            ask_instructions(self._context, self._pool, self._requests + i) for i in range(size)
        ]
        counts.trimmed += sum(asked.trimmed for asked in batch)
        completions = self._journal.ask([asked.request for asked in batch], self._adapter)
        self._requests += size
        counts.tokens += sum(c.completion_tokens for c in completions)
        for asked, completion in zip(batch, completions, strict=True):
            for text in read_answer(self._context, completion, asked):
                self._waiting.append(Found(text, asked.provenance, asked.group))
        # What the lists had room for, counted only while nothing at all comes back.
        room = sum(list_room(self._context, asked.shown) for asked in batch)
        self._unused_room = 0 if self._waiting else self._unused_room + room

    def _needed(self, missing: int) -> int:
        """Requests that should yield what is missing, by what they have yielded so far."""
        step = self._context.config.generation.instructions
        if listed := self._counts.kept - self._others_kept:
            return math.ceil(missing * self._requests / listed)
        if self._requests:
            return step.requests_per_batch
        shown = step.seed_demonstrations + step.machine_demonstrations
        return math.ceil(missing / max(1, list_room(self._context, shown)))

    def _why_stop(self) -> str | None:
        config = self._context.config.generation
        recent = self._recent
        if len(recent) == config.saturation_window:
            rate = sum(recent) / len(recent)
            if rate < config.saturation_floor:
                return (
                    f"saturated: {sum(recent)} of the last {len(recent)} candidates were new, "
                    f"under the floor of {config.saturation_floor:.0%}"
                )
        if self._unused_room >= config.saturation_window:
            return (
                f"saturated: the last prompts had room for {self._unused_room} instructions and "
                "yielded none: the model does not continue the list, or its first item is cut off "
                "by max_tokens"
            )
        if self._requests >= config.max_requests:
            return (
                f"request cap: {self._requests} requests yielded {self._counts.kept} instructions"
            )
        return None


class FinishedInstructions:
    """The instructions of a round whose first step is finished, in the place of their writer."""

    def __init__(self, rows: Iterable[Instruction], number: int, operations: Operations) -> None:
        self._rows = [_entry(row, operations) for row in rows]
        self._known = {row.id: row for row in self._rows}
        self._round = number
        self._taken = self._candidates = 0

    def admit(self, found: Sequence[Found], tokens: int) -> list[Entry | None]:
        """What became of candidates that others found, by their numbers."""
        numbers = range(self._candidates, self._candidates + len(found))
        self._candidates += len(found)
        kept = [self._known.get(_row_id(self._round, number)) for number in numbers]
        self._taken += sum(entry is not None for entry in kept)
        return kept

    def note(self, figures: dict[str, float | int | str | None]) -> None:
        """Nothing: the completion mark is there."""

    def write(self, target: int) -> Sequence[Entry]:
        """Those up to the target, as when they were written; in the end all that are left."""
        rows = self._rows[self._taken : target] or self._rows[self._taken :]
        self._taken += len(rows)
        return rows

    def finish(self) -> None:
        """Nothing: the completion mark is there."""


def _screen(
    context: StageContext,
    pool: Pool,
    screen: InstructionFilter,
    found: Sequence[Found],
    first: int,
) -> tuple[list[tuple[Instruction, int]], list[Rejection]]:
    """Rules, then novelty; what is kept is returned with the number of its candidate."""
    kept: list[tuple[Instruction, int]] = []
    dropped: list[tuple[Rejection, int]] = []
    passed: list[tuple[Found, Candidate, int]] = []
    for number, one in enumerate(found, first):
        fault = one.fault or screen.fault(one.text)
        if fault is None and context.toxicity is not None:
            fault = context.toxicity.fault(one.text)
        if fault is not None:
            dropped.append((_rejection(one, fault), number))
        else:
            row_id = _row_id(context.round, number)
            candidate = Candidate(row_id, one.text, one.group, one.provenance.operation)
            passed.append((one, candidate, number))
    admissions = pool.admit([candidate for _, candidate, _ in passed])
    for (one, candidate, number), admission in zip(passed, admissions, strict=True):
        if admission.accepted:
            accepted = Instruction(
                id=candidate.id,
                instruction=candidate.instruction,
                nearest=admission.nearest,
                mean_similarity=_rounded(admission.mean_similarity),
                nearest_seed=admission.nearest_seed,
                provenance=one.provenance,
                **candidate.group._asdict(),
            )
            kept.append((accepted, number))
        else:
            assert (near := admission.nearest) is not None
            fault = FilterResult("not_novel", f"ROUGE-L {near.score:.3f} with {near.id}")
            dropped.append((_rejection(one, fault, near), number))
    dropped.sort(key=lambda pair: pair[1])
    return kept, [row for row, _ in dropped]


def _rejection(found: Found, fault: FilterResult, nearest: Neighbour | None = None) -> Rejection:
    instance = found.instance or Instance(output="")
    return Rejection(
        stage="instruction",
        reason=fault.reason,
        evidence=fault.evidence,
        instruction=found.text,
        input=instance.input,
        output=instance.output,
        nearest=nearest,
        provenance=found.provenance,
    )


def _entry(row: Instruction, operations: Operations) -> Entry:
    return Entry(row.id, row.instruction, parent=evolved_from(row.provenance, operations))


def _row_id(number: int, candidate: int) -> str:
    return f"r{number}-{candidate:06d}"


def _rounded(similarity: float | None) -> float | None:
    return None if similarity is None else round(similarity, 6)
