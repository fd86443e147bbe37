"""A tuned model that leaves a run answers as it did there, wherever it is loaded."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import EngineConfig, ModelConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.errors import EngineError, RunError, TrainingError
from selfinstruct_train.export.chat import Answers, Chat
from selfinstruct_train.export.chat_template import ollama_modelfile, plain_chat_template
from selfinstruct_train.export.gguf_writer import _splitting, check_gguf
from selfinstruct_train.export.model import export_model
from selfinstruct_train.models import merge
from selfinstruct_train.models.load import load_model
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import Comparison, PairedComparison, Sampling, SystemScore
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.templates import cut_at_new_example, encode
from selfinstruct_train.training.adapter import attach_adapter, save_adapter
from tests.export.conftest import write_run
from tests.helpers.hub import hub
from tests.helpers.small_models import byte_tokenizer, loaded_model, real_tokenizer, settings

PROMPTS = [
    encode("plain", "Write the word twice.", "bird", load_answers("en")),
    encode("plain", "Name a colour.", "", load_answers("en")),
]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose round 0 has an adapter that changes what the embedded model says."""
    run = write_run(tmp_path_factory.mktemp("tuned") / "run")
    model = load_model(ModelConfig(name_or_path="embedded", device="cpu")).model
    adapted = attach_adapter(model, settings(), 0, None)
    random = torch.Generator().manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data = 0.05 * torch.randn(weight.shape, generator=random)
    save_adapter(adapted, run.round(0).adapter)
    folder = run.round(0).evaluation("microworld-dev")
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_text(comparison().model_dump_json())
    return run


def comparison() -> Comparison:
    gain = {"delta": 20.0, "ci_low": 15.5, "ci_high": 24.5}
    counts = {"n": 126, "wins": 90, "ties": 30, "losses": 6}
    names = {"a": "base-stopped", "b": "tuned", "metric": "rouge_l", "group": "overall"}
    rest = {"n": 126, "exact_match": 0.0, "mean_words": 3.0, "empty": 0.0}
    return Comparison(
        suite="microworld-dev",
        **counts,
        **gain,
        confidence=0.95,
        scores=tuple(
            SystemScore(system=name, rouge_l=score, **rest)
            for name, score in (("base", 3.0), ("base-stopped", 4.0), ("tuned", 24.0))
        ),
        pairs=(PairedComparison(**names, **counts, **gain),),
    )


def greedy(name_or_path: Path | str, adapter: Path | None = None) -> list[str]:
    config = ModelConfig(name_or_path=str(name_or_path), dtype="float32", device="cpu")
    engine = TransformersEngine(load_model(config), EngineConfig())
    asked = [Request(str(n), p, Sampling(max_tokens=24)) for n, p in enumerate(PROMPTS)]
    found = engine.generate(asked, adapter)
    return [c.text for c in sorted(found, key=lambda c: c.id)]


def test_merged_weights_say_what_base_and_adapter_say(tuned: RunDirectory, tmp_path: Path) -> None:
    written = export_model(tuned, tmp_path / "out", merge=True)
    assert written.difference is not None and written.difference < 1e-4
    said = greedy(tmp_path / "out")
    assert said == greedy("embedded", tuned.round(0).adapter) != greedy("embedded")


@pytest.mark.parametrize("gguf", [None, "f16"])
def test_whole_weights_are_exported_as_they_are(
    tuned: RunDirectory, tmp_path: Path, gguf: Literal["f16"] | None
) -> None:
    run = write_run(tmp_path / "run")
    merged = export_model(tuned, tmp_path / "merged", merge=True)
    assert merged.difference is not None
    # What a training of all weights leaves.
    shutil.copytree(tmp_path / "merged", run.round(0).whole)
    written = export_model(run, tmp_path / "out", gguf=gguf)
    assert written.difference is None
    name = tmp_path / "out" / f"run-{gguf}.gguf" if gguf else tmp_path / "out"
    assert greedy(name) == greedy("embedded", run.round(0).tuned) != greedy("embedded")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "full fine-tuning" in card and "LoRA" not in card and "lora" not in card


def test_merged_in_bfloat16_stays_within_the_rounding_of_bfloat16(
    tuned: RunDirectory, tmp_path: Path
) -> None:
    written = export_model(tuned, tmp_path / "out", merge=True, dtype="bfloat16")
    assert written.difference is not None and 1e-4 < written.difference < 0.1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_a_merge_that_answers_otherwise_is_refused_and_leaves_nothing(
    tuned: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(merge._TOLERANCE, torch.float32, -1.0)
    with pytest.raises(TrainingError, match="it answers otherwise .* use --dtype float32"):
        export_model(tuned, tmp_path / "out", merge=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("merged", [False, True])
def test_the_python_on_the_card_asks_the_model_and_the_card_has_its_scores(
    tuned: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    export_model(tuned, tmp_path / "out", merge=merged)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "| microworld-dev, ROUGE-L | 126 | 3.0 | 4.0 |  | 24.0 | +20.0 (+15.5 to +24.5) |" in (
        card.text
    )
    assert card.data.license == "apache-2.0" and str(tuned.path.parent) not in card.content
    monkeypatch.chdir(tmp_path / "out")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(card.text.split("```python\n")[1].split("```")[0], {})
    asked = encode("plain", "Name three things that float.", "", load_answers("en"))
    config = ModelConfig(name_or_path="embedded", device="cpu")
    engine = TransformersEngine(load_model(config), EngineConfig())
    request = Request("0", asked, Sampling(max_tokens=128))
    expected = next(engine.generate([request], tuned.round(0).adapter)).text
    assert said.getvalue() == expected.strip() + "\n"


@pytest.mark.parametrize(("ranks", "option"), [(16, None), (24, "32"), (64, "64")])
def test_the_card_has_vllm_take_as_many_ranks_as_the_adapter_has(
    tuned: RunDirectory,
    tmp_path: Path,
    ranks: int,
    option: str | None,
) -> None:
    settings = tuned.round(0).adapter / "adapter_config.json"
    known = settings.read_text("utf-8")
    settings.write_text(json.dumps(json.loads(known) | {"r": ranks}), "utf-8")
    try:
        export_model(tuned, tmp_path / "out")
    finally:
        settings.write_text(known, "utf-8")
    told = (tmp_path / "out" / "README.md").read_text("utf-8")
    found = re.findall(r"--lora-modules tuned=\. (?:--max-lora-rank (\d+) )?--chat", told)
    assert found == [option or ""]


@pytest.fixture(params=["f16", "q8_0"])
def gguf_file(
    request: pytest.FixtureRequest,
    tuned: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    monkeypatch.setenv("SELFINSTRUCT_CACHE", str(tmp_path / "cache"))
    export_model(tuned, tmp_path / "out", merge=True, gguf=request.param)
    yield tmp_path / "out" / f"run-{request.param}.gguf"


def test_a_gguf_file_holds_the_merged_weights_and_says_the_same(gguf_file: Path) -> None:
    whole = load_model(ModelConfig(name_or_path=str(gguf_file.parent), device="cpu"))
    back = load_model(ModelConfig(name_or_path=str(gguf_file), dtype="float32", device="cpu"))
    theirs = dict(back.model.named_parameters())
    for name, weight in whole.model.named_parameters():
        if gguf_file.stem.endswith("f16") and weight.ndim > 1:
            assert torch.equal(weight.half().float(), theirs[name]), name
        elif weight.ndim > 1:
            # Half a step of 1/127 of the largest in its block of 32, and the step in 16 bits.
            blocks = weight.reshape(-1, 32)
            step = blocks.abs().amax(1, keepdim=True) / 127
            apart = (blocks - theirs[name].reshape(-1, 32)).abs()
            assert bool((apart <= 0.57 * step + 1e-6).all()), name
        else:
            assert torch.equal(weight, theirs[name]), name
    for text in PROMPTS:
        assert back.tokenizer(text).input_ids == whole.tokenizer(text).input_ids
    assert back.tokenizer.chat_template == whole.tokenizer.chat_template
    if gguf_file.stem.endswith("f16"):
        assert greedy(gguf_file) == greedy(gguf_file.parent)
    assert f"FROM ./{gguf_file.name}\n" in (gguf_file.parent / "Modelfile").read_text()


def test_other_architectures_and_tokenizers_are_refused_by_name_before_work(
    tuned: RunDirectory,
) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    tokenizer = byte_tokenizer()
    other = loaded_model("qwen2").model.config
    with pytest.raises(EngineError, match=r"'mine' has the architecture 'qwen2'.*--merge"):
        check_gguf(other, tokenizer, "mine")
    llama = loaded_model("llama").model.config
    check_gguf(llama, tokenizer, "mine")
    llama.rope_parameters = {"rope_type": "yarn", "rope_theta": 1.0}
    with pytest.raises(EngineError, match="positions of type 'yarn'"):
        check_gguf(llama, tokenizer, "mine")
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    raw["pre_tokenizer"] = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}
    from tokenizers import Tokenizer

    strange = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)))
    with pytest.raises(EngineError, match="tokenizer of 'mine' is not one of byte pairs"):
        check_gguf(loaded_model("llama").model.config, strange, "mine")


def test_llama_cpp_is_told_how_a_real_tokenizer_splits_text() -> None:
    tokenizer = real_tokenizer("SmolLM2-135M-base")
    if tokenizer is None:
        pytest.skip("the tokenizer of SmolLM2 is not at hand; name its folder's parent")
    # One of them is what the tokenizer's file says, the other what transformers makes of it; they
    # give the same tokens, for no pair of digits was ever merged.
    assert _splitting(tokenizer, "smollm2").name in ("smollm", "gpt-2")


def test_messages_become_the_prompt_that_the_model_was_tuned_on() -> None:
    answers = load_answers("en")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = plain_chat_template(answers, tokenizer)

    def rendered(*messages: tuple[str, str]) -> str:
        asked = [{"role": role, "content": content} for role, content in messages]
        return tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)

    @hypothesis_settings(max_examples=25, deadline=None)
    @given(st.text(min_size=1), st.text(min_size=1).filter(str.strip))
    def is_the_same(instruction: str, input: str) -> None:
        plain = encode("plain", instruction, "", answers)
        assert rendered(("user", instruction)) == plain
        whole = encode("plain", instruction, input, answers)
        assert rendered(("user", instruction), ("user", input)) == whole

    is_the_same()
    said = rendered(("system", "Be brief."), ("user", "Hi."), ("assistant", "Yes."), ("user", "?"))
    assert said == (
        "### Instruction:\nBe brief.\n\nHi.\n\n### Response: Yes.<eos>\n\n"
        "### Instruction:\n?\n\n### Response:"
    )


def test_a_tokenizer_that_adds_a_start_token_adds_one_to_messages_too(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = plain_chat_template(load_answers("en"), tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = again.apply_chat_template(
        [{"role": "user", "content": "Hi."}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert ids == again(encode("plain", "Hi.", "", load_answers("en"))).input_ids


def test_base_and_tuned_are_asked_side_by_side_and_model_text_cannot_act(
    tuned: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "Write the word twice.\tbird\n\nName a colour.\n"
    said = CliRunner().invoke(app, ["chat", str(tuned.path), "--max-tokens", "4"], input=asked)
    assert said.exit_code == 0 and said.output.count("base") == said.output.count("tuned ") == 2
    chat = Chat(tuned, max_tokens=24)
    tuned_says = [text.strip() for text in greedy("embedded", tuned.round(0).adapter)]
    assert [chat.ask("Write the word twice.", "bird").tuned, chat.ask("Name a colour.").tuned] == (
        tuned_says
    )
    answers = load_answers("en")
    base_says = [cut_at_new_example(text, answers).strip() for text in greedy("embedded")]
    assert chat.ask("Name a colour.").base == base_says[1]
    hostile = Answers("[red]a\u001b[2J[/red]", "[bold]b")
    monkeypatch.setattr(Chat, "ask", lambda *_: hostile)
    shown = CliRunner().invoke(app, ["chat", str(tuned.path)], input="x\n").output
    assert "[red]a\\x1b[2J[/red]" in shown and "\u001b" not in shown and "[bold]b" in shown


def test_the_modelfile_asks_in_the_plain_template() -> None:
    said = ollama_modelfile("m.gguf", load_answers("en"), SimpleNamespace(eos_token="<e>"))
    assert 'TEMPLATE """### Instruction:\n{{ .Prompt }}\n\n### Response:"""' in said
    assert 'PARAMETER stop "<e>"' in said


def test_a_run_without_a_tuned_model_is_named(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no model is tuned yet; go on with 'selfinstruct train "):
        export_model(run, tmp_path / "out")


def test_a_model_is_sent_to_the_hub_as_a_model(
    tuned: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    with hub() as there:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", there.address)
        arguments = ["export", "model", str(tuned.path), "--output", str(tmp_path / "out")]
        said = CliRunner().invoke(app, [*arguments, "--push-to-hub", "me/tuned"])
    assert said.exit_code == 0, said.output
    assert there.repositories["me/tuned"].get("type", "model") == "model"
    assert {"README.md", "adapter_model.safetensors", "tokenizer.json"} <= there.files.keys()
