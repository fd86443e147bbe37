"""Writing many completions at once: a finished row's slot goes to the next request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch

from selfinstruct_train.engines.base import Completion
from selfinstruct_train.engines.local.attention import Prefix
from selfinstruct_train.engines.local.model_runner import ModelRunner
from selfinstruct_train.engines.local.sampling import Chooser
from selfinstruct_train.engines.local.sequence import DecodingSequence


class Decoder:
    """Slots under one prefix; the first ``len(rows)`` are busy."""

    def __init__(
        self, runner: ModelRunner, prefix: Prefix | None, slots: int, capacity: int
    ) -> None:
        self._runner = runner
        self._prefix = prefix
        self._shared = len(prefix.tokens) if prefix else 0
        self._slots = runner.take_slots(slots, capacity)
        self._count = slots
        self._refill = max(1, slots // 8)
        """Free slots that are worth a pass to fill them."""
        self._rows: list[DecodingSequence] = []
        self._lengths = torch.zeros(slots, dtype=torch.long, device=runner.device)
        self._seen = torch.zeros(
            slots, self._shared + capacity + 1, dtype=torch.long, device=runner.device
        )
        self._chooser: Chooser | None = None

    def write(self, sequences: Sequence[DecodingSequence]) -> Iterator[Completion]:
        """Yield the completions as they are finished."""
        waiting = deque(sequences)
        while waiting or self._rows:
            free = self._count - len(self._rows)
            if waiting and (free >= min(self._refill, len(waiting)) or not self._rows):
                yield from self._admit([waiting.popleft() for _ in range(min(free, len(waiting)))])
            if self._rows:
                yield from self._step()
        self._runner.keep_slots(self._slots)

    @torch.inference_mode()
    def _admit(self, sequences: Sequence[DecodingSequence]) -> list[Completion]:
        done = []
        self._chooser = None
        for group in _fitting(sequences, self._shared, self._runner.fill_tokens):
            first = len(self._rows)
            suffixes = [sequence.prompt[self._shared :] for sequence in group]
            logits = self._runner.fill(self._slots, first, self._prefix, suffixes)
            for row, sequence in enumerate(group, first):
                self._lengths[row] = len(sequence.prompt) - self._shared
                self._seen[row] = sequence.prompt[0]
                self._seen[row, : len(sequence.prompt)] = torch.tensor(sequence.prompt)
            chooser = Chooser([d.request.sampling for d in group], self._runner.device)
            longest = max(len(sequence.prompt) for sequence in group)
            seen = self._seen[first : first + len(group), :longest]
            choice = chooser.choose(logits, seen, [0] * len(group))
            self._rows.extend(group)
            done += self._take(first, choice.tokens, choice.logprobs)
        return done

    @torch.inference_mode()
    def _step(self) -> list[Completion]:
        rows = self._rows
        lengths = self._lengths[: len(rows)]
        longest = max(len(d.prompt) + len(d.tokens) for d in rows) - 1 - self._shared
        tokens = torch.tensor([d.tokens[-1] for d in rows], device=self._runner.device)
        logits = self._runner.step(self._slots, self._prefix, tokens, lengths, longest)
        if self._chooser is None:
            self._chooser = Chooser([d.request.sampling for d in rows], self._runner.device)
        self._seen[self._slots.rows, lengths + self._shared] = tokens
        seen = self._seen[: len(rows), : self._shared + longest + 1]
        choice = self._chooser.choose(logits, seen, [len(d.tokens) for d in rows])
        lengths += 1
        return self._take(0, choice.tokens, choice.logprobs)

    def _take(
        self, first: int, tokens: Sequence[int], logprobs: Sequence[float]
    ) -> list[Completion]:
        """Give each row from ``first`` on its token; free the slots of those that end."""
        done = []
        ended = []
        for row, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True), first):
            completion = self._rows[row].add(token, logprob)
            if completion is not None:
                done.append(completion)
                ended.append(row)
        # From the back, so that the last row, which fills the gap, is never one that ended.
        for row in reversed(ended):
            last = self._rows.pop()
            if row < len(self._rows):
                source, length = len(self._rows), len(last.prompt) + len(last.tokens) - self._shared
                self._slots.move(source, row, length)
                self._lengths[row] = self._lengths[source]
                self._seen[row] = self._seen[source]
                self._rows[row] = last
        if ended:
            self._chooser = None
        return done


def _fitting(
    sequences: Sequence[DecodingSequence], shared: int, most: int
) -> Iterator[list[DecodingSequence]]:
    """Cut into groups that one pass can take."""
    group: list[DecodingSequence] = []
    longest = 0
    for sequence in sequences:
        length = max(longest, len(sequence.prompt) - shared)
        if group and length * (len(group) + 1) > most:
            yield group
            group, length = [], len(sequence.prompt) - shared
        group.append(sequence)
        longest = length
    if group:
        yield group
