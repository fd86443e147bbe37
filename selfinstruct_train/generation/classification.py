"""Step 2: is it a classification task? Log-probabilities of Yes and No decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from selfinstruct_train.generation.context import Counts, Workplace
from selfinstruct_train.generation.fitting import fit_prompt
from selfinstruct_train.generation.pool import derived_rng
from selfinstruct_train.generation.prompting import Prompt, classification_prompt
from selfinstruct_train.records import Classified, Instruction, SeedTask


def classify_instructions(place: Workplace, instructions: Sequence[Instruction]) -> None:
    """Say of each instruction of the round whether it is a classification task.

    Raises:
        EngineError: the engine failed, or a prompt cannot fit the context.
    """
    store = place.directory.store(place.directory.classified, Classified)
    step = place.config.generation.classification
    demonstrations = _demonstrations(place)
    counts = Counts(f"round {place.round} classification", place.report)
    size = step.requests_per_batch
    first = store.resume(size)
    counts.kept = sum(row.is_classification for row in store.read()[:first])
    for start in range(first, len(instructions), size):
        batch = instructions[start : start + size]
        rows = _classify(place, demonstrations, batch, counts)
        store.emit(rows)
        counts.kept += sum(row.is_classification for row in rows)
        counts.show(start + len(batch), len(instructions), note=f"{counts.kept} are classification")
    place.directory.finish(
        "classification",
        counts.seconds,
        instructions=len(instructions),
        classification=counts.kept,
        trimmed_prompts=counts.trimmed,
    )


def _demonstrations(place: Workplace) -> list[SeedTask]:
    step = place.config.generation.classification
    rng = derived_rng(place.config.seed, "classification demonstrations")
    yes = [d for d in place.prompts.classification if d.is_classification]
    no = [d for d in place.prompts.classification if not d.is_classification]
    shown = yes[: step.yes_demonstrations] + no[: step.no_demonstrations]
    rng.shuffle(shown)
    return shown


def _classify(
    place: Workplace,
    demonstrations: Sequence[SeedTask],
    batch: Sequence[Instruction],
    counts: Counts,
) -> list[Classified]:
    wording = place.prompts.wording
    by_prefix: dict[str, list[tuple[int, Prompt]]] = defaultdict(list)
    for i, row in enumerate(batch):
        prompt = classification_prompt(wording, demonstrations, row.instruction)
        fitted, kept = fit_prompt(place.engine, prompt, max_tokens=8)
        counts.trimmed += len(kept) < len(demonstrations)
        by_prefix["".join((fitted.header, *fitted.demonstrations))].append((i, fitted))
    adapter: Path | None = None  # a tuned model has forgotten how to answer few-shot
    scores: dict[int, list[float]] = {}
    for prefix, asked in by_prefix.items():
        rows = place.engine.score(
            prefix,
            [prompt.question for _, prompt in asked],
            [f" {wording.yes}", f" {wording.no}"],
            adapter,
        )
        scores |= {i: row for (i, _), row in zip(asked, rows, strict=True)}
    return [
        Classified(
            id=row.id,
            is_classification=scores[i][0] > scores[i][1],
            logprob_yes=round(scores[i][0], 4),
            logprob_no=round(scores[i][1], 4),
        )
        for i, row in enumerate(batch)
    ]
