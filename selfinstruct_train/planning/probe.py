"""A short generation of a config, for real: what its model yields and how fast it writes here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Completion, Engine, PassedOn, Request
from selfinstruct_train.errors import RunError
from selfinstruct_train.planning.expected import Yield, read_yield
from selfinstruct_train.rounds.inputs import read_inputs
from selfinstruct_train.rounds.trial import trial_of

Step = Literal["instructions", "classification", "instances"]
_FEWEST = 8
"""Instructions of the first piece of a probe: those of a model that nothing is known of."""
_PIECES = 8
_SPARE = 0.8
"""Share of the time that is left which the next piece may fill, by the pace so far."""


class Call(NamedTuple):
    """What the engine was asked in one go, and how long it took."""

    step: Step
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class Probe(NamedTuple):
    """What a short generation showed."""

    found: Yield
    calls: tuple[Call, ...]
    seconds: float
    """Time of all steps together, loading left out."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens written a second of writing."""
        writing = [call for call in self.calls if call.completion_tokens]
        seconds = sum(call.seconds for call in writing)
        return sum(call.completion_tokens for call in writing) / max(seconds, 1e-9)


class _OutOfTimeError(Exception):
    """The time of the probe is over."""


class _Clock(PassedOn):
    """An engine that takes the time of each call, and stops all when the time is over."""

    def __init__(self, engine: Engine, until: float) -> None:
        super().__init__(engine)
        self._until = until
        self.calls: list[Call] = []

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        """Yield the completions as they come."""
        step: Step = "instances"
        if requests and requests[0].id.split("-")[1] == "instructions":
            step = "instructions"
        began, asking, read, written = time.monotonic(), 0.0, 0, 0
        for completion in self._engine.generate(requests, adapter):
            asking += time.monotonic() - began
            read += completion.prompt_tokens
            written += completion.completion_tokens
            yield completion
            began = time.monotonic()
            if began > self._until:
                raise _OutOfTimeError
        self.calls.append(Call(step, len(requests), read, written, asking))

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, one row per suffix."""
        if (began := time.monotonic()) > self._until:
            raise _OutOfTimeError
        found = self._engine.score(prefix, suffixes, continuations, adapter)
        seconds = time.monotonic() - began
        read = sum(self.count_tokens([prefix + suffix for suffix in suffixes])) if suffixes else 0
        self.calls.append(Call("classification", len(suffixes), read, 0, seconds))
        return found


def probe(config: Config, seconds: float, say: Callable[[str], None]) -> Probe:
    """Write for about so long in a folder that is then deleted.

    The first piece is small; the next ones are as large as the time that is left allows.

    Args:
        config: the settings of the run, of which nothing is written. The base writes, for no model
            is tuned yet.
        seconds: time of the whole, loading left out.
        say: told how far it is.

    Raises:
        ConfigError: by these settings nothing is written.
        RunError: the time did not suffice for the first piece.
        SelfInstructError: what a run would object to.
    """
    with tempfile.TemporaryDirectory(prefix="selfinstruct-probe-") as folder:
        trial = trial_of(config, Path(folder) / "run", _PIECES, "probed")
        inputs = read_inputs(trial, ("generate",))
        from selfinstruct_train.rounds.loop import Loop  # loads torch

        loop = Loop(trial, ("generate",), inputs=inputs)
        began = time.monotonic()
        clock = _Clock(loop.opened.engine, began + seconds)
        loop.opened.engine = clock
        most = config.generation.instructions_per_round
        count, number, written = min(_FEWEST, most), 0, 0
        finished: tuple[Call, ...] = ()
        try:
            with loop.run.log.recording("probe"):
                while count and number < _PIECES:
                    loop.config = _with_count(loop.config, config, count)
                    loop.generate(number)
                    finished, number, written = tuple(clock.calls), number + 1, written + count
                    took = time.monotonic() - began
                    say(f"probe: {written} instructions in {took:.0f} s")
                    fitting = int(_SPARE * (seconds - took) * written / took)
                    count = min(fitting, most) if fitting >= _FEWEST else 0
        except _OutOfTimeError:
            say(f"probe: stopped after {seconds:.0f} s")
        finally:
            loop.progress.close()
            clock.close()
        if not finished:
            raise RunError(
                f"--probe: {seconds:.0f} s did not suffice for {count} instructions with their "
                "instances; give it longer, such as --probe 10m"
            )
        return Probe(read_yield(loop.run), finished, sum(call.seconds for call in finished))


def _with_count(loop: Config, config: Config, count: int) -> Config:
    """So many instructions, in lists that do not bring many more than these."""
    step = loop.generation.instructions
    lists = max(1, min(config.generation.instructions.requests_per_batch, count // 4))
    changes = {
        "instructions_per_round": count,
        "instructions": step.model_copy(update={"requests_per_batch": lists}),
    }
    return loop.model_copy(update={"generation": loop.generation.model_copy(update=changes)})
