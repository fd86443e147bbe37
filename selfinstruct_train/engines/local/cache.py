"""Memory for keys and values: one slot for each row under way, written in place."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer


class Slots(Cache):  # type: ignore[misc]
    """Slots of equal size, the busy ones first; each holds its row's tokens from its start on.

    Set ``lengths`` before a pass: to the number of tokens in each busy slot for a step of one
    token a row, or to None, with ``first``, to fill empty slots.
    """

    def __init__(self, count: int, capacity: int, layers: int) -> None:
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])
        self.count = count
        self.capacity = capacity
        self.first = 0
        self.lengths: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        """[busy slots], counting from 0; goes with ``lengths``."""
        self.width = 0
        """Places of a slot that a step reads: the longest length, plus one."""

    def fits(self, count: int, capacity: int) -> bool:
        """Whether these can stand in for new slots: more of them will do, longer ones not.

        At other distances in memory a matrix product may round differently.
        """
        return self.count >= count and self.capacity == capacity

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first ``length`` places over another slot."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :, :length] = buffer[source, :, :length]


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states; return those that the rows attend to."""
        slots = self._slots
        if not self.is_initialized:
            self._allocate(key_states, value_states)
        if slots.lengths is None:
            rows, tokens = slice(slots.first, slots.first + len(key_states)), key_states.shape[2]
            self.keys[rows, :, :tokens] = key_states
            self.values[rows, :, :tokens] = value_states
            return key_states, value_states
        self.keys[slots.rows, :, slots.lengths] = key_states[:, :, 0]
        self.values[slots.rows, :, slots.lengths] = value_states[:, :, 0]
        busy = len(key_states)
        return self.keys[:busy, :, : slots.width], self.values[:busy, :, : slots.width]

    def get_seq_length(self) -> int:
        """Nothing that a model may count on: positions are given with each pass."""
        return 0

    def _allocate(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # Zeros, because hidden places are multiplied by a weight of 0, which does not fix a NaN.
        self.keys, self.values = (
            states.new_zeros(
                self._slots.count, states.shape[1], self._slots.capacity, states.shape[3]
            )
            for states in (key_states, value_states)
        )
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True
