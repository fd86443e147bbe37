"""Seconds of a stage on a machine, from its published peaks or from recorded rates of a CPU core.

GPUs: reading a prompt and training take their floating-point operations (2 a parameter and token a
pass) at a share of the peak of dense bfloat16; writing takes, for each token of all rows under way,
one reading of the weights and of the rows' keys and values, at a share of the memory's bandwidth
(the roofline of Williams et al., doi 10.1145/1498765.1498785). Peaks are those of NVIDIA's data
sheets (H100 SXM, A100 80GB SXM, L4, GeForce RTX 4090 with accumulation in float32). Nothing here
was measured on a GPU.

CPU: rates of a Zen 4 core in this repository's own records. docs/performance.md, "Why instructions
gain least": prompts of 12,000 tokens of 5.4M parameters in 2.3 CPU s (56 GFLOP/s), linear layers of
10,200 written tokens in 2.8 s (39 GFLOP/s), 26 MB of keys and values read in 1.0 ms, 2 s of norms,
drawing and Python for as many tokens (0.2 ms a token). docs/log.md, "pretraining on two cores":
3.0K tokens/s in float32 and 4.9K in bfloat16 at 6 operations a parameter (49 and 79 GFLOP/s a
core).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from selfinstruct_train.planning.sizes import ModelSize
from selfinstruct_train.planning.workload import Asked, Trained

Machine = Literal["H100", "A100-80", "L4", "4090", "cpu"]
MACHINES: tuple[Machine, ...] = ("H100", "A100-80", "L4", "4090", "cpu")
_COMPUTE_SHARE = 0.4
_BANDWIDTH_SHARE = 0.6
_LAUNCH_SECONDS = 2e-4
"""A layer of one pass, where each kernel is started from Python: assumed, not measured."""
_CORE_FLOPS = {4: 50e9, 2: 80e9}
"""Bytes of a weight -> operations a second of a core, long passes."""
_CORE_DECODING_FLOPS = 40e9
_CORE_BANDWIDTH = 26e9
_CORE_TOKEN_SECONDS = 2e-4


class Hardware(NamedTuple):
    """How fast a machine computes and reads, shares already taken."""

    name: Machine
    memory: float
    """Bytes."""
    flops: float
    """Operations a second in passes over many tokens."""
    training_flops: float
    """The same in the precision of the training."""
    decoding_flops: float
    """The same while rows are written."""
    bandwidth: float
    """Bytes a second."""
    token_seconds: float
    """Drawing and bookkeeping of a written token."""
    layer_seconds: float
    """Least time of a layer."""
    basis: str


def gpu(name: Machine, is_in_process: bool) -> Hardware:
    """A GPU by its data sheet.

    Args:
        name: which.
        is_in_process: whether this package's own engine writes, which starts kernels one by one.
    """
    gigabytes, bandwidth, flops = {
        "H100": (80, 3.35e12, 989e12),
        "A100-80": (80, 2.039e12, 312e12),
        "L4": (24, 300e9, 121e12),
        "4090": (24, 1008e9, 165e12),
    }[name]
    rate = flops * _COMPUTE_SHARE
    basis = (
        f"roofline of the data sheet at {_COMPUTE_SHARE:.0%} of {flops / 1e12:.0f} bfloat16 "
        f"TFLOP/s and {_BANDWIDTH_SHARE:.0%} of {bandwidth / 1e9:,.0f} GB/s"
    )
    if is_in_process:
        basis += f", and at least {_LAUNCH_SECONDS * 1e3:g} ms a layer and pass"
    floor = _LAUNCH_SECONDS if is_in_process else 0.0
    return Hardware(
        name, gigabytes * 1e9, rate, rate, rate, bandwidth * _BANDWIDTH_SHARE, 0.0, floor, basis
    )


def cpu(cores: int, memory: float, weight_bytes: int, training_bytes: int) -> Hardware:
    """This machine's CPU, at recorded rates of a Zen 4 core.

    Args:
        cores: threads that compute.
        memory: bytes that are free.
        weight_bytes: of a parameter; 4 is float32.
        training_bytes: the same of the precision that training computes in.
    """
    flops = cores * _CORE_FLOPS[weight_bytes]
    training = cores * _CORE_FLOPS[training_bytes]
    basis = (
        f"recorded rates of a Zen 4 core (docs/performance.md, docs/log.md), {cores} cores: "
        f"{flops / 1e9:.0f} GFLOP/s reading, {training / 1e9:.0f} training, "
        f"{cores * _CORE_DECODING_FLOPS / 1e9:.0f} while writing"
    )
    return Hardware(
        "cpu",
        memory,
        flops,
        training,
        cores * _CORE_DECODING_FLOPS,
        cores * _CORE_BANDWIDTH,
        _CORE_TOKEN_SECONDS,
        0.0,
        basis,
    )


def asking_seconds(work: Asked, machine: Hardware, size: ModelSize, weight_bytes: int) -> float:
    """Time of the requests of a stage, rows always as many as fit at once."""
    if not work.requests:
        return 0.0
    rows = min(work.at_once, work.requests)
    read = work.prompt_tokens - work.shared_tokens
    context = work.prompt_tokens / work.requests
    reading = read * token_flops(size, context / 2) / machine.flops
    passes = work.requests / rows
    reading = max(reading, passes * size.layers * machine.layer_seconds)
    steps = work.completion_tokens / rows
    linear = rows * 2 * size.multiplied / machine.decoding_flops
    weights = size.multiplied * weight_bytes / machine.bandwidth
    cache = rows * context * cache_bytes(size, weight_bytes) / machine.bandwidth
    step = max(linear, weights) + cache + rows * machine.token_seconds
    return reading + steps * max(step, size.layers * machine.layer_seconds)


def training_seconds(work: Trained, machine: Hardware, size: ModelSize) -> float:
    """Time of the optimizer steps of a kind of training."""
    if not work.steps:
        return 0.0
    # An adapter's own weights have gradients too: three passes.
    beside = 0 if size.adapter == size.parameters else 6 * size.adapter
    flops = work.computed_tokens * (work.passes * token_flops(size, work.row_tokens / 2) + beside)
    floor = work.steps * work.passes * size.layers * machine.layer_seconds
    return max(flops / machine.training_flops, floor)


def token_flops(size: ModelSize, context: float) -> float:
    """Operations of one token's forward pass that looks back on so many tokens."""
    return 2 * size.multiplied + 4 * size.layers * size.query_width * context


def cache_bytes(size: ModelSize, weight_bytes: int) -> int:
    """Keys and values of one token."""
    return 2 * size.layers * size.key_width * weight_bytes
