"""What bfloat16 changes of what a model writes on a CPU, against float32 on the same weights.

    python benchmarks/precision.py --model smollm2-135m-instruct --count 16

Greedy answers to the prompts of steps 1 and 3, decisions of step 2; each precision in a process of
its own, for the peak of its memory. The clock is CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from typing import NamedTuple

from selfinstruct_train.environment import prepare_environment

prepare_environment()
import torch  # noqa: E402

from benchmarks.generation import BATCH, peak_of_this_process, workloads  # noqa: E402
from selfinstruct_train.config import EngineConfig, ModelConfig  # noqa: E402
from selfinstruct_train.engines.local.transformers import TransformersEngine  # noqa: E402
from selfinstruct_train.models.load import load_model  # noqa: E402

PRECISIONS = ("float32", "bfloat16")


class Written(NamedTuple):
    """What one precision wrote."""

    tokens: dict[str, list[int]]
    """By request."""
    margins: list[float]
    """log P(Yes) - log P(No)."""
    seconds: dict[str, float]
    megabytes: int


def write(model: str, dtype: str, count: int, most: int) -> Written:
    """Answer everything in this process."""
    config = ModelConfig.model_validate(
        {"name_or_path": model, "dtype": dtype, "device": "cpu", "threads": 1}
    )
    engine = TransformersEngine(load_model(config), EngineConfig(max_batch_size=BATCH))
    tokens: dict[str, list[int]] = {}
    margins: list[float] = []
    seconds = {}
    for work in workloads(count, model):
        began = time.process_time()
        if work.suffixes:
            scores = engine.score(work.prefix, work.suffixes, [" Yes", " No"])
            margins = [yes - no for yes, no in scores]
        greedy = {"temperature": 0.0, "top_p": 1.0, "max_tokens": most}
        asked = [
            request._replace(sampling=request.sampling.model_copy(update=greedy))
            for request in work.requests
        ]
        for done in engine.generate(asked):
            tokens[done.id] = list(done.token_ids)
        seconds[work.name] = time.process_time() - began
    return Written(tokens, margins, seconds, peak_of_this_process())


def agreement(wide: Written, narrow: Written) -> dict[str, float]:
    """How far the answers agree."""
    shared = whole = same = 0
    for name, tokens in wide.tokens.items():
        other = narrow.tokens[name]
        pairs = list(zip(tokens, other, strict=False))
        shared += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        whole += len(tokens)
        same += tokens == other
    margins = list(zip(wide.margins, narrow.margins, strict=True))
    return {
        "answers that are the same": same / len(wide.tokens),
        "tokens before the first that differs": shared / max(1, whole),
        "decisions of step 2 that are the same": sum((a > 0) == (b > 0) for a, b in margins)
        / max(1, len(margins)),
        "largest difference of a margin, nats": max(abs(a - b) for a, b in margins),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--count", type=int, default=16, help="requests of each step")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--only", choices=PRECISIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(write(options.model, options.only, options.count, options.tokens)))
        return
    found = []
    for precision in PRECISIONS:
        command = [sys.executable, "-m", "benchmarks.precision", *sys.argv[1:], "--only", precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(Written(*json.loads(done.stdout.splitlines()[-1])))
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for precision, written in zip(PRECISIONS, found, strict=True):
        count = sum(map(len, written.tokens.values()))
        seconds = ", ".join(f"{name} {spent:.1f} s" for name, spent in written.seconds.items())
        print(f"{precision}: {count} tokens, {seconds}, peak memory {written.megabytes} MB")
    for name, value in agreement(*found).items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
