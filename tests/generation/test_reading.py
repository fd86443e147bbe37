"""What a model writes is read however it is labelled, and never with a label inside an answer."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfinstruct_train.generation.filters import check_instance, check_instances
from selfinstruct_train.generation.list_items import read_instructions
from selfinstruct_train.generation.prompt_labels import find_label
from selfinstruct_train.generation.prompting import (
    input_first_prompt,
    instruction_prompt,
    output_first_prompt,
)
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance

EN = load_pack("en")
PAIRS = [Instance(input="cat", output="Katze"), Instance(input="dog", output="Hund")]
LABELLED = [Instance(input="cat", output="animal"), Instance(input="oak", output="plant")]
PIECES = st.sampled_from(
    ["Input:", "Output:", "Label:", "Example 2", "Task:", "\n", "\r\n", " ", "**", "# ", "1.", "2.",
     "3.", "10.", "9 -", "Input", "None", "a", "b c", "：", "- ", "\n\n", "Class label", "(none)",
     "\n```\n", "```py\n", "\u200b", "\u2028", "\n---\n", "[", "]", "Example", "Question 2:"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=14).map("".join))


@pytest.mark.parametrize(
    "text",
    [
        "\nInput: cat\nOutput: Katze\nInput: dog\nOutput: Hund",
        "\nInput: cat\nOutput: Katze\nExample 2\nInput: dog\nOutput: Hund",
        "\r\nInput: cat\r\nOutput: Katze\r\nExample 2\r\nInput: dog\r\nOutput: Hund\r\n",
        "\nInput 1: cat\nOutput 1: Katze\nInput 2: dog\nOutput 2: Hund",
        "\nInput #1: cat\nOutput #1: Katze\nInput #2: dog\nOutput #2: Hund",
        "**\n**Input:** cat\n**Output:** Katze\n\n**Example 2**\n**Input**: dog\n**Output**: Hund",
        "\n### Input:\ncat\n### Output:\nKatze\n### Example 2\n### Input:\ndog\n### Output:\nHund",
        "\n## Input\ncat\n## Output\nKatze\n\n## Input\ndog\n## Output\nHund",
        "\nInput\ncat\nOutput\nKatze\nInput\ndog\nOutput\nHund",
        "\nInput：cat\nOutput：Katze\nInput：dog\nOutput：Hund",
        "\nINPUT: cat\nOUTPUT: Katze\ninput: dog\noutput: Hund",
        "\nInput - cat\nOutput - Katze\nInput - dog\nOutput - Hund",
        "\nInput: cat\nOutput -> Katze\nInput: dog\nOutput => Hund",
        "\n- Input: cat\n- Output: Katze\n- Input: dog\n- Output: Hund",
        "\n`Input:` cat\n`Output:` Katze\n`Input`: dog\n`Output`: Hund",
        "\n1. Input: cat\n   Output: Katze\n2. Input: dog\n   Output: Hund",
        ":\nInput: cat\nOutput (German): Katze\nExample 2:\nInput: dog\nOutput (German): Hund",
        "\nInput: cat\nOutput: Katze\nExample #2\nInput: dog\nOutput: Hund\nTask 3: Sing.",
        "\nInput: cat\nOutput: Katze\n(Example 2)\nInput: dog\nOutput: Hund\n**Task:** Sing.",
        "\n\xa0Input\u202f: cat\n\u3000Output\xa0: Katze\n\u200bInput: dog\n\u200fOutput:\tHund",
        "\x0bInput: cat\u2028Output: Katze\x85Input: dog\x0cOutput: Hund",
        "\nInput 1) cat\nOutput 1. Katze\nInput [2]: dog\nOutput_2: Hund",
        "\nInput A: cat\nOutput A: Katze\nInput II: dog\nOutput No. 2: Hund",
        "\n[Input] cat\n[Output]: Katze\n(Input): dog\n>Output:: Hund",
        "\n- [ ] Input: cat\n* - Output: Katze\n▪ Input: dog\n📤 Output: Hund",
        "\n(1) Input: cat\na) Output: Katze\n**2. Input:** dog\niv. Output: Hund",
        "\n** Input: ** cat\n~~Output:~~ Katze\n<b>Input:</b> dog\n### Output ###\nHund",
        "\n**Input: cat**\n**Output: Katze**\nInput\n-----\ndog\nOutput -\nHund",
        "\nInput ==> cat\nOutput ➜ Katze\nInput∶ dog\nOutput ⇒ Hund",
        " - Input: cat\nOutput: Katze\nExample 2: Input: dog\nExample 2 Output: Hund",
        "\nSample Input: cat\nExpected output: Katze\nInputs: dog\nModel Output: Hund",
        "\nInput: cat\nOutput: Katze\n\n---\n\nExample B\nInput: dog\nOutput: Hund\n---",
        "\nInput: cat\nOutput: Katze\nExample two (harder) -\nInput: dog\nOutput: Hund\n\n***",
        "\nInput: cat\nOutput: Katze\nExample:\nInput: dog\nOutput: Hund\n### Task 3\nSing.",
    ],
)
def test_input_first_pairs_are_read_however_they_are_labelled(text: str) -> None:
    assert read_input_first(EN.wording, text, truncated=False) == PAIRS


@pytest.mark.parametrize(
    "text",
    [
        " animal\nInput: cat\nLabel: plant\nInput: oak",
        " animal\nInput: cat\nClass label: plant\nInput: oak",
        " animal\r\nInput: cat\r\nClass Label 2: plant\r\nInput: oak",
        " animal\n**Input:** cat\n\n**Label:** plant\n**Input:** oak",
        " animal\nInput：cat\nLabel：plant\nInput：oak",
        " animal\nInput\ncat\nLabel\nplant\nInput\noak",
        " animal\nInput: cat\nExample 2\nLabel: plant\nInput: oak\nTask 4: Sing.",
        " animal\nInput: cat\nOutput: plant\nInput: oak",
    ],
)
def test_output_first_pairs_are_read_however_they_are_labelled(text: str) -> None:
    assert read_output_first(EN.wording, text, truncated=False) == LABELLED


def test_a_second_input_under_a_label_has_that_label() -> None:
    found = read_output_first(EN.wording, " animal\nInput: cat\nInput: dog", truncated=False)
    assert found == [Instance(input="cat", output="animal"), Instance(input="dog", output="animal")]


def test_a_cut_completion_loses_its_last_pair_only() -> None:
    text = "\nInput: cat\nOutput: Katze\nInput: dog\nOutput: Hu"
    assert read_input_first(EN.wording, text, truncated=True) == PAIRS[:1]
    text = " animal\nInput: cat\nLabel: plant\nInput: o"
    assert read_output_first(EN.wording, text, truncated=True) == LABELLED[:1]


def test_two_inputs_for_one_output_are_no_instance() -> None:
    text = "\nInput: a\nInput: b\nOutput: c\nInput: dog\nOutput: Hund"
    assert read_input_first(EN.wording, text, truncated=False) == PAIRS[1:]


@pytest.mark.parametrize(
    "said",
    ["None", "none.", "N/A", "n/a", "<noinput>", "No input needed.", "(none)", "[None]", "*None*",
     "No input required", "Not applicable.", "", "<No Input>", "-", "—", "There is no input.",
     "N / A", "<NO_INPUT>", "no-input", "N|A", "ｎｏｎｅ", "No\u00a0 input", "None provided.",
     "None (no input required)", "N/A - not needed", "This task requires no input.", "null"],
)  # fmt: skip
def test_a_placeholder_is_an_empty_input(said: str) -> None:
    assert read_input_first(EN.wording, f"\nInput: {said}\nOutput: a", False) == [
        Instance(output="a")
    ]
    assert read_output_first(EN.wording, f" a\nInput: {said}", False) == [Instance(output="a")]


def test_placeholders_belong_to_the_pack() -> None:
    other = EN.wording.model_copy(
        update={"input": "输入：", "output": "输出：", "no_input": ("无",)}
    )
    assert read_input_first(other, "\n输入：（无）\n输出：好", False) == [Instance(output="好")]
    assert read_input_first(other, "\n输入: None\n输出: 好", False) == [
        Instance(input="None", output="好")
    ]


@pytest.mark.parametrize(
    "output",
    ["Katze Output: Hund", "Katze\nInput: dog\nOutput: Hund", "a\n**Label:** b", "a\nTask 3: b",
     "a\nInput; b\nOutput; c", "a\n'Input': b\n'Output': c", "a\nINPUT- b\nOUTPUT- c",
     "a\nInput=b\nOutput=c", "a\n```\nb\n```\nOutput: c", "```\nInput: b\nExample 2\nc\n```"],
)  # fmt: skip
def test_a_label_left_in_an_answer_drops_it(output: str) -> None:
    fault = check_instance("Say it.", Instance(output=output), 4, EN.wording)
    assert fault is not None and fault.reason == "leftover_label"
    found = check_instances("Say it.", [Instance(output=output)], False, 5, 4, EN.wording)
    assert [one.fault and one.fault.reason for one in found] == ["leftover_label"]


@pytest.mark.parametrize(
    "output", ["The input is wrong.", "print('Output:', x)", "Labels matter", "Answer: 5", "Output"]
)
def test_words_that_are_no_labels_stay(output: str) -> None:
    read = read_input_first(EN.wording, f"\nInput: a\nOutput: {output}", False)
    assert read == [Instance(input="a", output=output)]


@pytest.mark.parametrize(
    "text",
    [
        " Name a fruit.\n10. Add two numbers.\n11. Sing.",
        " Name a fruit.\n**10.** Add two numbers.\n**11.** Sing.",
        " Name a fruit.\n**10. Add two numbers.**\n**11. Sing.**",
        " Name a fruit.\n10: Add two numbers.\n11: Sing.",
        " Name a fruit.\n10 - Add two numbers.\n11 - Sing.",
        " Name a fruit.\nTask 10: Add two numbers.\nTask 11: Sing.",
        " Name a fruit.\r\n10) Add two numbers.\r\n11) Sing.",
        " Name a fruit.\n## 10. Add two numbers.\n## 11. Sing.",
        " Name a fruit.\n(10) Add two numbers.\n[11] Sing.",
        " Name a fruit.\n- 10. Add two numbers.\n* **11.** Sing.",
        " Name a fruit.\n11. Add two numbers.\n12. Sing.",
        " Name a fruit.\n9. Add two numbers.\n10. Sing.",
        " Name a fruit.\n10. Add two numbers.\n10. Sing.",
        " Name a fruit.\n12. Add two numbers.\n12. Sing.",
        " Name a fruit.\n10.) Add two numbers.\n(11.) Sing.",
        " Name a fruit.\n10:- Add two numbers.\n[11]. Sing.",
        " Name a fruit.\n10- Add two numbers.\n11— Sing.",
        " Name a fruit.\n\u200b10. Add two numbers.\n\u200f11\xa0- Sing.",
        " Name a fruit.\u202810. Add two numbers.\x0b11. Sing.",
        " Name a fruit.\n> 10. Add two numbers.\n– 11. Sing.",
        " Name a fruit.\n10\\. Add two numbers.\n`11.` Sing.",
        " Name a fruit.\n### Task 10\nAdd two numbers.\n**Task 11**\nSing.",
        " Name a fruit.\n10. Task: Add two numbers.\nTask: 11. Sing.",
        " Name a fruit.\nQuestion 10: Add two numbers.\nQ11: Sing.",
        " Name a fruit.\nNo. 10: Add two numbers.\n<b>11.</b> Sing.",
    ],
)
def test_items_of_a_list_are_read_however_they_are_marked(text: str) -> None:
    assert read_instructions(text, 9, False) == ["Name a fruit.", "Add two numbers.", "Sing."]


@pytest.mark.parametrize(
    ("text", "first", "items"),
    [
        (" Sort:\n1. b\n2. a\n10. Sing.", 9, ["Sort: 1. b 2. a", "Sing."]),
        (" Sort:\n   9. b\n   10. a\n10. Sing.", 9, None),
        (" Sort:\n1. b\n2. a\n3. c\n3. Sing.", 2, ["Sort: 1. b 2. a 3. c", "Sing."]),
        (" Weigh\n10.5 kg of it.\n10. Sing.", 9, ["Weigh 10.5 kg of it.", "Sing."]),
        (" Meet at\n10:30 for tea.\n10. Sing.", 9, ["Meet at 10:30 for tea.", "Sing."]),
        (" In\n1984. Who?\n10. Sing.", 9, ["In 1984. Who?", "Sing."]),
        (" Sort:\n   9. b\n10. Sing.", 9, ["Sort: 9. b", "Sing."]),
        (" Which?\n(1) b\n(2) c\n2. Sing.", 1, ["Which? (1) b (2) c", "Sing."]),
        (" Sort:\n0. b\n1. c\n2. d\n2. Sing.", 1, ["Sort: 0. b 1. c 2. d", "Sing."]),
        (" Sort:\n1. b\n2. a\nand:\n1. d\n2. c\n10. Sing.", 9, None),
        (" Sort:\nStep 1: b\nStep 2: c\n2. Sing.", 1, ["Sort: Step 1: b Step 2: c", "Sing."]),
    ],
)
def test_a_list_inside_an_instruction_stays_whole(
    text: str, first: int, items: list[str] | None
) -> None:
    found = read_instructions(text, first, False)
    assert found[-1] == "Sing." and (items is None or found == items)


@given(TEXTS, st.booleans())
def test_input_first_rows_of_any_text_write_back_to_the_same_rows(text: str, cut: bool) -> None:
    rows = read_input_first(EN.wording, text, cut)
    shown = input_first_prompt(EN.wording, [_task(rows)], "x").demonstrations[0]
    again = shown.partition(f"{EN.wording.example} 1")[2]
    assert read_input_first(EN.wording, again, False) == rows


@given(TEXTS, st.booleans())
@example(text="0\r---\rINPUT\rINPUT", cut=False)
@example(text="0\rEXAMPLE\r---\rINPUT:0", cut=False)
def test_output_first_rows_of_any_text_write_back_to_the_same_rows(text: str, cut: bool) -> None:
    rows = read_output_first(EN.wording, text, cut)
    if rows:
        shown = output_first_prompt(EN.wording, [_task(rows)], "x").demonstrations[0]
        again = shown.partition(f"\n{EN.wording.label}")[2]
        assert read_output_first(EN.wording, again, False) == rows


@given(TEXTS, st.integers(1, 12), st.booleans())
def test_items_of_any_text_write_back_to_the_same_items(text: str, first: int, cut: bool) -> None:
    items = read_instructions(text, first, cut)
    if items:
        shown = instruction_prompt(EN.wording, ["x"] * (first - 1) + items).demonstrations
        again = "".join(shown[first - 1 :]).removeprefix(f"{first}.")
        assert read_instructions(again, first, False) == items


@given(TEXTS)
def test_an_answer_that_was_read_begins_no_line_with_a_label(text: str) -> None:
    for row in read_input_first(EN.wording, text, False):
        label = find_label(EN.wording, "x " + row.output)
        assert label is None or check_instances("i", [row], False, 5, 4, EN.wording)[0].fault


def _task(rows: list[Instance]):  # type: ignore[no-untyped-def]
    return EN.input_first[0].model_copy(update={"instruction": "x", "instances": tuple(rows)})


def test_a_wording_is_not_changed_by_what_is_only_read() -> None:
    other: Wording = EN.wording.model_copy(update={"no_input": ("nothing",)})
    assert EN._replace(wording=other).hash == EN.hash
