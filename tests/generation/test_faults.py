"""Laws of faults that show by their form: what machines write falls, what people write stays."""

import gzip
from collections import Counter

import pytest

from selfinstruct_train.config import FilterConfig
from selfinstruct_train.generation.faults import TextFaults, text_faults
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.packs.fault_words import FaultWords
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from tests.helpers.small_models import material

EN = load_pack("en")


@pytest.fixture
def faults() -> TextFaults:
    found = text_faults(EN.rules.faults)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "My enemy is your friend.",
        "I am not there yet.",
        "A very funny joke.",
        "That’s a common regional norm.",
    ],
)
def test_a_statement_is_no_task(text: str) -> None:
    fault = InstructionFilter(FilterConfig(), EN.rules).fault(text)
    assert fault is not None and fault.reason == "no_task"


@pytest.mark.parametrize(
    "text",
    [
        "Name three birds that swim.",
        "I need a short poem about rain.",
        "The sentence has a mistake. Correct it.",
        "My neighbour is loud, what should I say to him?",
        "A customer is angry. Write a reply to her.",
        "Two trains meet at noon. How far apart were they?",
    ],
)
def test_whatever_asks_for_something_is_a_task(text: str) -> None:
    assert InstructionFilter(FilterConfig(), EN.rules).fault(text) is None


@pytest.mark.parametrize(
    ("reason", "instruction", "given", "output"),
    [
        ("stray_number", "Tell me about the sea.", "", "1."),
        ("stray_number", "Tell me about the sea.", "", "1.1"),
        ("stray_number", "Describe the weather.", "It rains.", "2018-01-22 20:30:52.143 -0.001"),
        ("stray_number", "Tell me about the sea.", "", "-"),
        ("bare_answer", "Describe your perfect day at the sea.", "", "Good"),
        ("bare_answer", "Can you give me a few tips for a job interview?", "", "Yes."),
        ("bare_answer", "How do I keep my plants alive?", "They are ferns.", "high"),
        ("evasion", "Is it safe to swim there?", "", "I’m not sure, but I will help."),
        ("evasion", "Is it safe to swim there?", "", "1. I do not know.\n2. Ask the guard."),
        (
            "repeats_instruction",
            "I plan a trip to the old lake by train. Help?",
            "",
            "a trip to the old lake by train",
        ),
        (
            "evasion",
            "Plan my trip.",
            "",
            "I'd be happy to help you plan a trip that is full of fun and rest, on the sea or in "
            "the hills, with friends or alone, as you like it most. What kind of trip is it?",
        ),
        ("evasion", "Help me with it.", "", "I'm so sorry for your loss. I'm here to support you."),
        ("repeats_itself", "Name three skills.", "", "1. Fire.\n2. Water.\n3. Fire."),
        ("repeats_itself", "How?", "", "1. Rest. 2. Arrive early. 3. Arrive early. 4. Go."),
        ("repeats_itself", "Name apps.", "", "- Run\n- Swim\n- Ride\n- Walk\n- **Run**"),
        ("repeats_itself", "Name some rules.", "", "1. Be kind to all.\n2. Be kind to all."),
        ("repeats_itself", "Sing.", "", "I love the wild sea. It is big. I love the wild sea!"),
        ("list_of_one", "Which rules are there?", "", "2. You must be kind to others."),
        ("placeholder", "Tell me about the sea.", "", "See [Insert link to answer]."),
        ("placeholder", "Write to my boss.", "", "Dear boss, I am ill.\n[Your Name]"),
        ("placeholder", "Sum it up.", "[Insert article here]", "It is about bees."),
        ("refusal", "Tell me a story.", "", "As an AI, I have no stories."),
        ("refusal", "Tell me a story.", "", "I’m an AI and know none."),
        ("repeats_input", "Explain it to me.", "The cat sat down.", "The cat sat down!"),
        ("repeats_instruction", "Explain how a kite flies.", "", "Explain: how a kite flies"),
        ("input_missing", "Summarize this song in a line.", "", "It is about love."),
        ("input_missing", "Translate the following into French.", "", "Bonjour."),
        ("input_described", "Sum it up.", "A story about a man who loves dancing", "He dances."),
        ("input_described", "Sum it up.", "The lyrics of a song that is sad.", "It is sad."),
        ("markdown_fragment", "Write some code.", "", "```python\nprint(1)"),
        ("markdown_fragment", "Tell me a story.", "", "**Once there was a man."),
        ("markdown_fragment", "Name my pets.", "", "1. Dog\n2. Cat\n3."),
        ("cut_off", "Tell me a story.", "", "There was a man who lived in the"),
        ("cut_off", "Tell me a story.", "", "There was a man, a cat,"),
    ],
)
def test_each_fault_has_its_name(
    faults: TextFaults, reason: str, instruction: str, given: str, output: str
) -> None:
    found = list(faults.of_instance(instruction, Instance(input=given, output=output)))
    assert [fault.reason for fault in found] == [reason]


@pytest.mark.parametrize(
    ("instruction", "given", "output"),
    [
        ("How many legs does a spider have?", "", "8"),
        (
            "Is it safe?",
            "",
            "I can help. The lake is deep and cold, and near the weir there is a current. People "
            "swim at the north shore in July, when a guard is on duty.",
        ),
        ("Say what you feel.", "", "Since you ask: I'm not sure."),
        ("Is it a trip to the old lake or a trip to the sea?", "", "a trip to the sea"),
        ("Copy it: we met at the old lake by train", "", "We met at the old lake by train"),
        ("Name some rules.", "", "1. Be kind to all. 2. Be on time. 3. Be kind to all, always."),
        ("Sing.", "", "Oh my dear sea.\nBlue are you.\nCold are you.\nOh my dear sea."),
        ("Explain in one word what a yes means.", "", "consent"),
        ("Does the letter describe a firm or a conciliatory tone?", "Pay now.", "firm"),
        ("Describe your perfect day at the sea.", "", "Sun, sand, silence."),
        ("Add these.", "3 and 4", "7."),
        ("Pick the right option.", "a) cat b) dog", "b)"),
        ("Correct the sentence.", "The cat sit down there.", "The cat sits down there."),
        ("Translate the following: 'Good day'", "", "Guten Tag"),
        ("Fill in the form letter.", "Dear [Your Name], hello", "Dear [Your Name], hello Ann"),
        ("Write some code.", "", "```python\nprint(2**3)\n```"),
        ("Write a function for squares.", "", "def f(n): return n**2"),
        ("Who sang it?", "The story of my life, as told by One Direction, is a pop song.", "Them."),
        ("Which grade is it?", "I liked it a lot.", "A"),
    ],
)
def test_near_texts_stay(faults: TextFaults, instruction: str, given: str, output: str) -> None:
    assert not list(faults.of_instance(instruction, Instance(input=given, output=output)))


def test_one_label_for_all_inputs_is_dropped_and_two_labels_stay(faults: TextFaults) -> None:
    rows = [Instance(input=given, output="good") for given in ("I like it.", "I love it.")]
    found = check_instances("Good or bad?", rows, True, 5, 4, EN.wording, faults=faults)
    assert [row.fault and row.fault.reason for row in found] == ["one_label"] * 2
    rows.append(Instance(input="I hate it.", output="bad"))
    found = check_instances("Good or bad?", rows, True, 5, 4, EN.wording, faults=faults)
    assert not any(row.fault for row in found)
    assert check_instances("Good or bad?", rows[:1], True, 5, 4, faults=faults)[0].fault is None


def test_a_pack_without_these_words_drops_nothing_for_them() -> None:
    assert load_pack("data/microworld/prompts").rules.faults is None
    silent = TextFaults(FaultWords())
    assert silent.no_task("My enemy is your friend.") is None
    row = Instance(input="A story about a dog", output="[Your name] as an AI, 1")
    assert not list(silent.of_instance("Sum up this song", row))


def test_at_most_one_in_a_hundred_of_what_people_wrote_is_dropped(faults: TextFaults) -> None:
    own = ("everyday-seeds", "code-seeds", "medical-seeds", "legal-seeds", "orders-seeds")
    files = [*map(resolve, own), material() / "official" / "seed_tasks.jsonl"]
    for file in files:
        if not file.exists():
            continue
        tasks = read_seed_tasks(file)
        dropped = Counter[str]()
        total = 0
        for task in tasks:
            dropped["no_task"] += faults.no_task(task.instruction) is not None
            for instance in task.instances:
                total += 1
                dropped.update(f.reason for f in faults.of_instance(task.instruction, instance))
        assert all(count <= total / 100 for count in dropped.values()), (file, dropped)


def test_real_instructions_are_hardly_ever_taken_for_statements(faults: TextFaults) -> None:
    file = material() / "bench" / "instructions_en_52k.txt.gz"
    if not file.exists():
        pytest.skip(f"no {file}; set SELFINSTRUCT_MATERIAL")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [line.strip() for line in lines][::10]
    assert sum(faults.no_task(text) is not None for text in texts) <= len(texts) / 100


def test_what_the_chat_template_says_by_itself_is_no_task() -> None:
    preamble = "<|system|>\nYou are a helpful AI assistant named Smol.\n<|user|>"
    screen = InstructionFilter(FilterConfig(), EN.rules, preamble)
    told = "What does a cat eat? You are a helpful AI assistant named Smol."
    fault = screen.fault(told)
    assert fault is not None and fault.reason == "system_message"
    assert fault.evidence == "you are a helpful ai assistant"
    assert InstructionFilter(FilterConfig(), EN.rules).fault(told) is None
    assert screen.fault("Are you a helpful AI assistant, or what are you?") is None


def test_a_long_list_may_say_one_thing_twice_and_help_may_be_offered_after_an_answer() -> None:
    sports = ("run", "swim", "ride", "walk", "row", "run")
    days = "\n".join(f"{number}. {sport}" for number, sport in enumerate(sports, 1))
    found = (("Plan six days.", days), ("How do I start?", "Start small. Let me know!"))
    for instruction, output in found:
        (checked,) = check_instances(
            instruction, [Instance(input="", output=output)], False, 1, 5,
            EN.wording, None, text_faults(EN.rules.faults),
        )  # fmt: skip
        assert checked.fault is None
