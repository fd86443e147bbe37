"""The server engine against real servers that serve the embedded model on loopback.

Each kind is skipped unless it is found: llama-cpp-python (here, or in the Python that
LLAMA_CPP_PYTHON names, with its extra ``server`` and the package gguf), llama-server (the program
that LLAMA_SERVER names), vLLM (here, or in the Python that VLLM_PYTHON names) and ``transformers
serve`` (transformers with its extra ``serving``).
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Completion, Engine, Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.engines.server import client as completions
from selfinstruct_train.engines.server.engine import ServerEngine
from selfinstruct_train.generation.prompting import classification_prompt
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Sampling
from selfinstruct_train.sources.reader import read_seed_tasks
from tests.helpers.real_servers import (
    GGUF_PYTHON,
    KINDS,
    START_SECONDS,
    Kind,
    Running,
    llama_cpp_python,
)

ROOT = Path(__file__).parent.parent.parent


def engine_of(server: Running, model: LoadedModel, **settings: object) -> ServerEngine:
    asked = {"server_dialect": server.kind.dialect, "server_model": server.kind.model}
    config = EngineConfig(kind="server", base_url=server.url, **asked | settings)  # type: ignore[arg-type]

    def encode(texts: object) -> list[list[int]]:
        return model.tokenizer(list(texts))["input_ids"]  # type: ignore[call-overload,no-any-return]

    return ServerEngine(config, "embedded", model.context_length, encode)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "embedded.gguf"
    if GGUF_PYTHON is not None:
        script = str(Path(__file__).parents[1] / "helpers" / "gguf_export.py")
        subprocess.run([GGUF_PYTHON, script, str(EMBEDDED_WEIGHTS), str(file)], check=True)
    return file


@pytest.fixture(scope="module", params=KINDS.values())
def server(
    request: pytest.FixtureRequest, gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    weights = gguf if request.param.needs_gguf else EMBEDDED_WEIGHTS
    running = Running(request.param, weights, tmp_path_factory.mktemp("server") / "log")
    running.wait()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(
        ModelConfig(name_or_path="embedded", dtype="float32", device="cpu", threads=1)
    )


def asked(**settings: object) -> list[Request]:
    tasks = read_seed_tasks(ROOT / "data/microworld/seed_tasks.jsonl")[:6]
    sampling = Sampling(**{"max_tokens": 40} | settings)  # type: ignore[arg-type]
    return [
        Request(f"r{i}", f"Task: {task.instruction}\nExample 1\nInput:", sampling)
        for i, task in enumerate(tasks)
    ]


def answers(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    return {completion.id: completion for completion in engine.generate(requests)}


def texts(engine: Engine, requests: list[Request]) -> list[str]:
    return [found.text for _, found in sorted(answers(engine, requests).items())]


def test_greedy_texts_are_those_of_the_model_in_process(
    server: Running, model: LoadedModel
) -> None:
    requests = asked(stop=("\n\nTask:",), max_tokens=60)
    theirs, ours = (
        answers(engine, requests)
        for engine in (engine_of(server, model), TransformersEngine(model, EngineConfig()))
    )
    assert {found.finish_reason for found in ours.values()} == {"stop", "length"}
    for name, found in theirs.items():
        wanted = ours[name]
        assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)
        assert found.prompt_tokens == wanted.prompt_tokens
        assert found.completion_tokens > 0


def test_a_penalty_counts_all_tokens_of_prompt_and_completion(
    server: Running, model: LoadedModel
) -> None:
    if server.kind.command is llama_cpp_python:
        pytest.skip("llama-cpp-python counts the completion alone")
    requests = asked(repetition_penalty=1.3, top_k=5)
    ours = TransformersEngine(model, EngineConfig())
    wanted = texts(ours, requests)
    assert texts(engine_of(server, model), requests) == wanted
    assert wanted != texts(ours, asked())


def test_a_seed_repeats_a_text_and_another_seed_gives_another(
    server: Running, model: LoadedModel
) -> None:
    # One at a time: what else is in the batch may change a float, and so a draw.
    engine = engine_of(server, model, concurrency=1)
    first, second = (texts(engine, asked(temperature=1.0, seed=7)) for _ in range(2))
    assert first == second
    assert first != texts(engine, asked(temperature=1.0, seed=8))


def test_yes_and_no_are_scored_as_in_process(server: Running, model: LoadedModel) -> None:
    if server.kind.dialect == "transformers":
        pytest.skip("transformers serve offers no log-probabilities")
    prompts = load_pack(str(ROOT / "data/microworld/prompts"))
    shown = prompts.classification[:12]
    tasks = read_seed_tasks(ROOT / "data/microworld/seed_tasks.jsonl")[:8]
    asked = [classification_prompt(prompts.wording, shown, task.instruction) for task in tasks]
    prefix = asked[0].header + "".join(asked[0].demonstrations)
    words = [f" {prompts.wording.yes}", f" {prompts.wording.no}"]
    theirs, ours = (
        engine.score(prefix, [prompt.question for prompt in asked], words)
        for engine in (engine_of(server, model), TransformersEngine(model, EngineConfig()))
    )
    for found, wanted in zip(theirs, ours, strict=True):
        # llama.cpp keeps keys and values in float16.
        assert found == pytest.approx(wanted, abs=0.02)


def test_all_steps_run_where_no_weights_are(server: Running, tmp_path: Path) -> None:
    if server.kind.dialect == "transformers":
        pytest.skip("transformers serve offers no log-probabilities, which step 2 asks for")
    here = tmp_path / "model"
    shutil.copytree(EMBEDDED_WEIGHTS, here, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = {
        "model.name_or_path": here,
        "generation.engine.kind": "server",
        "generation.engine.base_url": server.url,
        "generation.engine.server_model": server.kind.model or "any",
        "generation.engine.server_dialect": server.kind.dialect,
        "generation.classification.calibrate": "false",
        "generation.instructions_per_round": 2,
        "generation.instructions.requests_per_batch": 1,
        "rounds": 1,
    }
    run = tmp_path / "run"
    command = [sys.executable, "-m", "selfinstruct_train.cli.app", "generate"]
    command += [str(ROOT / "configs" / "quickstart.yaml"), "--output-dir", str(run)]
    command += [f"{key}={value}" for key, value in settings.items()]
    subprocess.run(command, check=True, timeout=START_SECONDS)
    rows = [json.loads(line) for line in (run / "round-0/instances.jsonl").open("rb")]
    assert rows and all(row["output"] for row in rows)


def test_a_chat_endpoint_answers(server: Running, model: LoadedModel) -> None:
    if server.kind.model is not None:
        pytest.skip("the embedded model has no chat template, which this server asks for")
    found = answers(engine_of(server, model, server_endpoint="chat"), asked())
    assert len(found) == 6 and all(completion.completion_tokens for completion in found.values())


@pytest.mark.parametrize("kind", [KINDS["llama-server"], KINDS["llama-cpp-python"]])
def test_a_server_that_dies_and_comes_back_is_waited_for(
    kind: Kind,
    gguf: Path,
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completions, "_LONGEST_WAIT", 1.0)
    running = Running(kind, gguf, tmp_path / "log")
    running.wait()
    revived = threading.Thread(target=lambda: (time.sleep(1.0), running.start()))
    try:
        requests = asked(max_tokens=300)
        found = []
        engine = engine_of(running, model, concurrency=2, max_retries=30)
        for completion in engine.generate(requests):
            if not found:
                running.kill()
                revived.start()
            found.append(completion)
        wanted = texts(TransformersEngine(model, EngineConfig()), requests)
        assert [c.text for c in sorted(found)] == wanted
    finally:
        revived.join()
        running.kill()
