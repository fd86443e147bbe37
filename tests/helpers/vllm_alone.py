"""Asks vLLM's offline engine and writes down what it says; launched by test_real_vllm.

Runs in the Python that has vLLM: ``python vllm_alone.py WEIGHTS ADAPTER QUESTIONS ANSWERS``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.vllm import VllmEngine
from selfinstruct_train.records import Sampling


def main(weights: Path, adapter: Path, questions: Path, answers: Path) -> None:
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    given = json.loads(questions.read_text())
    asked = [
        Request(id, prompt, Sampling(**sampling)) for id, prompt, sampling in given["requests"]
    ]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch(list(texts))]

    engine = VllmEngine(
        EngineConfig(kind="vllm", max_batch_size=8, memory_fraction=0.2),
        *("embedded", 2048, encode),
        **{"source": str(weights), "revision": None, "dtype": "float32", "lora_rank": 16},
    )

    def ask(adapter: Path | None) -> dict[str, Any]:
        texts = [tuple(found) for found in engine.generate(asked, adapter)]
        scores = engine.score("", given["suffixes"], given["continuations"], adapter)
        return {"completions": texts, "scores": scores}

    said: dict[str, Any] = {"base": ask(None), "tuned": ask(adapter)}
    engine.close()
    said["left after closing"] = children()
    said["again"] = ask(None)
    engine.close()
    answers.write_text(json.dumps(said))


def children() -> list[str]:
    """Names of the living processes that vLLM started."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat=,args="], capture_output=True, text=True
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [args for stat, args in rows if "VLLM" in args and not stat.startswith("Z")]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
