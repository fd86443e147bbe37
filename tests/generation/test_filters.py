import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_train.config import FilterConfig
from selfinstruct_train.generation.filters import InstructionFilter, check_instances, repeated_ngram
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance
from selfinstruct_train.text.words import count_words

RULES = load_pack("en").rules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Name a fruit.", "too_short"),
        ("word " * 151, "too_long"),
        ("Describe the image in one sentence.", "unsuitable_word"),
        ("Please GO TO the nearest shop and wait.", "unsuitable_word"),
        ("Write a program that adds two numbers.", "program"),
        ("- write a poem about rain", "leading_punctuation"),
        ("写一首关于雨的诗歌吧", "foreign_start"),
        ("Say it again and again and again and again and again and again", "loop"),
    ],
)
def test_each_predicate_names_what_it_drops(text: str, reason: str) -> None:
    screen = InstructionFilter(FilterConfig(allow_programs=False), RULES)
    fault = screen.fault(text)
    assert fault is not None and fault.reason == reason and fault.evidence


@pytest.mark.parametrize(
    "text",
    [
        "Name four fruits quickly.",
        "word " * 150,
        "Imagine you are a pirate and write a letter.",
        "Profile the customer in this conversation.",
        "Write a program that adds two numbers.",
        "3 facts about the moon, please.",
        "Élaborate on why tea is popular.",
        "Explain why very very very tall trees fall.",
    ],
)
def test_what_is_fine_stays(text: str) -> None:
    text = " ".join(f"w{i}" for i in range(150)) if text.startswith("word") else text
    assert InstructionFilter(FilterConfig(), RULES).fault(text) is None


def test_other_languages_bring_their_own_rules() -> None:
    rules = RULES.model_copy(update={"script": "Han", "unsuitable_words": ()})
    assert InstructionFilter(FilterConfig(), rules).fault("写一首关于雨的诗歌吧") is None


@given(st.lists(st.sampled_from("abcd"), max_size=20), st.integers(1, 3))
def test_a_loop_is_an_ngram_more_often_in_a_row_than_allowed(words: list[str], most: int) -> None:
    looped = any(
        words[start : start + size] * (most + 1) == words[start : start + size * (most + 1)]
        for size in range(1, 9)
        for start in range(len(words))
        if start + size * (most + 1) <= len(words)
    )
    assert (repeated_ngram(" ".join(words), most) is not None) == looped


def test_words_are_counted_in_scripts_without_blanks() -> None:
    assert count_words("写一首诗 about rain") == 6
    assert count_words("  ") == 0


def judged(*pairs: tuple[str, str], classification: bool = False, most: int = 5) -> list[str]:
    instances = [Instance(input=a, output=b) for a, b in pairs]
    found = check_instances("Do it.", instances, classification, most, 4)
    return [j.fault.reason if j.fault else "kept" for j in found]


def test_an_input_with_two_outputs_is_believed_in_neither() -> None:
    assert judged(("a", "x"), ("b", "y"), ("a", "z")) == [
        "conflicting_outputs",
        "kept",
        "conflicting_outputs",
    ]


def test_without_input_the_first_answer_stays_unless_the_task_asks_for_free_text() -> None:
    assert judged(("", "x"), ("", "y"), ("", "x")) == ["kept", "second_answer", "duplicate"]
    first, second = ("", "a b c d e f g h i"), ("", "b c d e f g h i j k")
    assert judged(first, second) == ["kept", "kept"]
    assert judged(first, ("", "a b c")) == ["kept", "second_answer"]
    assert judged(("", ""), ("", "y")) == ["empty_output", "kept"]


def test_several_labels_without_input_all_go() -> None:
    assert set(judged(("", "x"), ("", "y"), classification=True)) == {"conflicting_outputs"}


def test_every_other_fault_of_an_instance_is_named() -> None:
    assert judged(("a", ""), ("b", "b"), ("c", "Do it."), ("d", "so:"), ("e:", "f")) == [
        "empty_output",
        "output_is_input",
        "output_is_instruction",
        "ends_with_colon",
        "ends_with_colon",
    ]
    assert judged(("a", "x"), ("a", "x")) == ["kept", "duplicate"]
    assert judged(("a", "no " * 9)) == ["loop"]


def test_at_most_so_many_instances_stay() -> None:
    pairs = [(str(i), f"x{i}") for i in range(7)]
    assert judged(*pairs, most=5) == ["kept"] * 5 + ["too_many"] * 2
