"""Laws of the kinds of models: each does all that a run needs, or is refused in a sentence."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from transformers import MambaForCausalLM

from dev.architectures import ARCHITECTURES, PAGE, try_architecture
from tests.helpers.small_models import byte_tokenizer

_QUICK = ("llama", "gpt2", "gemma3_text", "qwen3_moe", "granitemoe")
"""Grouped attention, learned positions, sliding windows, experts, and experts of another shape."""


@pytest.mark.parametrize("name", _QUICK)
def test_a_kind_does_all_of_a_run_as_the_docs_say(
    name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    outcome = try_architecture(name, byte_tokenizer(), tmp_path)
    assert outcome.is_whole, outcome
    # What peft says to those who wrote the call is not for those who read the progress.
    assert [str(w.message) for w in recwarn if "peft" in Path(w.filename).parts] == []


@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_a_kind_without_keys_and_values_is_refused_by_name(name: str, tmp_path: Path) -> None:
    if name == "mamba" and "cache" in inspect.signature(MambaForCausalLM.forward).parameters:
        pytest.skip("this version of transformers hands out a state as it does keys and values")
    outcome = try_architecture(name, byte_tokenizer(), tmp_path)
    assert "keeps a state and no keys and values" in outcome.loads
    assert outcome.loads.startswith("model.name_or_path: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in _QUICK])
def test_every_other_kind_is_as_the_docs_say(name: str, tmp_path: Path) -> None:
    outcome = try_architecture(name, byte_tokenizer(), tmp_path)
    assert outcome.row in PAGE.read_text("utf-8")


def test_the_docs_name_every_kind() -> None:
    page = PAGE.read_text("utf-8")
    assert len(ARCHITECTURES) >= 40
    assert [name for name in ARCHITECTURES if f"| `{name}` |" not in page] == []
