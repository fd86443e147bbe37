"""vLLM's offline engine against the in-process one, on the embedded model.

Skipped unless vLLM is installed here or in the Python that VLLM_PYTHON names; a CPU build will do.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.models.load import load_model
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS
from selfinstruct_train.records import Sampling
from selfinstruct_train.sources.reader import read_seed_tasks

ROOT = Path(__file__).parent.parent.parent
HERE = importlib.util.find_spec("vllm") is not None
PYTHON = sys.executable if HERE else os.environ.get("VLLM_PYTHON")
CONTINUATIONS = [" Yes", " No way"]

pytestmark = pytest.mark.skipif(PYTHON is None, reason="no vllm: install it or set VLLM_PYTHON")


def write_adapter(folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_WEIGHTS, dtype=torch.float32)
    settings = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, settings)
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.03)
    tuned.save_pretrained(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both engines say, as base and as tuned."""
    folder = tmp_path_factory.mktemp("vllm")
    adapter = folder / "round-0" / "adapter"
    write_adapter(adapter)
    tasks = read_seed_tasks(ROOT / "data/microworld/seed_tasks.jsonl")[:8]
    prompts = [f"Task: {task.instruction}\nExample 1\nInput:" for task in tasks]
    settings = [
        {"max_tokens": 60, "stop": ("\n\nTask:",)},
        {"max_tokens": 30, "repetition_penalty": 1.3, "top_k": 5},
    ]
    requests = [
        Request(f"{kind}-{i}", prompt, Sampling(**setting))  # type: ignore[arg-type]
        for kind, setting in enumerate(settings)
        for i, prompt in enumerate(prompts)
    ]
    model = load_model(
        ModelConfig(name_or_path="embedded", dtype="float32", device="cpu", threads=1)
    )
    ours = TransformersEngine(model, EngineConfig())
    said: dict[str, Any] = {
        name: (list(ours.generate(requests, a)), ours.score("", prompts, CONTINUATIONS, a))
        for name, a in (("base", None), ("tuned", adapter))
    }
    questions, answers = folder / "questions.json", folder / "answers.json"
    rows = [(r.id, r.prompt, r.sampling.model_dump()) for r in requests]
    asked = {"requests": rows, "suffixes": prompts, "continuations": CONTINUATIONS}
    questions.write_text(json.dumps(asked))
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    script = str(Path(__file__).parents[1] / "helpers" / "vllm_alone.py")
    paths = [str(EMBEDDED_WEIGHTS), str(adapter), str(questions), str(answers)]
    done = subprocess.run(
        [str(PYTHON), script, *paths],
        env=os.environ | quiet | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return said | {"vllm": json.loads(answers.read_text())}


@pytest.mark.parametrize(
    ("name", "ours"), [("base", "base"), ("tuned", "tuned"), ("again", "base")]
)
def test_vllm_writes_and_scores_as_the_model_in_process(
    both: dict[str, Any], name: str, ours: str
) -> None:
    completions, scores = both[ours]
    wanted = {completion.id: completion for completion in completions}
    found = [Completion(*row) for row in both["vllm"][name]["completions"]]
    assert len(found) == len(wanted)
    for completion in found:
        same = wanted[completion.id]
        assert (completion.text, tuple(completion.token_ids)) == (same.text, same.token_ids)
        assert completion.finish_reason == same.finish_reason
        assert completion.prompt_tokens == same.prompt_tokens
        assert completion.mean_logprob == pytest.approx(same.mean_logprob, abs=1e-4)
    for row, same_row in zip(both["vllm"][name]["scores"], scores, strict=True):
        assert row == pytest.approx(same_row, abs=1e-3)


def test_the_adapter_makes_a_difference_and_closing_leaves_no_process(
    both: dict[str, Any],
) -> None:
    said = both["vllm"]
    assert said["base"]["scores"] != said["tuned"]["scores"]
    assert said["left after closing"] == []
