"""Memory of a run by what takes it, and which setting fixes what does not fit.

Activations are counted as PyTorch keeps them for the backward pass of a decoder with gated linear
units, adapters beside all linear layers, and attention that keeps no scores: for each token and
layer the inputs of norms and linear layers, queries, keys and values, and the parts of the gated
unit (compare Korthikanti et al., arXiv 2205.05198, section 4).
"""

from __future__ import annotations

from typing import NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.planning.hardware import Hardware, cache_bytes
from selfinstruct_train.planning.sizes import ModelSize
from selfinstruct_train.planning.workload import Asked
from selfinstruct_train.records import Row

_PROGRAM = 0.55e9
"""Of Python and its libraries (docs/performance.md, "A run at size"), or of a CUDA context."""
_FLOAT32 = 4
_ADAM = 2 * _FLOAT32
_FOUR_BIT = 4.127 / 8
"""Bytes of a weight in 4 bits with its share of doubly quantized constants (arXiv 2305.14314)."""
_GIB = 2**30


class Memory(Row):
    """Bytes at the peak of a stage."""

    stage: str
    program: int
    """Libraries and, on a GPU, its context."""
    weights: int
    cache: int = 0
    """Keys and values of the rows under way."""
    adapter: int = 0
    """LoRA weights and their gradients, or the gradients of all weights, in float32."""
    optimizer: int = 0
    """Two moments of AdamW of each trained weight, in float32."""
    activations: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        """All together."""
        parts = (self.program, self.weights, self.cache, self.adapter, self.optimizer)
        return sum(parts) + self.activations + self.logits


class Shortage(NamedTuple):
    """A stage that does not fit, and a setting with which it does."""

    stage: str
    needed: int
    available: int
    fix: str

    @property
    def sentence(self) -> str:
        """What does not fit and what fixes it."""
        return (
            f"{self.stage} does not fit: {self.needed / _GIB:.1f} GiB of "
            f"{self.available / _GIB:.1f} GiB; {self.fix}"
        )


def writing_memory(work: Asked, size: ModelSize, weight_bytes: int, at_once: int) -> Memory:
    """Peak of a stage that writes.

    Args:
        work: the stage.
        size: of the model.
        weight_bytes: of a parameter.
        at_once: rows under way.
    """
    shared = work.shared_tokens // max(1, work.requests)
    tokens = at_once * work.longest + shared
    return Memory(
        stage=work.stage,
        program=int(_PROGRAM),
        weights=size.parameters * weight_bytes,
        cache=tokens * cache_bytes(size, weight_bytes),
        # In the model's precision, in float32, and sorted for drawing.
        logits=at_once * size.vocabulary * (weight_bytes + 2 * _FLOAT32),
    )


def training_memory(
    config: Config, size: ModelSize, weight_bytes: int, training_bytes: int, tokens: int
) -> Memory:
    """Peak of a training step.

    Args:
        config: the settings.
        size: of the model.
        weight_bytes: of a parameter of the base.
        training_bytes: of a number that the passes compute with.
        tokens: of the longest row.
    """
    training = config.training
    batch = min(training.micro_batch_size, training.batch_size) * tokens
    layer = layer_activations(size) * training_bytes
    kept = size.layers * layer
    if training.gradient_checkpointing:
        kept = size.layers * size.hidden * training_bytes + layer
    whole = training.adapter == "none"
    weights = size.parameters * weight_bytes
    if training.has_own_copy:
        kept_base = weights if config.generation.engine.kind == "transformers" else 0
        weights = kept_base + _copy_bytes(training.adapter, size, weight_bytes)
    return Memory(
        stage="training",
        program=int(_PROGRAM),
        weights=weights,
        adapter=size.adapter * (1 if whole else 2) * _FLOAT32,
        optimizer=size.adapter * _ADAM,
        activations=batch * kept,
        # As computed, in float32, and the gradient of both.
        logits=batch * size.vocabulary * 2 * (training_bytes + _FLOAT32),
    )


def _copy_bytes(adapter: str, size: ModelSize, weight_bytes: int) -> int:
    """Of the copy of the model that a training has of its own."""
    if adapter == "none":
        return size.parameters * _FLOAT32
    if adapter == "lora":
        return size.parameters * weight_bytes
    # Embeddings and head are not quantized.
    around = size.embedding * (1 if size.tied else 2)
    return int((size.parameters - around) * _FOUR_BIT + around * weight_bytes)


def layer_activations(size: ModelSize) -> int:
    """Numbers that one layer keeps of one token for the backward pass."""
    attention = 4 * size.hidden + 2 * size.query_width + 2 * size.key_width
    return attention + 4 * size.hidden + 4 * size.intermediate


def writing_shortage(
    work: Asked, size: ModelSize, weight_bytes: int, machine: Hardware
) -> Shortage | None:
    """Whether not even one row fits; an engine takes as few rows as there is room for."""
    needed = writing_memory(work, size, weight_bytes, 1).total
    if needed <= machine.memory:
        return None
    if weight_bytes == _FLOAT32 and writing_memory(work, size, 2, 1).total <= machine.memory:
        fix = "set model.dtype=bfloat16"
    else:
        fix = "set generation.engine.kind=server, or name a smaller model"
    return Shortage(work.stage, needed, int(machine.memory), fix)


def training_shortage(
    config: Config,
    size: ModelSize,
    weight_bytes: int,
    training_bytes: int,
    tokens: int,
    machine: Hardware,
) -> Shortage | None:
    """Whether a training step does not fit, and the least change with which it does."""

    def needed(**changes: object) -> int:
        changed = config.training.model_copy(update=changes)
        tried = config.model_copy(update={"training": changed})
        return training_memory(tried, size, weight_bytes, training_bytes, tokens).total

    whole = needed()
    if whole <= machine.memory:
        return None
    rows = min(config.training.micro_batch_size, config.training.batch_size)
    halves = [n for n in _halves(rows) if needed(micro_batch_size=n) <= machine.memory]
    checkpointed = {"gradient_checkpointing": True}
    few = [n for n in _halves(rows) if needed(micro_batch_size=n, **checkpointed) <= machine.memory]
    if halves:
        fix = f"set training.micro_batch_size={halves[0]}"
    elif few:
        fix = f"set training.gradient_checkpointing=true and training.micro_batch_size={few[0]}"
    elif training_memory(config, size, 2, 2, tokens).total <= machine.memory:
        fix = "set model.dtype=bfloat16"
    elif config.training.adapter == "none":
        fix = "set training.adapter=lora"
    else:
        fix = "name a smaller model, or plan for a machine with more memory"
    return Shortage("training", whole, int(machine.memory), fix)


def _halves(rows: int) -> list[int]:
    found = []
    while rows > 1:
        rows //= 2
        found.append(rows)
    return found
