"""What the shipped configs say of themselves, and that they run on models of their kind."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import Config, load_config

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LAUNCHERS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
KINDS = {
    "smollm2-135m": "llama",
    "llama-3.1-8b-instruct": "llama",
    "qwen2.5-0.5b": "qwen2",
    "qwen3-0.6b": "qwen3",
    "gemma-2-2b": "gemma2",
    "gemma-3-1b": "gemma3_text",
    "olmo-2-1b": "olmo2",
}
"""A config of each architecture, and one that is asked in a chat template."""
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
SEEDS_ALONE = (
    "seeds.path=everyday-seeds",
    "training.mix={own: 0, seeds: 1, generated: 0}",
    "training.max_steps=2",
    "training.batch_size=2",
    "training.micro_batch_size=1",
    "evaluation.max_tokens=8",
    "evaluation.seeds_only=false",
    "evaluation.bootstrap_samples=100",
    "rounds=1",
)
"""A random model writes nothing that could be kept, so it is tuned on seeds."""


@pytest.mark.parametrize("path", [*CONFIGS, *LAUNCHERS], ids=lambda p: p.name)
def test_every_config_opens_with_purpose_command_override_and_whether_it_was_run(
    path: Path,
) -> None:
    text = path.read_text("utf-8")
    head = text[: re.search(r"^\w", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    purpose, gap, rest = head.partition("\n#\n")
    assert gap and purpose.startswith("# ") and re.search(r"\.($|\s)", purpose)
    name = path.relative_to(ROOT).as_posix()

    assert name in rest, "the command names another file"
    assert re.search(r"^# Change: ", rest, re.MULTILINE)
    assert ("Not run by us" in head) != ("Run by us: " in head)
    if path in CONFIGS:
        assert re.search(r"^# Needs: ", rest, re.MULTILINE)


def test_the_list_of_configs_is_whole_and_says_what_the_files_say() -> None:
    text = (ROOT / "configs" / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.-]+)` \|(.*)\|$", text, re.MULTILINE))
    assert rows.keys() == {path.stem for path in CONFIGS}
    for path in CONFIGS:
        *_, asked, writer, _, run = (cell.strip() for cell in rows[path.stem].split("|"))
        assert (run == "no") == ("Not run by us" in path.read_text("utf-8")), path
        config = load_config(path)
        kind = config.generation.engine.kind
        assert {"server": "server", "vllm": "vLLM in", "transformers": "in process"}[kind] in writer
        if config.generation.style == "chat":
            assert asked.startswith("chat"), path
    assert all(f"`{path.stem}`" in text for path in LAUNCHERS)


def test_instruct_models_are_asked_and_tuned_in_their_chat_template() -> None:
    for path in CONFIGS:
        config = load_config(path)
        if path.stem.endswith("-instruct"):
            assert (config.generation.style, config.training.template) == ("chat", "chat"), path


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda p: p.name)
def test_accelerate_reads_each_launcher_file_as_it_is_meant(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    meant = yaml.safe_load(path.read_text("utf-8"))
    read = load_config_from_file(str(path))
    for key, value in meant.items():
        found = getattr(read, key)
        assert getattr(found, "value", found) == value, key
    # Within these sections a key that no option of the launcher has would be passed over.
    options = {action.dest for action in launch_command_parser()._actions}
    for section in ("fsdp_config", "deepspeed_config"):
        assert set(meant.get(section, {})) <= options, section


def tiny(kind: str, folder: Path) -> Path:
    """A random model of an architecture with a tokenizer of bytes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.helpers.small_models import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_config_of_each_architecture_runs_to_its_report_on_a_random_model_of_that_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "few.jsonl"
    lines = (ROOT / "data/everyday/dev.jsonl").read_text("utf-8").splitlines()
    suite.write_text("\n".join(lines[:4]) + "\n", "utf-8")
    own = (f"model.name_or_path={tiny(KINDS[name], tmp_path / 'model')}",)
    own += (f"evaluation.suites=[{suite}]", "output_dir=run")
    done = CliRunner().invoke(app, ["run", str(ROOT / f"configs/{name}.yaml"), *SEEDS_ALONE, *own])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert (tmp_path / "run" / "report.html").is_file()
    saved: Config = load_config(tmp_path / "run" / "config.yaml")
    assert (
        saved.training.learning_rate
        == load_config(ROOT / f"configs/{name}.yaml").training.learning_rate
    )
    rows = (tmp_path / "run/round-0/eval/few/tuned.jsonl").read_text("utf-8").splitlines()
    assert len([json.loads(row) for row in rows]) == 4
