"""The first day: a folder for one's own domain, and what ships with the package."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import load_config
from selfinstruct_train.errors import SelfInstructError
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.sources.reader import read_seed_tasks

OFFLINE = "model.name_or_path=embedded"
LOST_BRACE = '{"id": "seed_8", "instruction": "Say when the café opens."'
OWN_SEED = {
    "id": "seed_8",
    "name": "café",
    "instruction": "Say in one sentence when the café opens.",
    "instances": [{"input": "Mon to Fri 8 to 17", "output": "The café opens at 8 on weekdays."}],
    "is_classification": False,
}


def say(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert say("init", "bakery").exit_code == 0
    monkeypatch.chdir(tmp_path / "bakery")
    return tmp_path / "bakery"


def test_a_folder_for_an_own_domain_is_valid_before_and_after_its_seeds_are_edited(
    domain: Path,
) -> None:
    before = say("validate", "config.yaml", OFFLINE)
    assert before.exit_code == 0 and "8 seed tasks, 6 tasks in test" in before.output
    with (domain / "seeds.jsonl").open("a", encoding="utf-8") as seeds:
        seeds.write(json.dumps(OWN_SEED, ensure_ascii=False) + "\n")
    after = say("validate", "config.yaml", OFFLINE)
    assert after.exit_code == 0 and "9 seed tasks" in after.output
    assert (domain / "README.md").read_text("utf-8").startswith("# bakery\n")


def test_a_slip_in_an_edited_seed_file_is_named_with_file_and_line(domain: Path) -> None:
    with (domain / "seeds.jsonl").open("a", encoding="utf-8") as seeds:
        seeds.write(LOST_BRACE + "\n")
    slip = say("validate", "config.yaml", OFFLINE)
    assert isinstance(slip.exception, SelfInstructError)
    assert "seeds.jsonl, line 9: not JSON" in str(slip.exception)


def test_the_example_seeds_show_each_form_and_share_nothing_with_suite_and_pack(
    domain: Path,
) -> None:
    seeds, suite = read_seed_tasks(domain / "seeds.jsonl"), load_suite(str(domain / "test.jsonl"))
    assert {seed.is_classification for seed in seeds} == {True, False}
    assert {bool(seed.instances[0].input) for seed in seeds} == {True, False}
    assert {len(seed.instances) for seed in seeds} == {1, 2}
    pack = load_pack("en")
    shown = {t.instruction for t in (*pack.classification, *pack.input_first, *pack.output_first)}
    asked = {task.instruction for task in suite.tasks}
    assert not {seed.instruction for seed in seeds} & (asked | shown)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-4B-Base", './my models/a: "b" #1.gguf'])
def test_the_named_model_is_the_one_in_the_config(tmp_path: Path, model: str) -> None:
    assert say("init", str(tmp_path / "shop"), "--model", model).exit_code == 0
    assert load_config(tmp_path / "shop/config.yaml").model.name_or_path == model


def test_nothing_of_the_user_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("mine")
    refused = say("init", str(tmp_path))
    assert isinstance(refused.exception, SelfInstructError)
    assert "already holds files" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]
    assert isinstance(say("init", str(tmp_path / "seeds.jsonl")).exception, SelfInstructError)


def test_configs_are_found_by_name_where_there_is_no_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = say("validate", "configs/quickstart.yaml")
    assert shipped.exit_code == 0 and "175 seed tasks" in shipped.output
    assert isinstance(say("validate", "configs/none.yaml").exception, SelfInstructError)
    # One's own file of the name goes first.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text("rounds: 0\n")
    assert isinstance(say("validate", "configs/quickstart.yaml").exception, SelfInstructError)


def test_the_quickstart_takes_overrides_and_is_refused_like_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = say("quickstart", "round=2")
    assert "did you mean 'rounds'?" in str(refused.exception)


def test_the_schema_is_printed_and_lies_in_a_new_folder(domain: Path) -> None:
    printed = say("schema").output
    assert (domain / "schema.json").read_text("utf-8") == printed
    training = json.loads(printed)["$defs"]["TrainingConfig"]["properties"]
    assert training["lora_r"]["description"] == "Rank of the adapter."
