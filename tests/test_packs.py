"""A pack holds all that is language; its prompts are pinned to the byte."""

import hashlib
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.prompting import (
    classification_prompt,
    few_shot_prompt,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.packs.pack import load_pack, pack_folder

MICROWORLD = str(Path(__file__).parents[1] / "data" / "microworld" / "prompts")


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
