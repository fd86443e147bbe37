"""Text measures of every script: each language is counted by its own words."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_train.config import ContaminationConfig, FilterConfig
from selfinstruct_train.contamination.suite_index import ExampleRow, SuiteIndex, SuiteTasks
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.metrics import exact_match, rouge_l, score_predictions
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.generation.dedup import dedup
from selfinstruct_train.generation.filters import InstructionFilter, check_instance, repeated_ngram
from selfinstruct_train.generation.pool import Candidate, Pool
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import EvalTask, Instance, Prediction, SeedTask
from selfinstruct_train.text.words import choose_tokenizer, count_words, split_words, whole_words

CHINESE = "写一首关于春天的诗，要求押韵。"
HAN = load_pack("en").rules.model_copy(
    update={"script": "Han", "unsuitable_words": ("图片", "image")}
)


def suite_of(*pairs: tuple[str, str]) -> Suite:
    tasks = tuple(
        EvalTask(
            id=f"t{i}",
            motivation_app="",
            instruction=instruction,
            instances=(Instance(input="", output=output),),
        )
        for i, (instruction, output) in enumerate(pairs)
    )
    return Suite("some", tasks, False)


def answers(suite: Suite, *texts: str) -> list[Prediction]:
    return [
        Prediction(
            task_id=i.task_id, instruction=i.instruction, input="", response=t, target=i.target
        )
        for i, t in zip(suite.items, texts, strict=True)
    ]


@pytest.mark.parametrize(
    "text", [CHINESE, "กรุงเทพ", "Привет, мир", "안녕하세요 세계", "ありがとう", "मुझे बताओ", "😀!"]
)
def test_a_text_is_like_itself_in_every_script(text: str) -> None:
    assert rouge_l(text, text) == 100.0 and exact_match(text, text)


def test_chinese_answers_are_scored_by_their_characters() -> None:
    suite = suite_of(("问题一", "春天有3朵花"), ("问题二", "夏天很热"))
    right = score_predictions("x", answers(suite, "春天有3朵花", "夏天很热"), suite)
    assert right.rouge_l == right.exact_match == 100.0 and right.unscored == 0
    half = score_predictions("x", answers(suite, "春天有3朵花", "冬天不冷"), suite)
    assert 50.0 < half.rouge_l < 100.0


def test_references_that_the_tokenizer_cannot_see_are_unscored_not_zero() -> None:
    assert math.isnan(rouge_l("你好", "你好", "rouge"))
    english = [(f"Say the word number {i}.", "a long answer in English words") for i in range(40)]
    suite = suite_of(*english, ("Translate hello.", "你好"))
    given = answers(suite, *["a long answer in English words"] * 40, "你好")
    score = score_predictions("x", given, suite)
    assert score.rouge_l == 100.0 and score.unscored == 1 and score.n == 41


def test_a_suite_without_any_scorable_reference_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "selfinstruct_train.evaluation.metrics.suite_tokenizer", lambda suite: "rouge"
    )
    suite = suite_of(("问题", "你好"))
    with pytest.raises(DataError, match="no answer can be scored"):
        score_predictions("x", answers(suite, "你好"), suite)


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [("你好。", "你好", True), ("“yes”", "yes", True), ("a—b", "ab", True), ("你", "好", False)],
)
def test_exact_match_strips_the_marks_of_every_script(answer: str, target: str, same: bool) -> None:
    assert exact_match(answer, target) is same


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (["Write a poem about the café."] + ["Add two numbers to it."] * 9, "rouge"),
        ([CHINESE], "unicode"),
        (["Não sei o que é isso, explique a situação."], "unicode"),
        (["Напиши стихотворение"], "unicode"),
        (["1 + 1 = ?"], "rouge"),
        ([], "rouge"),
    ],
)
def test_the_tokenizer_follows_the_script(texts: list[str], name: str) -> None:
    assert choose_tokenizer("auto", texts) == name
    assert choose_tokenizer("rouge", texts) == "rouge"
    assert choose_tokenizer("unicode", texts) == "unicode"


def test_repeated_chinese_candidates_are_not_novel(tmp_path: Path) -> None:
    distinct = [f"请{verb}一下{noun}" for verb in "写读说画" for noun in ("诗歌", "新闻", "天气")]
    seeds = [
        SeedTask(
            id="s",
            name="s",
            instruction="把下列数字加起来并给出总和",
            instances=(Instance(output="3"),),
            is_classification=False,
        )
    ]
    pool = Pool(seeds, choose_tokenizer("auto", (seeds[0].instruction,)), 0.7)
    assert pool.tokenizer == "unicode"
    found = pool.admit([Candidate(str(i), distinct[i % 12]) for i in range(112)])
    assert sum(one.accepted for one in found) <= 12
    path = tmp_path / "c.txt"
    path.write_text("\n".join([CHINESE, CHINESE, "夏天很热"]), "utf-8")
    assert [row.accepted for row in dedup([], [path], 0.7, "auto")] == [True, False, True]


def test_contamination_is_found_in_every_script() -> None:
    suite = SuiteTasks("some", suite_of((CHINESE, "好的")).tasks)
    index = SuiteIndex(suite, ContaminationConfig(), "auto")
    row = ExampleRow("a", "generated", CHINESE.replace("春天", "夏天"), "", "好的")
    assert [finding.level for _, finding in index.find([row])] == ["similar"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("请描述这张图片里的内容", "unsuitable_word"),
        ("请打开image文件并描述内容", "unsuitable_word"),
        ("《红楼梦》的作者是谁呢", None),
        ("“好”字怎么写才好看", None),
        ("。写一首关于雨的诗歌", "leading_punctuation"),
        ("《Dream》的作者是谁呢", "leading_punctuation"),
        ("对，对，对，对，对，对，对", "loop"),
        ("请说" + "好" * 100, "loop"),
        ("写诗。", "too_short"),
    ],
)
def test_instructions_are_filtered_by_the_words_of_their_script(
    text: str, reason: str | None
) -> None:
    fault = InstructionFilter(FilterConfig(), HAN).fault(text)
    assert (fault.reason if fault else None) == reason


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("好" * 200, "loop"),
        ("对，对，对，对，对，对", "loop"),
        ("对、对，对。对，对！对", "loop"),
        ("答案如下：", "ends_with_colon"),
        ("答案如下﹕", "ends_with_colon"),
        ("今天天气很好。", None),
        ("我们我们走吧", None),
    ],
)
def test_answers_are_filtered_in_every_script(output: str, reason: str | None) -> None:
    fault = check_instance("写一句话", Instance(output=output), 4)
    assert (fault.reason if fault else None) == reason


@given(st.text(max_size=40))
def test_words_of_any_text_are_not_blank_and_none_is_lost(text: str) -> None:
    found = split_words(text)
    assert all(word.strip() for word in found) and count_words(text) == len(found)
    assert bool(found) == bool(text.strip()) or not text.isprintable()


@given(st.text("abc ,.(-é", max_size=30))
def test_words_of_spaced_scripts_are_what_stands_between_blanks(text: str) -> None:
    assert split_words(text) == text.split()
    pattern = whole_words(["ab", "c a"])
    assert pattern is not None
    expected = re.search(r"\b(?:ab|c a)\b", text)
    found = pattern.search(text)
    assert (found and found.span()) == (expected and expected.span())


def test_punctuation_beside_a_character_is_no_word() -> None:
    assert split_words("《红楼》，see (this) now，好") == ["红", "楼", "see", "(this)", "now", "好"]
    assert repeated_ngram("一个一个一个", 4) is None
