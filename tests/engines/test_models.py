"""Laws of loading: the pad token, the context, and faults that name the setting."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from selfinstruct_train.config import ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.load import end_tokens, load_model
from selfinstruct_train.models.source import EMBEDDED_WEIGHTS


def _tokenizer(specials: list[str], **named: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(specials)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def _save(folder: Path, tokenizer: PreTrainedTokenizerFast, rows: int) -> Path:
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("specials", "named", "rows", "expected"),
    [
        (["<eos>"], {"eos_token": "<eos>", "pad_token": "<eos>"}, 264, "<|pad|>"),
        (["<eos>", "<|padding|>"], {"eos_token": "<eos>"}, 258, "<|padding|>"),
        (["<eos>", "<unk>"], {"eos_token": "<eos>", "unk_token": "<unk>"}, 258, "<unk>"),
        (["<eos>"], {"eos_token": "<eos>"}, 257, None),
        (["<eos>", "<p>"], {"eos_token": "<eos>", "pad_token": "<p>"}, 258, "<p>"),
    ],
)
def test_pad_token_is_never_the_end_token_and_the_embedding_keeps_its_size(
    tmp_path, specials, named, rows, expected
):
    folder = _save(tmp_path, _tokenizer(specials, **named), rows)
    loaded = load_model(ModelConfig(name_or_path=str(folder), threads=1))
    assert loaded.tokenizer.pad_token_id not in end_tokens(loaded)
    assert loaded.model.get_input_embeddings().weight.shape[0] == rows
    assert loaded.tokenizer.pad_token_id < rows
    if expected is not None:
        assert loaded.tokenizer.pad_token == expected
    assert any("pad token" in note for note in loaded.notes)


def test_context_comes_from_the_model_or_the_setting_but_never_exceeds_the_model(tmp_path):
    folder = str(_save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264))
    assert load_model(ModelConfig(name_or_path=folder, threads=1)).context_length == 64
    shorter = ModelConfig(name_or_path=folder, threads=1, context_length=32)
    assert load_model(shorter).context_length == 32
    with pytest.raises(EngineError, match="model.context_length: 65 is more than the 64"):
        load_model(ModelConfig(name_or_path=folder, threads=1, context_length=65))


def test_auto_precision_on_cpu_is_float32_and_threads_are_set(tmp_path):
    folder = str(_save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264))
    loaded = load_model(ModelConfig(name_or_path=folder, device="cpu", threads=1))
    assert loaded.dtype == loaded.model.dtype == torch.float32
    assert torch.get_num_threads() == 1
    with pytest.raises(ValidationError):
        ModelConfig(name_or_path=folder, threads=0)


def test_threads_of_the_environment_count_where_the_setting_is_silent(tmp_path, monkeypatch):
    folder = str(_save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264))
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    load_model(ModelConfig(name_or_path=folder))
    assert torch.get_num_threads() == 3
    load_model(ModelConfig(name_or_path=folder, threads=1))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 540 bytes from file <x>: Cannot allocate memory (12)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_short_memory_while_loading_is_not_blamed_on_the_name(tmp_path, monkeypatch, error):
    folder = str(_save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(EngineError, match="not enough memory to load .*smaller model") as caught:
        load_model(ModelConfig(name_or_path=folder, threads=1))
    assert "Hugging Face Hub" not in str(caught.value)


def test_every_end_token_of_the_settings_counts(tmp_path):
    folder = _save(tmp_path, _tokenizer(["<eos>", "<turn>"], eos_token="<eos>"), 264)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 257]}))
    assert end_tokens(load_model(ModelConfig(name_or_path=str(folder), threads=1))) == {256, 257}


def test_a_missing_folder_names_the_setting():
    with pytest.raises(
        EngineError, match="^model.name_or_path: no folder './nowhere'; name a folder"
    ):
        load_model(ModelConfig(name_or_path="./nowhere"))


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    folder = _save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264)
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match="^model.name_or_path: cannot load"):
        load_model(ModelConfig(name_or_path=str(folder), threads=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_an_absent_gpu_names_the_setting(tmp_path):
    folder = str(_save(tmp_path, _tokenizer(["<eos>"], eos_token="<eos>"), 264))
    with pytest.raises(EngineError, match="^model.device: 'cuda' is asked for"):
        load_model(ModelConfig(name_or_path=folder, device="cuda"))


@pytest.mark.skipif(not EMBEDDED_WEIGHTS.is_dir(), reason="the embedded model is not built yet")
def test_the_embedded_model_loads_by_its_name():
    assert load_model(ModelConfig(name_or_path="embedded", threads=1)).model_id == "embedded"
