"""Step 1: the model continues a numbered list of instructions; what is new joins the pool."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from selfinstruct_train.generation.context import Counts, StageContext
from selfinstruct_train.generation.filters import InstructionFilter
from selfinstruct_train.generation.instruction_requests import (
    ask_instructions,
    list_room,
    read_answer,
)
from selfinstruct_train.generation.pool import Candidate, Entry, Group, Pool
from selfinstruct_train.records import Instruction, Provenance, Rejection


class _Found(NamedTuple):
    """A candidate as it was read from a completion."""

    text: str
    provenance: Provenance
    group: Group


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
        self._screen = InstructionFilter(config.filters, context.pack.rules)
        self._adapter = context.adapter if config.instruction_writer == "tuned" else None
        self._counts = Counts(f"round {context.round} instructions", context.report)
        self._recent: deque[bool] = deque(maxlen=config.saturation_window)
        self._waiting: list[_Found] = []
        self._requests = self._candidates = self._unused_room = 0

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
            kept, dropped = _screen(
                self._context, self._pool, self._screen, found, self._candidates
            )
            self._candidates += len(found)
            self._accepted.emit(row for row, _ in kept)
            counts.drop(self._rejected, [row for row, _ in dropped])
            counts.kept += len(kept)
            written += [Entry(row.id, row.instruction) for row, _ in kept]
            order = sorted([(n, True) for _, n in kept] + [(n, False) for _, n in dropped])
            self._recent.extend(was_kept for _, was_kept in order)
            counts.show(counts.kept, target)
        return written

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
        )
        counts.show(counts.kept, None, note=reason)

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
                self._waiting.append(_Found(text, asked.provenance, asked.group))
        # What the lists had room for, counted only while nothing at all comes back.
        room = sum(list_room(self._context, asked.shown) for asked in batch)
        self._unused_room = 0 if self._waiting else self._unused_room + room

    def _needed(self, missing: int) -> int:
        """Requests that should yield what is missing, by what they have yielded so far."""
        step = self._context.config.generation.instructions
        if self._counts.kept:
            return math.ceil(missing * self._requests / self._counts.kept)
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

    def __init__(self, rows: Iterable[Instruction]) -> None:
        self._rows = [Entry(row.id, row.instruction) for row in rows]
        self._taken = 0

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
    found: Sequence[_Found],
    first: int,
) -> tuple[list[tuple[Instruction, int]], list[tuple[Rejection, int]]]:
    """Rules, then novelty; every row is returned with the number of its candidate."""
    kept: list[tuple[Instruction, int]] = []
    dropped: list[tuple[Rejection, int]] = []
    passed: list[tuple[Candidate, Provenance, int]] = []
    for number, (text, provenance, group) in enumerate(found, first):
        if fault := screen.fault(text):
            row = Rejection(
                stage="instruction",
                reason=fault.reason,
                evidence=fault.evidence,
                instruction=text,
                provenance=provenance,
            )
            dropped.append((row, number))
        else:
            row_id = f"r{context.round}-{number:06d}"
            candidate = Candidate(row_id, text, group, provenance.operation)
            passed.append((candidate, provenance, number))
    admissions = pool.admit([candidate for candidate, _, _ in passed])
    for (candidate, provenance, number), admission in zip(passed, admissions, strict=True):
        if admission.accepted:
            accepted = Instruction(
                id=candidate.id,
                instruction=candidate.instruction,
                nearest=admission.nearest,
                mean_similarity=_rounded(admission.mean_similarity),
                nearest_seed=admission.nearest_seed,
                provenance=provenance,
                **candidate.group._asdict(),
            )
            kept.append((accepted, number))
        else:
            assert admission.nearest is not None
            rejection = Rejection(
                stage="instruction",
                reason="not_novel",
                evidence=f"ROUGE-L {admission.nearest.score:.3f} with {admission.nearest.id}",
                instruction=candidate.instruction,
                nearest=admission.nearest,
                provenance=provenance,
            )
            dropped.append((rejection, number))
    dropped.sort(key=lambda pair: pair[1])
    return kept, dropped


def _rounded(similarity: float | None) -> float | None:
    return None if similarity is None else round(similarity, 6)
