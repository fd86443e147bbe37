"""The vLLM engine over a stand-in for the package, and its real signature where installed."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.engines.base import Request
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.records import Sampling

END = 99
TEXTS = ["<s>", " a", " b", " Yes", " No"]


class Lora(NamedTuple):
    name: str
    number: int
    path: str


class Llm:
    """Stands for ``vllm.LLM``: writes " a", " b", end token; token t has log-probability -t."""

    started: list["Llm"] = []

    def __init__(self, **settings: Any) -> None:
        if settings["model"] == "broken":
            raise RuntimeError("no GPU\nat all")
        self.settings = settings
        self.calls: list[tuple[Any, Any, Any]] = []
        self.closed = False
        core = SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))
        self.llm_engine = SimpleNamespace(engine_core=core)
        Llm.started.append(self)

    def generate(self, prompts: Any, settings: Any, use_tqdm: bool, lora_request: Any) -> list[Any]:
        self.calls.append((prompts, settings, lora_request))
        return [
            self._output(prompt["prompt_token_ids"], setting)
            for prompt, setting in zip(prompts, settings, strict=True)
        ]

    def _output(self, prompt: list[int], setting: Any) -> Any:
        by_string = bool(setting.stop)
        ids = setting.allowed_token_ids or ([1, 2] if by_string else [1, 2, END])
        written = SimpleNamespace(
            text=" a b",
            token_ids=ids,
            finish_reason="stop" if setting.max_tokens > 2 else "length",
            stop_reason=setting.stop[0] if by_string else None,
            logprobs=[{t: SimpleNamespace(logprob=-1.0 * t)} for t in ids],
        )
        return SimpleNamespace(outputs=[written])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The engine's module over the stand-in."""
    package, lora, request = (ModuleType(n) for n in ("vllm", "vllm.lora", "vllm.lora.request"))
    package.LLM, package.SamplingParams = Llm, lambda **given: SimpleNamespace(**given)  # type: ignore[attr-defined]
    request.LoRARequest = Lora  # type: ignore[attr-defined]
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "selfinstruct_train.engines.vllm", raising=False)
    Llm.started.clear()
    yield importlib.import_module("selfinstruct_train.engines.vllm")
    sys.modules.pop("selfinstruct_train.engines.vllm", None)


def encode(texts: Sequence[str]) -> list[list[int]]:
    return [[0, *(TEXTS.index(f" {word}") for word in text.split())] for text in texts]


def engine(module: Any, **settings: Any) -> Any:
    asked = {"source": "org/model", "revision": "abc", "dtype": "bfloat16", "lora_rank": 12}
    config = EngineConfig(kind="vllm", tensor_parallel_size=2, max_batch_size=7)
    return module.VllmEngine(config, "org/model", 16, encode, **asked | settings)


def test_vllm_starts_when_first_asked_with_the_configs_settings(vllm: Any) -> None:
    made = engine(vllm)
    assert made.count_tokens(["a b", ""]) == [3, 1]
    assert Llm.started == []
    list(made.generate([Request("r", " a", Sampling(max_tokens=4))]))
    list(made.generate([Request("r", " a", Sampling(max_tokens=4))]))
    (started,) = Llm.started
    wanted = {"model": "org/model", "revision": "abc", "dtype": "bfloat16", "max_model_len": 16}
    wanted |= {"tensor_parallel_size": 2, "max_num_seqs": 7, "enable_prefix_caching": True}
    wanted |= {"max_lora_rank": 16, "load_format": "safetensors", "trust_remote_code": False}
    assert {key: started.settings[key] for key in wanted} == wanted


def test_a_request_becomes_tokens_and_sampling_settings(vllm: Any) -> None:
    made = engine(vllm)
    sampling = Sampling(max_tokens=50, temperature=0.5, top_p=0.9, stop=("\n",), seed=3)
    (found,) = made.generate([Request("r", " a b", sampling)])
    ((prompts, (setting,), lora),) = Llm.started[0].calls
    assert prompts == [{"prompt_token_ids": [0, 1, 2]}] and lora is None
    wanted = {"max_tokens": 13, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "seed": 3}
    wanted |= {"repetition_penalty": 1.0, "stop": ["\n"], "logprobs": 0, "allowed_token_ids": None}
    assert vars(setting) == wanted
    assert (found.id, found.text, found.finish_reason, found.token_ids) == (
        "r",
        " a b",
        "stop",
        (1, 2),
    )
    assert (found.prompt_tokens, found.completion_tokens, found.mean_logprob) == (3, 2, -1.5)


def test_the_end_token_is_no_part_of_a_completion(vllm: Any) -> None:
    whole, cut = engine(vllm).generate(
        [Request("a", " a", Sampling(max_tokens=9)), Request("b", " a", Sampling(max_tokens=2))]
    )
    assert (whole.finish_reason, whole.token_ids, whole.completion_tokens) == ("eos", (1, 2), 2)
    assert cut.finish_reason == "length"


def test_scores_are_of_the_tokens_that_follow_the_prompt_each_after_those_before_it(
    vllm: Any,
) -> None:
    made = engine(vllm)
    rows = made.score("a", [" b", " a b"], [" Yes", " No a"])
    assert rows == [[-3.0, -5.0]] * 2
    assert made.score("a", [], [" Yes"]) == []
    assert made.score("a", [" b"], []) == [[]]
    ((prompts, settings, _),) = Llm.started[0].calls
    asked = [
        (prompt["prompt_token_ids"], setting.allowed_token_ids)
        for prompt, setting in zip(prompts, settings, strict=True)
    ]
    assert asked[:3] == [([0, 1, 2], [3]), ([0, 1, 2], [4]), ([0, 1, 2, 4], [1])]
    assert {setting.max_tokens for setting in settings} == {1}


def test_what_does_not_fit_the_context_is_refused(vllm: Any) -> None:
    long = " a" * 15
    with pytest.raises(EngineError, match="request r: its prompt of 16 tokens leaves no room"):
        list(engine(vllm).generate([Request("r", long, Sampling(max_tokens=1))]))
    with pytest.raises(EngineError, match="the context has 16"):
        engine(vllm).score(long, [""], [" Yes"])


def test_each_adapter_is_a_lora_request_of_its_own(vllm: Any, tmp_path: Path) -> None:
    made = engine(vllm)
    folders = [tmp_path / "round-0" / "adapter", tmp_path / "round-1" / "adapter"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").touch()
    for folder in (*folders, folders[0]):
        list(made.generate([Request("r", " a", Sampling(max_tokens=4))], folder))
    loras = [lora for _, _, lora in Llm.started[0].calls]
    assert [lora.number for lora in loras] == [1, 2, 1]
    assert [lora.path for lora in loras] == [str(f) for f in (*folders, folders[0])]
    with pytest.raises(EngineError, match="holds no adapter"):
        list(made.generate([Request("r", " a", Sampling(max_tokens=4))], tmp_path / "none"))


def test_closing_stops_vllm_and_the_next_request_starts_it_anew(vllm: Any) -> None:
    made = engine(vllm)
    made.close()
    for _ in range(2):
        list(made.generate([Request("r", " a", Sampling(max_tokens=4))]))
        made.close()
    assert [started.closed for started in Llm.started] == [True, True]


def test_a_start_that_fails_is_one_sentence(vllm: Any) -> None:
    with pytest.raises(EngineError, match=r"cannot start with broken \(no GPU at all\)"):
        list(engine(vllm, source="broken").generate([Request("r", " a", Sampling(max_tokens=1))]))


def test_several_processes_are_refused_before_they_fight_over_a_gpu(
    vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "join_world", lambda: World(rank=0, size=2))
    with pytest.raises(ConfigError, match="without 'accelerate launch'"):
        list(engine(vllm).generate([Request("r", " a", Sampling(max_tokens=1))]))
    assert Llm.started == []


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")
def test_the_real_package_takes_every_setting() -> None:
    module = importlib.import_module("selfinstruct_train.engines.vllm")
    known = set(inspect.signature(module.SamplingParams).parameters)
    assert set(module.VllmSampling._fields) <= known
    module.SamplingParams(**module.vllm_sampling(Sampling(max_tokens=3), 2)._asdict())
