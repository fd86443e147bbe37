"""A few rows through all steps: what was asked and written, and what the whole would take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Completion, Engine, PassedOn, Request
from selfinstruct_train.records import Classified, GeneratedInstance
from selfinstruct_train.report.explain import request_results
from selfinstruct_train.rounds.inputs import read_inputs
from selfinstruct_train.rounds.trial import trial_of
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore


class _Asked(NamedTuple):
    request: Request
    completion: Completion


class _Listener(PassedOn):
    """An engine that remembers what passes through it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.asked: list[_Asked] = []
        self.score = engine.score

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield the completions as they come."""
        by_id = {request.id: request for request in requests}
        for completion in self._engine.generate(requests, adapter):
            self.asked.append(_Asked(by_id[completion.id], completion))
            yield completion


def preview(config: Config, instructions: int) -> Iterator[str]:
    """Write a few instructions and their instances in a folder that is then deleted.

    Args:
        config: the settings of the run, of which nothing is written.
        instructions: how many to write.

    Yields:
        Lines for a terminal, which may hold any character that a model wrote: each prompt, what
        was written after it and what became of it; the rows; the tokens, and a forecast.

    Raises:
        ConfigError: by these settings nothing is written.
        SelfInstructError: what a run would object to.
    """
    with tempfile.TemporaryDirectory(prefix="selfinstruct-preview-") as folder:
        trial = trial_of(config, Path(folder) / "run", 1, "shown")
        step = config.generation.instructions.model_copy(update={"requests_per_batch": 1})
        few = {"instructions_per_round": instructions, "instructions": step}
        generation = trial.generation.model_copy(update=few)
        small = trial.model_copy(update={"generation": generation})
        inputs = read_inputs(small, ("generate",))
        from selfinstruct_train.rounds.loop import Loop  # loads torch

        loop = Loop(small, ("generate",), inputs=inputs)
        listener = _Listener(loop.opened.engine)
        loop.opened.engine = listener
        began = time.monotonic()
        with loop.run.log.recording("preview"):
            loop.generate(0)
        seconds = time.monotonic() - began
        yield from _requests(loop.run, listener.asked)
        yield from _rows(loop.run)
        yield from _forecast(config, instructions, listener.asked, seconds)


def _requests(run: RunDirectory, asked: Sequence[_Asked]) -> Iterator[str]:
    for request, completion in asked:
        yield f"=== {request.id}: {completion.prompt_tokens} tokens of prompt"
        yield from (f"| {line}" for line in request.prompt.split("\n"))
        ended = completion.finish_reason
        yield f"--- wrote {completion.completion_tokens} tokens, ended by {ended}"
        yield from (f"> {line}" for line in completion.text.split("\n"))
        yield from request_results(run, request.id)


def _rows(run: RunDirectory) -> Iterator[str]:
    directory = run.round(0)
    kinds = {row.id: row for row in RowStore(directory.classified, Classified).stream()}
    yield "=== rows"
    for row in RowStore(directory.instances, GeneratedInstance, writable=False).stream():
        kind = kinds.get(row.instruction_id)
        label = "classification" if kind and kind.is_classification else "other"
        yield f"{row.id} ({label}): {row.instruction}"
        yield f"  input:  {row.input}"
        yield f"  output: {row.output}"


def _forecast(
    config: Config, instructions: int, asked: Sequence[_Asked], seconds: float
) -> Iterator[str]:
    written = sum(one.completion.completion_tokens for one in asked)
    read = sum(one.completion.prompt_tokens for one in asked)
    generation = config.generation
    wanted = generation.instructions_per_round * config.rounds
    times = wanted / instructions
    yield "=== forecast"
    yield f"{instructions} instructions: {written:,} tokens written, {read:,} read, {seconds:.0f} s"
    yield (
        f"{config.rounds} rounds of {generation.instructions_per_round:,}: about "
        f"{written * times:,.0f} tokens written, {read * times:,.0f} read, at most "
        f"{seconds * times / 60:,.0f} min at this pace; full batches are faster, and later rounds "
        "find fewer new instructions. Training and evaluation come on top"
    )
