"""Step 1: the model continues a numbered list of instructions; what is new joins the pool."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.engines.base import Request
from selfinstruct_train.generation.context import Counts, Workplace
from selfinstruct_train.generation.filters import InstructionFilter
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.pool import Candidate, Entry, Pool, derived_rng, derived_seed
from selfinstruct_train.generation.prompting import instruction_prompt, read_instructions
from selfinstruct_train.records import Instruction, Provenance, Rejection, Sampling


class _Asked(NamedTuple):
    request: Request
    shown: tuple[Entry, ...]
    trimmed: bool


def write_instructions(place: Workplace, pool: Pool) -> None:
    """Grow the pool until the round has its share, or the model has nothing new to say.

    It ends when the round's number of instructions is reached, when the last ``saturation_window``
    candidates yielded less than ``saturation_floor``, or after ``max_requests`` requests; the
    completion mark says which.

    Raises:
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    config = place.config.generation
    accepted = place.directory.store(place.directory.instructions, Instruction)
    rejected = place.directory.store(place.directory.rejected("instructions"), Rejection)
    journal = place.journal("instructions")
    screen = InstructionFilter(config.filters, place.rules)
    adapter = place.adapter if config.instruction_writer == "tuned" else None
    counts = Counts(f"round {place.round} instructions", place.report)
    recent: deque[bool] = deque(maxlen=config.saturation_window)
    requests = candidates = barren = 0
    stopped = None
    while stopped is None:
        size = min(config.instructions.requests_per_batch, config.max_requests - requests)
        batch = [_ask(place, pool, requests + i) for i in range(size)]
        counts.trimmed += sum(asked.trimmed for asked in batch)
        completions = journal.ask([asked.request for asked in batch], adapter)
        requests += size
        counts.tokens += sum(c.completion_tokens for c in completions)
        found = [
            (text, place.provenance(asked.request, (e.id for e in asked.shown), adapter))
            for asked, completion in zip(batch, completions, strict=True)
            for text in _read(completion, len(asked.shown) + 1, config.instructions.last_item)
        ]
        # What the lists had room for, counted only while nothing at all comes back.
        room = sum(config.instructions.last_item - 1 - len(asked.shown) for asked in batch)
        barren = barren + room if not found else 0
        candidates += len(found)
        kept, dropped = _screen(place, pool, screen, found, candidates - len(found))
        accepted.emit(row for row, _ in kept)
        counts.drop(rejected, [row for row, _ in dropped])
        counts.kept += len(kept)
        order = sorted([(n, True) for _, n in kept] + [(n, False) for _, n in dropped])
        recent.extend(was_kept for _, was_kept in order)
        stopped = _why_stop(place, counts.kept, requests, recent, barren)
        counts.show(counts.kept, config.instructions_per_round)
    place.directory.finish(
        "instructions",
        counts.seconds,
        requests=requests,
        candidates=candidates,
        accepted=counts.kept,
        stopped_because=stopped,
        completion_tokens=counts.tokens,
        trimmed_prompts=counts.trimmed,
    )
    counts.show(counts.kept, config.instructions_per_round, note=stopped)


def _ask(place: Workplace, pool: Pool, index: int) -> _Asked:
    step = place.config.generation.instructions
    key = (place.config.seed, place.round, "instructions", index)
    shown = pool.demonstrations(
        derived_rng(*key, "demonstrations"), step.seed_demonstrations, step.machine_demonstrations
    )
    prompt = instruction_prompt(place.prompts.wording, [entry.instruction for entry in shown])
    fitted, kept = fit_prompt(place.engine, prompt, step.max_tokens)
    if len(kept) < len(shown):
        shown = [shown[i] for i in kept]
        fitted = instruction_prompt(place.prompts.wording, [entry.instruction for entry in shown])
    sampling = Sampling(
        max_tokens=step.max_tokens,
        temperature=step.temperature,
        top_p=step.top_p,
        top_k=step.top_k,
        repetition_penalty=step.repetition_penalty,
        stop=("\n\n", f"\n{step.last_item}.", f"\n{step.last_item})"),
        seed=derived_seed(*key, "sampling"),
    )
    request = Request(place.request_id("instructions", index), fitted.text, sampling)
    return _Asked(request, tuple(shown), len(kept) < len(prompt.demonstrations))


def _read(completion: StoredCompletion, first: int, last_item: int) -> list[str]:
    found = read_instructions(completion.text, first, completion.finish_reason == "length")
    return found[: max(0, last_item - first)]


def _screen(
    place: Workplace,
    pool: Pool,
    screen: InstructionFilter,
    found: list[tuple[str, Provenance]],
    first: int,
) -> tuple[list[tuple[Instruction, int]], list[tuple[Rejection, int]]]:
    """Rules, then novelty; every row is returned with the number of its candidate."""
    kept: list[tuple[Instruction, int]] = []
    dropped: list[tuple[Rejection, int]] = []
    passed: list[tuple[Candidate, Provenance, int]] = []
    for number, (text, provenance) in enumerate(found, first):
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
            candidate = Candidate(f"r{place.round}-{number:06d}", text)
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


def _why_stop(
    place: Workplace, kept: int, requests: int, recent: deque[bool], barren: int
) -> str | None:
    config = place.config.generation
    if kept >= config.instructions_per_round:
        return "enough"
    if len(recent) == config.saturation_window:
        rate = sum(recent) / len(recent)
        if rate < config.saturation_floor:
            return (
                f"saturated: {sum(recent)} of the last {len(recent)} candidates were new, under "
                f"the floor of {config.saturation_floor:.0%}"
            )
    if barren >= config.saturation_window:
        return (
            f"saturated: the last prompts had room for {barren} instructions and yielded none: "
            "the model does not continue the list, or its first item is cut off by max_tokens"
        )
    if requests >= config.max_requests:
        return f"request cap: {requests} requests yielded {kept} instructions"
    return None
