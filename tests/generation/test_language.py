"""Rows that are not in the pack's language are dropped; terms, code and translations are not."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from selfinstruct_train.config import FilterConfig
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.packs.language import LanguageRules, language_test
from selfinstruct_train.packs.pack import load_pack, pack_folder, read_pack_file
from selfinstruct_train.records import Instance

PACKS = {name: load_pack(name) for name in ("zh", "pt")}
CODE = "def f(x):\n    for i in range(x):\n        print(i, x)"
ENGLISH = (
    "There are many reasons why people of all ages like to walk in the woods that surround us."
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zh", "3 ways to keep the kitchen clean and tidy"),
        ("zh", "请 write a short story about the two brothers"),
        ("zh", "日本の祭りについて、知っていることを三つ書いてください。"),
        ("pt", "Write a short story about a lighthouse keeper"),
        ("pt", "List the rivers"),
        ("pt", "Escribe una historia corta en el estilo de un cuento"),
        ("pt", "Schreibe einen kurzen Brief an deine Nachbarin Frau Weber"),
        ("pt", "Напишите короткий рассказ о море"),
        ("pt", "写一个关于大海的短篇故事吧"),
    ],
)
def test_an_instruction_in_another_language_is_dropped_with_what_was_seen(
    name: str, text: str
) -> None:
    rules = PACKS[name].rules
    test = language_test(rules.language)
    assert test is not None and test.foreign_instruction(text)
    fault = InstructionFilter(FilterConfig(min_words=1), rules).fault(text)
    assert fault is not None and fault.reason in ("foreign_language", "foreign_start")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zh", "用 JavaScript 写一个函数，计算 Fibonacci 数列的前 n 项"),
        ("zh", "把“The early bird catches the worm”翻译成地道的中文"),
        ("zh", "2024年的奥运会在哪座城市举行？"),
        ("pt", "Traduza “The early bird catches the worm” de forma natural"),
        ("pt", "Liste três sites on demand"),
        ("pt", "Explique o que é machine learning"),
        ("pt", "Resolva y = 2x + 1"),
        ("pt", "Cite cinco frutas tropicais"),
    ],
)
def test_terms_names_code_and_translations_stay(name: str, text: str) -> None:
    assert InstructionFilter(FilterConfig(min_words=1), PACKS[name].rules).fault(text) is None


@pytest.mark.parametrize(
    ("name", "instruction", "output", "kept"),
    [
        ("zh", "说说人们为什么喜欢散步。", ENGLISH, False),
        ("zh", "说说人们为什么喜欢散步。", "散步让人放松，也能活动筋骨。", True),
        ("zh", "用英语说说人们为什么喜欢散步。", ENGLISH, True),
        ("zh", "写一个函数。", CODE, True),
        ("zh", "列出八种编程语言。", "C, Go, Rust, Java, Python, Ruby, Perl, Swift, Kotlin", True),
        ("zh", "说说散步的好处。", "산책은 마음을 편하게 하고 몸을 튼튼하게 해 줍니다", False),
        ("pt", "Diga por que as pessoas gostam de caminhar.", ENGLISH, False),
        ("pt", "Diga em inglês por que as pessoas gostam de caminhar.", ENGLISH, True),
        ("pt", "Escreva uma função.", CODE, True),
        ("pt", "Diga algo sobre caminhar.", "Quem caminha todos os dias dorme bem e ri.", True),
    ],
)  # fmt: skip
def test_answers_in_another_language_are_dropped_unless_the_task_asks_for_one(
    name: str, instruction: str, output: str, kept: bool
) -> None:
    pack = PACKS[name]
    for row in (Instance(output=output), Instance(input=output, output="x")):
        (found,) = check_instances(
            instruction, [row], False, 5, 9, pack.wording, language_test(pack.rules.language)
        )
        assert (found.fault is None) == kept
        assert kept or (found.fault is not None and found.fault.reason == "foreign_language")


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_is_in_its_own_language(name: str) -> None:
    pack = PACKS[name]
    test = language_test(pack.rules.language)
    assert test is not None
    screen = InstructionFilter(FilterConfig(), pack.rules)
    for task in (*pack.classification, *pack.input_first, *pack.output_first):
        assert screen.fault(task.instruction) is None, task.instruction
        for row in task.instances:
            for text in (row.input, row.output):
                assert test.foreign_answer(task.instruction, text) is None, text


def test_packs_that_name_no_language_take_rows_of_any() -> None:
    for name in ("en", "data/microworld/prompts"):
        pack = load_pack(name)
        assert language_test(pack.rules.language) is None
        assert read_pack_file(pack_folder(name) / "pack.yaml").rules.language is None


def test_a_script_that_does_not_exist_is_refused_with_its_name() -> None:
    with pytest.raises(ValidationError, match="'Hanzi' is no Unicode script"):
        LanguageRules(scripts=("Hanzi",))
    with pytest.raises(ValidationError, match="words of the language itself: das"):
        LanguageRules(scripts=("Latin",), function_words=("das",), foreign_words=("das", "the"))


def test_a_pack_with_such_a_script_is_a_fault_of_its_file(tmp_path: Path) -> None:
    text = (pack_folder("en") / "pack.yaml").read_text("utf-8")
    path = tmp_path / "pack.yaml"
    path.write_text(text.replace("script: Latin", "script: Ltn"), "utf-8")
    with pytest.raises(ConfigError, match=r"pack\.yaml: .*'Ltn' is no Unicode script"):
        read_pack_file(path)
