"""Laws of the preflight: faults are said before the first token, by every command alike."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import load_config
from selfinstruct_train.config.paths import explaining_paths
from selfinstruct_train.errors import SelfInstructError
from selfinstruct_train.models.describe import describe_model
from selfinstruct_train.models.tokenizer import freeze_clock
from selfinstruct_train.rounds import preflight as checks
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.templates import encode_chat
from tests.helpers.answering_server import Answer, Server
from tests.helpers.small_models import byte_tokenizer

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model that has nothing wrong with it."""
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    path = tmp_path / "model"
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def edit(file: Path, **changed: Any) -> None:
    data = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def no_end_token(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token=None)


def end_beyond_the_embedding(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token="<|new end|>")


def end_after_every_prompt(folder: Path) -> None:
    pieces = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}]
    edit(
        folder / "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": pieces,
            "pair": pieces,
            "special_tokens": {"E": {"id": "E", "ids": [1], "tokens": ["<eos>"]}},
        },
    )


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def refusing_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only the system speaks') }}")


def nothing(folder: Path) -> None:
    pass


FAULTS: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    (nothing, ("seeds.path=none.jsonl",), "none.jsonl"),
    (nothing, ("evaluation.suites=[nonee]",), "nonee"),
    (nothing, ("generation.prompts=none",), "none"),
    (nothing, ("evaluation.judge={pairwise_prompt: none.txt}",), "none.txt"),
    (nothing, ("evaluation.judge={model: {name_or_path: ./none}}",), "no folder './none'"),
    (nothing, ("evaluation.held_out_text=none.txt",), "none.txt"),
    (nothing, ("evaluation.published=./none",), "none"),
    (nothing, ("evaluation.harness={tasks: [x]}",), "evaluation.harness"),
    (nothing, ("generation.engine.kind=vllm",), r"pip install 'selfinstruct-train\[vllm\]'"),
    (nothing, ("training.report_to=[wandb]",), "pip install wandb"),
    (nothing, ("model.device=cuda",), "model.device: 'cuda' is asked for"),
    (nothing, ("model.name_or_path=./none",), "no folder './none'"),
    (nothing, ("model.name_or_path=nobody/nothing-of-the-kind",), "cannot load 'nobody/nothing"),
    (nothing, ("training.target_modules=[lm_head]",), "names the language-model head"),
    (nothing, ("training.target_modules=[x_proj]",), r"training\.target_modules: .*x_proj"),
    (nothing, ("training.target_modules=[post_attention_layernorm]",), "not supported"),
    (nothing, ("training.template=chat",), "no chat template"),
    (refusing_template, ("training.template=chat",), "TemplateError: only the system speaks"),
    (no_end_token, (), "has no end token"),
    (end_beyond_the_embedding, (), "is number 258, but the model knows 258 tokens"),
    (end_after_every_prompt, (), "ends every prompt in '<eos>'"),
    (no_weights, (), "no weights in safetensors format"),
]


def config_of(folder: Path, *overrides: str) -> Any:
    own = (f"model.name_or_path={folder}", "model.threads=1")
    return load_config(QUICKSTART, (*own, *overrides), folder.parent / "run")


@pytest.mark.parametrize(
    ("spoil", "overrides", "says"), FAULTS, ids=lambda v: v.__name__ if callable(v) else str(v)
)
def test_validate_and_run_refuse_in_the_same_words(
    folder: Path, spoil: Callable[[Path], None], overrides: tuple[str, ...], says: str
) -> None:
    if "vllm" in says or "wandb" in says or "harness" in says:
        module = {"vllm": "vllm", "wandb": "wandb"}
        for name, package in module.items():
            if name in says:
                _skip_if_installed(package)
    if "'cuda'" in says and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    spoil(folder)
    config = config_of(folder, *overrides)
    shown = config.model_dump(mode="json")
    with (
        pytest.raises(SelfInstructError, match=says) as by_run,
        explaining_paths(QUICKSTART, shown),
    ):
        Loop(config)
    assert not config.output_dir.exists(), "nothing may be written before all is checked"
    given = [f"model.name_or_path={folder}", "model.threads=1", *overrides]
    by_validate = CliRunner().invoke(app, ["validate", str(QUICKSTART), *given]).exception
    assert isinstance(by_validate, SelfInstructError)
    assert str(by_validate) == str(by_run.value)


def _skip_if_installed(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")


def test_all_faults_are_named_at_once(folder: Path) -> None:
    data = ("seeds.path=none.jsonl", "evaluation.held_out_text=none.txt", "generation.prompts=none")
    with pytest.raises(SelfInstructError) as caught:
        checks.preflight(config_of(folder, *data))
    said = str(caught.value)
    assert said.startswith("3 things are wrong:")
    assert all(word in said for word in ("none.jsonl", "none.txt", "'none'"))


def test_all_faults_of_a_model_are_named_at_once(folder: Path) -> None:
    no_weights(folder)
    config = config_of(folder, "training.target_modules=[x_proj]", "training.template=chat")
    with pytest.raises(SelfInstructError) as caught:
        checks.preflight(config)
    said = str(caught.value)
    assert said.startswith("3 things are wrong:")
    assert all(word in said for word in ("no weights", "x_proj", "no chat template"))


def test_two_suites_of_one_name_are_refused(folder: Path) -> None:
    first, second = folder.parent / "a" / "Test.jsonl", folder.parent / "b" / "test.jsonl"
    row = {"id": "1", "instruction": "Say a.", "instances": [{"input": "", "output": "a"}]}
    for file in (first, second):
        file.parent.mkdir()
        file.write_text(json.dumps(row) + "\n")
    config = config_of(folder, f"evaluation.suites=[{first}, {second}]")
    with pytest.raises(SelfInstructError, match="two suites are called 'test'"):
        checks.preflight(config)


def test_a_disk_too_small_for_the_checkpoints_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder)
    assert checks.preflight(config).trained_parameters > 0
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SelfInstructError, match="checkpoints and tuned models take about"):
        checks.preflight(config)


def test_a_pad_token_beyond_the_embedding_is_replaced(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token="<|new pad|>")
    model = describe_model(config_of(folder).model)
    assert model.tokenizer.pad_token_id < model.config.vocab_size
    assert model.tokenizer.pad_token_id != model.tokenizer.eos_token_id
    assert "beyond its embedding" in model.notes[0]


def test_a_chat_template_sees_the_day_the_run_began(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% set day = strftime_now('%d %b %Y') %}{{ day }}: {{ messages[0]['content'] }} ->"
    )
    config = config_of(folder, "training.template=chat")
    run = RunDirectory(config.output_dir)
    run.open(config)
    manifest = json.loads(run.manifest.read_text())
    begun = datetime(2020, 2, 29, 23, 59, tzinfo=UTC)
    first = manifest["starts"][0] | {"at": begun.isoformat()}
    edit(run.manifest, starts=[first, *manifest["starts"]])
    assert run.begun() == begun
    tokenizer = describe_model(config.model).tokenizer
    assert not encode_chat("Say hi.", "", tokenizer).startswith("29 Feb 2020")
    freeze_clock(tokenizer, run.begun())
    assert encode_chat("Say hi.", "", tokenizer) == "29 Feb 2020: Say hi. ->"


@pytest.fixture
def server() -> Iterator[Server]:
    """Writes tasks of chance words and says yes to every question."""

    def answer(body: dict[str, Any], number: int) -> Answer:
        words = ["".join(random.Random(f"{number} {i}").choices("abcdeiou", k=6)) for i in range(7)]
        likely = {" Yes": -0.1, " No": -3.0}
        choice = {
            "index": 0,
            "text": f" Describe {' '.join(words)}.\n",
            "finish_reason": "stop",
            "logprobs": {
                "tokens": [" Yes"],
                "token_logprobs": [-0.1],
                "top_logprobs": [likely],
                "text_offset": [0],
            },
        }
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return Answer({"choices": [choice], "usage": usage})

    started = Server(answer)
    yield started
    started.close()


def test_generating_with_a_server_needs_no_weights_here(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx2", reason="the extra 'server' is not installed")
    no_weights(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    config = config_of(
        folder,
        f"generation.engine={{kind: server, base_url: '{server.url}'}}",
        "generation.instructions_per_round=4",
        "generation.instructions.requests_per_batch=4",
        "generation.instructions.max_tokens=64",
        "generation.instances.max_tokens=32",
        "generation.instances.demonstrations=2",
        "generation.classification.yes_demonstrations=2",
        "generation.classification.no_demonstrations=2",
        "rounds=1",
    )
    loop = Loop(config, ("generate",))
    loop.generate(0)
    assert "model" not in vars(loop.opened), "no weights were asked for"
    assert len((config.output_dir / "round-0/instructions.jsonl").read_text().splitlines()) >= 4
    with pytest.raises(SelfInstructError, match="no weights in safetensors format"):
        Loop(config)


def test_the_doctor_says_what_a_config_needs_and_refuses_as_a_run_does(folder: Path) -> None:
    given = [str(QUICKSTART), f"model.name_or_path={folder}"]
    done = CliRunner().invoke(app, ["doctor", *given])
    assert done.exit_code == 0, done.exception
    for word in ("Python", "CPU", "disk", "compiler", "extra server", "Hub", "can be run here"):
        assert word in done.stdout
    no_end_token(folder)
    broken = CliRunner().invoke(app, ["doctor", *given]).exception
    assert isinstance(broken, SelfInstructError) and "no end token" in str(broken)


def test_the_version_is_said() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout.startswith("selfinstruct-train ")


def test_vllm_is_not_asked_to_write_with_whole_weights(folder: Path) -> None:
    writer = ("rounds=2", "generation.engine.kind=vllm", "generation.instance_writer=tuned")
    config = config_of(folder, *writer, "training.adapter=none")
    with pytest.raises(SelfInstructError, match="'vllm' takes adapters beside the base"):
        checks.preflight(config)
