"""A pack holds all that is language; its prompts are pinned to the byte."""

import hashlib
import re
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml

from selfinstruct_train.config import FilterConfig, load_config
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.filters import FilterResult, InstructionFilter
from selfinstruct_train.generation.prompting import (
    classification_prompt,
    few_shot_prompt,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.packs.pack import load_pack, pack_folder
from selfinstruct_train.run.directory import RunDirectory
from tests.generation.test_generate import SEEDS, scripted

ROOT = Path(__file__).parents[1]
MICROWORLD = str(ROOT / "data" / "microworld" / "prompts")
SMALL = (
    "generation.instances.answers=as_written",
    "generation.instructions_per_round=4",
    "generation.classification.calibrate=false",
)


@pytest.mark.parametrize(
    ("name", "digest", "prompt_hash"),
    [
        (
            "en",
            "0188deec2e2eaa3f9c3097a5153156c6903c25b629e4415e7a29639193d9a9e9",
            "85c5f20b7787d2ee",
        ),
        (
            MICROWORLD,
            "5842307848556c9cdd4e082fcfece495e6f303956839783d1dc21f88dcf2bb96",
            "e6017a7ea3bb4639",
        ),
    ],
)
def test_the_prompts_of_a_pack_are_what_they_were(name: str, digest: str, prompt_hash: str) -> None:
    pack = load_pack(name)
    wording = pack.wording
    prompts = [
        instruction_prompt(wording, ["Do this.", "Do that."]),
        classification_prompt(wording, pack.classification, "Do this."),
        input_first_prompt(wording, pack.input_first, "Do this."),
        output_first_prompt(wording, pack.output_first, "Do this."),
        few_shot_prompt(wording, pack.input_first, "Do this.", "a"),
        few_shot_prompt(wording, pack.input_first, "Do this.", ""),
    ]
    text = "\x1f".join(prompt.text for prompt in prompts)
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert pack.hash == prompt_hash


def change_pack(folder: Path, part: str, **values: object) -> str:
    """A copy of the English pack with some values changed."""
    shutil.copytree(pack_folder("en"), folder)
    data = yaml.safe_load((folder / "pack.yaml").read_text("utf-8"))
    data.setdefault(part, {}).update(values)
    (folder / "pack.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), "utf-8")
    return str(folder)


def test_what_stands_after_a_label_is_the_packs(tmp_path: Path) -> None:
    english = load_pack("en")
    pack = load_pack(change_pack(tmp_path / "zh", "wording", gap=""))
    asked = few_shot_prompt(pack.wording, pack.input_first, "Do this.", "a").text
    spaced = few_shot_prompt(english.wording, english.input_first, "Do this.", "a").text
    assert "\nTask:Do this.\n" in asked and "\nInput:a\nOutput:" in asked
    assert asked == re.sub("(Task:|Input:|Output:) ", r"\1", spaced)
    for make, shown in (
        (classification_prompt, pack.classification),
        (output_first_prompt, pack.output_first),
    ):
        text = make(pack.wording, shown, "Do this.").text
        assert not re.search(r"^(Task|Input|Label|Fixed labels): ", text, re.MULTILINE)
    assert pack.hash != english.hash


def test_instructions_are_compared_by_the_tokenizer_of_the_pack(tmp_path: Path) -> None:
    rules = load_pack(change_pack(tmp_path / "pt", "rules", tokenizer="unicode")).rules
    assert rules.tokenizer_choice("auto") == "unicode"
    assert rules.tokenizer_choice("rouge") == "rouge"
    assert load_pack("en").rules.tokenizer_choice("auto") == "auto"


def test_a_run_compares_by_the_tokenizer_of_its_pack(tmp_path: Path) -> None:
    pack = change_pack(tmp_path / "pt", "rules", tokenizer="unicode")
    for name, tokenizer in ((pack, "unicode"), ("en", "rouge")):
        run = RunDirectory(tmp_path / tokenizer)
        settings = load_config(
            ROOT / "configs" / "quickstart.yaml",
            [f"generation.prompts={name}", *SMALL],
            run.path,
        )
        generate_round(settings, scripted(), run, 0, SEEDS, None, lambda i, g: i, lambda u: None)
        mark = run.round(0).read_mark("instructions")
        assert mark is not None and mark.figures["tokenizer"] == tokenizer


def test_lengths_are_counted_in_the_units_of_the_pack(tmp_path: Path) -> None:
    rules = load_pack(change_pack(tmp_path / "zh", "rules", units="characters")).rules
    limits = FilterConfig(min_words=4, max_words=12)
    assert InstructionFilter(limits, rules).fault("Say why!!") is None
    found = InstructionFilter(limits, rules).fault("Say it in four words")
    assert found == FilterResult("too_long", "16 characters")
    assert InstructionFilter(limits, load_pack("en").rules).fault("Say it in four words") is None


def test_a_folder_of_the_old_form_is_refused_with_advice_that_works(tmp_path: Path) -> None:
    built_in = pack_folder("en")
    shutil.copytree(built_in, tmp_path / "mine")
    data = yaml.safe_load((built_in / "pack.yaml").read_text("utf-8"))
    (tmp_path / "mine" / "pack.yaml").unlink()
    for old, part in (("prompts", "wording"), ("rules", "rules")):
        (tmp_path / "mine" / f"{old}.yaml").write_text(yaml.safe_dump(data[part]))
    with pytest.raises(ConfigError, match="under 'wording:' and of the other under 'rules:'"):
        load_pack(str(tmp_path / "mine"))
    (tmp_path / "mine" / "pack.yaml").write_text(
        "".join(
            f"{part}:\n" + textwrap.indent((tmp_path / "mine" / f"{old}.yaml").read_text(), "  ")
            for old, part in (("prompts", "wording"), ("rules", "rules"))
        )
    )
    assert load_pack(str(tmp_path / "mine")) == load_pack("en")
