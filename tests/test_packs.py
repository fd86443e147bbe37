"""A pack holds all that is language; its prompts are pinned to the byte."""

import hashlib
from pathlib import Path

import pytest

from selfinstruct_train.generation.prompting import (
    classification_prompt,
    few_shot_prompt,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.packs.pack import load_prompt_set

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
    pack = load_prompt_set(name)
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
