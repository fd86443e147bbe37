import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from dev import settings
from selfinstruct_train.config import (
    TrainingConfig,
    dump_config,
    explaining_paths,
    flat_settings,
    load_config,
)
from selfinstruct_train.errors import ConfigError, DataError

ROOT = Path(__file__).parent.parent
SMALL = """
model: {name_or_path: embedded}
seeds: {path: seeds.jsonl}
evaluation: {suites: [microworld]}
output_dir: runs/x
"""


class _EditorLoader(yaml.SafeLoader):
    """Reads 2e-5 as a number, as YAML 1.2 has it and editors do."""


_EditorLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+"), list("-+0123456789")
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_all_faults_are_named_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = SMALL + "training: {learning_rat: 1, lora_r: -3}\nround: 2\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    message = str(caught.value)
    assert "'training.learning_rat'; did you mean 'training.learning_rate'?" in message
    assert "'round'; did you mean 'rounds'?" in message
    assert "'training.lora_r'" in message and "-3" in message


@pytest.mark.parametrize("text", ["2e-5", "2.0e-5", "0.00002"])
def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, SMALL + f"training: {{learning_rate: {text}}}\n"))
    assert config.training.learning_rate == 2e-5


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + "rounds: 2\n")
    config = load_config(
        path, ["rounds=3", "training.learning_rate=1e-4", "evaluation.suites=[a, b]"], Path("z")
    )
    assert (config.rounds, config.training.learning_rate) == (3, 1e-4)
    assert config.evaluation.suites == ("a", "b")
    assert config.output_dir == Path("z")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rounds", "key.sub=value"),
        ("rounds=0", "'rounds'"),
        ("training.nope=1", "unknown key 'training.nope'"),
        ("rounds.count=1", "'rounds' is a value"),
        ("evaluation.suites=[]", "'evaluation.suites'"),
        ("generation.instructions.last_item=8", "last_item"),
    ],
)
def test_a_bad_override_is_one_clear_error(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + says.replace(".", r"\.").replace("[", r"\[")):
        load_config(write(tmp_path, SMALL + "rounds: 1\n"), [override])


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "model: x\n"])
def test_a_malformed_file_is_a_config_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    config = load_config(path)
    assert config.output_dir == Path("runs") / path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_a_saved_config_reads_back_the_same(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / "saved.yaml").write_text(dump_config(config), "utf-8")
    assert load_config(tmp_path / "saved.yaml") == config


def test_flat_settings_are_dotted() -> None:
    path = ROOT / "configs" / "quickstart.yaml"
    before, now = (flat_settings(load_config(path, more)) for more in ([], ["training.lora_r=4"]))
    assert [key for key in now if now[key] != before[key]] == ["training.lora_r"]


def test_every_setting_says_what_it_means() -> None:
    """A setting without a docstring line is one that nobody can look up."""
    files = (ROOT / "selfinstruct_train" / "config").glob("*.py")
    trees = [ast.parse(path.read_text("utf-8")) for path in files]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) > 10
    sections = {node.name for node in classes}
    for node in classes:
        for field, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) not in sections:
                said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert said, f"{node.name}.{ast.unparse(field.target)}"


def test_the_settings_page_is_as_the_code_says() -> None:
    assert settings.PAGE.read_text("utf-8") == settings.render(), "run: python -m dev.settings"


def test_the_schema_is_as_the_code_says_and_explains_every_setting() -> None:
    assert settings.SCHEMA.read_text("utf-8") == settings.render_schema(), (
        "run: python -m dev.settings"
    )
    schema = json.loads(settings.SCHEMA.read_text("utf-8"))
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            assert "description" in field or "$ref" in str(field), (section["title"], name)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_names_the_schema_and_obeys_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "\n# yaml-language-server: $schema=schema.json\n" in text.partition("\nmodel:")[0] + "\n"
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(settings.SCHEMA.read_text("utf-8"))
    jsonschema.validate(yaml.load(text, _EditorLoader), schema)


def swept(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate(settings)


def test_a_sweep_is_a_training_for_each_combination_named_after_its_values() -> None:
    found = swept(sweep={"learning_rate": [1e-4, "2e-4"], "lora_r": [8, 16]}, epochs=3).trainings
    assert [training.name for training in found] == [
        "learning_rate-0.0001-lora_r-8",
        "learning_rate-0.0001-lora_r-16",
        "learning_rate-0.0002-lora_r-8",
        "learning_rate-0.0002-lora_r-16",
    ]
    assert [(t.learning_rate, t.lora_r, t.epochs, t.sweep) for t in found][2] == (2e-4, 8, 3.0, {})
    alone = swept()
    assert alone.trainings == (alone,) and alone.name == "default"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "hot", "sweep": {"lora_r": [4, 8]}}, "leave one out"),
        ({"sweep": {"lora_r": []}}, "sweep.lora_r has no values"),
        ({"sweep": {"lora_r": [4, 4.0]}}, "'lora_r-4' twice"),
        ({"sweep": {"learning_rate": [0.0]}}, "learning_rate"),
        ({"sweep": {"lora_r": [4.5]}}, "lora_r"),
        ({"sweep": {"colour": [1]}}, "colour"),
    ],
)
def test_a_sweep_that_cannot_be_trained_is_refused_before_anything_is_written(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        swept(**settings)


def write_config(folder: Path, **paths: object) -> Path:
    """A config of which some settings are paths."""
    data = {
        "model": {"name_or_path": paths.get("model", "embedded")},
        "seeds": {"path": paths.get("seeds", "microworld-seeds")},
        "generation": {"prompts": paths.get("prompts", "en")},
        "evaluation": {"suites": paths.get("suites", ["microworld"])},
        "output_dir": "runs/x",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "c.yaml").write_text(yaml.safe_dump(data))
    return folder / "c.yaml"


def test_paths_are_looked_for_beside_the_config_and_then_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "data").mkdir(parents=True)
    (there / "data").mkdir(parents=True)
    for file in (here / "data/both.jsonl", there / "data/both.jsonl", here / "one.jsonl"):
        file.write_text("")
    (there / "mine").mkdir()
    (there / "mine/pack.yaml").write_text("")
    (there / "microworld").mkdir()
    (there / "ni/splits/default").mkdir(parents=True)
    (there / "ni/splits/default/test_tasks.txt").write_text("")
    monkeypatch.chdir(here)
    file = write_config(
        there, seeds="data/both.jsonl", suites=["one.jsonl", "microworld", "ni"], prompts="mine"
    )
    for given in (file, Path("../there/c.yaml")):
        found = load_config(given)
        assert Path(found.seeds.path).samefile(there / "data/both.jsonl")
        assert Path(found.generation.prompts).samefile(there / "mine")
        *names, checkout = found.evaluation.suites
        assert names == ["one.jsonl", "microworld"], "a name is a name"
        assert Path(checkout).samefile(there / "ni"), "a checkout of natural-instructions"
        assert found.model.name_or_path == "embedded"
        assert found.output_dir == Path("runs/x")
    overridden = load_config(file, ["seeds.path=data/both.jsonl"])
    assert overridden.seeds.path == "data/both.jsonl", "what is typed is meant from here"


def test_a_path_that_is_nowhere_is_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_config(tmp_path / "there", seeds="no/seeds.jsonl", suites=["exam.jsonl"])
    data = load_config(file).model_dump(mode="json")
    for named in ("no/seeds.jsonl", "exam.jsonl"):
        with pytest.raises(DataError) as caught, explaining_paths(file, data):
            raise DataError(f"{named}: no such file; check the path")
        said = str(caught.value)
        assert said.startswith(f"{named}: no such file; check the path (relative paths are")
        assert f"{tmp_path / 'there'}, " in said and said.endswith(f"{tmp_path})")
    with pytest.raises(DataError, match="^another$"), explaining_paths(file, data):
        raise DataError("another")
