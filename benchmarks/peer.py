"""The other side of generation.py, in a process of its own and with nothing of this package.

    python benchmarks/peer.py {llama.cpp | vllm} WEIGHTS SLOTS

Reads a line of JSON for each workload, a list of requests as tokens; answers with a line of the CPU
seconds that it took and the tokens up to the end of each answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CONTEXT = 4096
Answer = Callable[[list[dict[str, Any]]], int]


def llama_cpp(weights: str, slots: int) -> Answer:
    """The Python binding of llama.cpp: one request at a time, what it has just read is kept."""
    from llama_cpp import Llama

    threads = {"n_threads": 1, "n_threads_batch": 1}
    model = Llama(weights, n_ctx=CONTEXT, n_batch=512, verbose=False, **threads)

    def answer(requests: list[dict[str, Any]]) -> int:
        useful = 0
        for request in requests:
            found: Any = model.create_completion(
                request["tokens"],
                max_tokens=request["max_tokens"],
                temperature=request["temperature"],
                top_p=request["top_p"],
                top_k=0,
                min_p=0.0,
                repeat_penalty=1.0,
                stop=request["stop"],
                seed=request["seed"],
            )
            useful += found["usage"]["completion_tokens"]
        return useful

    return answer


def vllm(weights: str, slots: int) -> Answer:
    """Continuous batching with its prefix cache, all in one process so that its time is seen."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "0")
    from vllm import LLM, SamplingParams

    model = LLM(
        weights,
        skip_tokenizer_init=False,
        dtype="bfloat16",
        max_model_len=CONTEXT,
        max_num_seqs=slots,
        enable_prefix_caching=True,
        # Compiling takes minutes, which the few requests here would never earn.
        enforce_eager=True,
    )

    def answer(requests: list[dict[str, Any]]) -> int:
        settings = [
            SamplingParams(
                max_tokens=request["max_tokens"],
                temperature=request["temperature"],
                top_p=request["top_p"],
                stop=request["stop"],
                seed=request["seed"],
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": request["tokens"]} for request in requests]
        found = model.generate(prompts, settings, use_tqdm=False)
        return sum(len(one.outputs[0].token_ids) for one in found)

    return answer


def main() -> None:
    # Libraries print; answers go where standard output went, and the prints to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind, weights, slots = sys.argv[1:]
    answer = {"llama.cpp": llama_cpp, "vllm": vllm}[kind](weights, int(slots))
    print(json.dumps({"ready": kind}), file=answers, flush=True)
    for line in sys.stdin:
        began = time.process_time()
        useful = answer(json.loads(line))
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "useful": useful}), file=answers, flush=True)


if __name__ == "__main__":
    main()
