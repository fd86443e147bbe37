"""What this machine has, and what a config would need of it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from huggingface_hub import HfApi

from selfinstruct_train.config import Config, explaining_paths
from selfinstruct_train.engines.local.rowwise import has_kernel
from selfinstruct_train.models.memory import free_memory
from selfinstruct_train.models.precision import has_fast_bf16
from selfinstruct_train.rounds.preflight import free_disk, preflight, tuned_bytes

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
_EXTRAS = {
    "server": "httpx2",
    "vllm": "vllm",
    "harness": "lm_eval",
    "gguf": "gguf",
    "rate": "starlette",
    "figures": "spacy",
}
"""Extra of the package, and the module that shows whether it is installed."""
_HUB_SECONDS = 3
_GIB = 2**30


def describe_machine() -> Iterator[str]:
    """Versions, devices, memory, disk, compiler, extras and the Hub, one line each."""
    own = _installed("selfinstruct-train")
    yield f"selfinstruct-train {own}, Python {platform.python_version()}, {platform.platform()}"
    yield "packages: " + ", ".join(f"{name} {_installed(name)}" for name in _PACKAGES)
    cores = len(os.sched_getaffinity(0))
    cpu = torch.device("cpu")
    yield f"CPU: {cores} cores, {free_memory(cpu) / _GIB:.1f} GiB of memory free, {_bf16(cpu)}"
    for i in range(torch.cuda.device_count()):
        device = torch.device("cuda", i)
        total = torch.cuda.get_device_properties(device).total_memory
        yield (
            f"GPU {i}: {torch.cuda.get_device_name(device)}, {free_memory(device) / _GIB:.1f} of "
            f"{total / _GIB:.1f} GiB free, {_bf16(device)}"
        )
    if not torch.cuda.is_available():
        yield "GPU: none that torch finds"
    yield f"disk: {free_disk(Path.cwd()) / _GIB:.1f} GiB free in {Path.cwd()}"
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    kernel = "built" if has_kernel() else "not built, so decoding on a CPU is slower"
    yield f"C compiler: {compiler or 'none'}; attention kernel: {kernel}"
    for extra, module in _EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        state = "installed" if found else f"missing; pip install 'selfinstruct-train[{extra}]'"
        yield f"extra {extra}: {state}"
    yield f"Hugging Face Hub: {_hub()}"


def describe_config(path: Path, config: Config) -> Iterator[str]:
    """What a config needs here, after everything that a run checks.

    Raises:
        SelfInstructError: something is wrong; all of it is named.
    """
    with explaining_paths(path, config.model_dump(mode="json")):
        checked = preflight(config)
    model = checked.model
    weights = checked.parameters * model.dtype.itemsize
    yield (
        f"model: {model.model_id}, {checked.parameters:,} parameters, "
        f"{weights / _GIB:.1f} GiB in {str(model.dtype).removeprefix('torch.')} on {model.device}, "
        f"context of {model.context_length} tokens"
    )
    if weights > (free := free_memory(model.device)):
        yield (
            f"warning: the weights take more than the {free / _GIB:.1f} GiB that are free on "
            f"{model.device}; name a smaller model, or set model.dtype=bfloat16"
        )
    yield (
        f"trained: {checked.trained_parameters:,} parameters; checkpoints and models take up to "
        f"{tuned_bytes(config, checked.trained_parameters) / _GIB:.2f} GiB of the "
        f"{free_disk(config.output_dir) / _GIB:.1f} GiB free for {config.output_dir}"
    )
    yield f"{path}: can be run here"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _bf16(device: torch.device) -> str:
    return "bfloat16 is fast" if has_fast_bf16(device) else "no fast bfloat16"


def _hub() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return "not asked, for HF_HUB_OFFLINE is set; models must be in the cache or in a folder"
    try:
        HfApi().model_info("gpt2", timeout=_HUB_SECONDS)
    except Exception as error:  # DNS, proxies, time-outs and the Hub itself fail in many classes
        return (
            f"cannot be reached ({type(error).__name__}); models must be in the cache or in a "
            "folder, or set HTTPS_PROXY"
        )
    return "reachable"
