import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.list_items import read_instructions
from selfinstruct_train.generation.prompting import (
    classification_prompt,
    few_shot_prompt,
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance

EN = load_pack("en")
words = st.text(string.ascii_letters, min_size=1, max_size=8)
lines = (
    st.lists(words, min_size=1, max_size=8)
    .map(" ".join)
    .filter(lambda line: not EN.wording.means_no_input(line))
)


@given(st.lists(lines, min_size=1, max_size=8), st.integers(1, 20))
def test_a_list_reads_back_as_it_was_written(items: list[str], first: int) -> None:
    text = "".join(
        f" {item}\n{number + 1}." for number, item in enumerate(items, first)
    ).removesuffix(f"\n{first + len(items)}.")
    assert read_instructions(text, first, truncated=False) == items


def test_a_cut_list_loses_its_last_item_only() -> None:
    text = " Name a fruit.\n10. Add two numbers.\n11. Tell me abo"
    assert read_instructions(text, 9, truncated=True) == ["Name a fruit.", "Add two numbers."]
    assert len(read_instructions(text, 9, truncated=False)) == 3
    assert read_instructions(" Tell me abo", 9, truncated=True) == []


def test_numbers_inside_an_instruction_do_not_split_it() -> None:
    text = " Compare version 2. 0 with 3. 1.\n10. List 11. things"
    assert read_instructions(text, 9, truncated=False) == [
        "Compare version 2. 0 with 3. 1.",
        "List 11. things",
    ]


def test_instructions_keep_their_case() -> None:
    assert read_instructions(" explain what NASA does", 1, False) == ["explain what NASA does"]


@given(st.lists(st.tuples(st.one_of(st.just(""), lines), lines), min_size=1, max_size=4))
def test_input_first_examples_read_back_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    instances = [Instance(input=a, output=b) for a, b in pairs]
    demo = EN.input_first[0].model_copy(update={"instances": tuple(instances)})
    shown = input_first_prompt(EN.wording, [demo], "x").demonstrations[0]
    completion = shown.partition(f"{EN.wording.example} 1")[2]
    assert read_input_first(EN.wording, completion, truncated=False) == instances
    assert read_input_first(EN.wording, completion, truncated=True) == instances[:-1]


@given(st.lists(st.tuples(st.one_of(st.just(""), lines), lines), min_size=1, max_size=4))
def test_output_first_examples_read_back_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    instances = [Instance(input=a, output=b) for a, b in pairs]
    demo = EN.output_first[0].model_copy(update={"instances": tuple(instances)})
    shown = output_first_prompt(EN.wording, [demo], "x").demonstrations[0]
    completion = shown.partition(EN.wording.label)[2]
    assert read_output_first(EN.wording, completion, truncated=False) == instances
    assert read_output_first(EN.wording, completion, truncated=True) == instances[:-1]


def test_outputs_of_several_lines_survive() -> None:
    text = "\nInput: a list\nOutput: 1. one\n2. two\n\nand more\nExample 2\nOutput: x = {\n}\n\n"
    assert read_input_first(EN.wording, text, False) == [
        Instance(input="a list", output="1. one\n2. two\n\nand more"),
        Instance(output="x = {\n}"),
    ]


def test_an_example_without_an_output_is_no_instance() -> None:
    assert read_input_first(EN.wording, "\nInput: a\nExample 2\nInput: b\nOutput: c", False) == [
        Instance(input="b", output="c")
    ]


def test_no_prompt_ends_in_white_space() -> None:
    """A blank at the end would be a token that the model never saw before a word."""
    prompts = [
        instruction_prompt(EN.wording, ["Do this.", "Do that."]),
        classification_prompt(EN.wording, EN.classification, "Do this."),
        input_first_prompt(EN.wording, EN.input_first, "Do this."),
        output_first_prompt(EN.wording, EN.output_first, "Do this."),
        few_shot_prompt(EN.wording, EN.input_first, "Do this.", "a"),
        few_shot_prompt(EN.wording, EN.input_first, "Do this.", ""),
    ]
    for prompt in prompts:
        assert prompt.text == prompt.text.rstrip()


def test_an_instruction_of_several_lines_stays_one_list_item() -> None:
    prompt = instruction_prompt(EN.wording, ["First line\n\n2. second  line"])
    assert prompt.demonstrations == ("1. First line 2. second line\n",)


def test_the_hash_changes_with_the_wording() -> None:
    other = EN._replace(wording=EN.wording.model_copy(update={"yes": "Aye"}))
    assert other.hash != EN.hash and load_pack("en").hash == EN.hash


def test_an_unknown_pack_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'xx'.*use one of en"):
        load_pack("xx")


def test_the_english_demonstrations_have_the_papers_numbers() -> None:
    yes = sum(task.is_classification for task in EN.classification)
    assert (yes, len(EN.classification) - yes) == (12, 19)
