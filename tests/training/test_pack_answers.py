"""How a model is asked, where its answer ends and how it is judged are the pack's to say."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from selfinstruct_train.config import JudgeConfig
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.judging.ask import load_judge_prompts
from selfinstruct_train.packs.pack import load_answers, load_pack, pack_folder
from selfinstruct_train.templates import completion_text, cut_at_new_example, encode
from selfinstruct_train.training.dataset import encode_rows

CHINESE = {
    "encodings": [
        {
            "with_input": "指令：{instruction}\n输入：{input}\n回答：",
            "without_input": "指令：{instruction}\n回答：",
        }
    ],
    "new_example_labels": ["指令", "输入"],
    "colon": "：",
    "gap": "",
}


def make_pack(folder: Path, answers: object) -> str:
    shutil.copytree(pack_folder("en"), folder)
    data = yaml.safe_load((folder / "pack.yaml").read_text("utf-8"))
    data["answers"] = answers
    (folder / "pack.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), "utf-8")
    return str(folder)


def test_training_and_evaluation_ask_in_the_templates_of_the_pack(
    small: ModuleType, tmp_path: Path
) -> None:
    answers = load_pack(make_pack(tmp_path / "zh", CHINESE)).answers
    rows = small.rows(3)
    for template in ("plain", "varied"):
        trained = encode_rows(
            rows,
            small.settings(template=template),
            small.byte_tokenizer(),
            answers=answers,
            max_length=999,
            seed=0,
            file=tmp_path / "encoded.arrow",
        ).kept
        asked = [encode("plain", row.instruction, row.input, answers) for row in rows]
        assert [example.prompt for example in trained] == asked
        assert all(prompt.startswith("指令：") and "Response" not in prompt for prompt in asked)


def test_an_answer_follows_after_the_gap_of_the_pack(small: ModuleType, tmp_path: Path) -> None:
    answers = load_answers(make_pack(tmp_path / "zh", CHINESE))
    assert completion_text("春天", answers) == "春天"
    kept = encode_rows(
        small.rows(1),
        small.settings(),
        small.byte_tokenizer(),
        answers=answers,
        max_length=999,
        seed=0,
        file=tmp_path / "encoded.arrow",
    ).kept
    assert kept[0].completion == small.rows(1)[0].output


def test_a_base_is_cut_at_the_labels_of_the_pack(tmp_path: Path) -> None:
    answers = load_answers(make_pack(tmp_path / "zh", CHINESE))
    assert cut_at_new_example("春天\n指令 2：写诗", answers) == "春天"
    assert cut_at_new_example("a\nInput: b", answers) == "a\nInput: b"
    assert cut_at_new_example("春天\n指令 2：写诗", load_answers("en")) == "春天\n指令 2：写诗"


def test_the_judge_is_asked_in_the_words_of_the_pack(tmp_path: Path) -> None:
    name = make_pack(tmp_path / "zh", CHINESE)
    (tmp_path / "zh" / "judge_grade.txt").write_text("评分：{instruction}{input}{answer}", "utf-8")
    (tmp_path / "zh" / "judge_pairwise.txt").unlink()
    english = load_judge_prompts(JudgeConfig(), "en")
    found = load_judge_prompts(JudgeConfig(), name)
    assert found.grade.startswith("评分：")
    assert found.pairwise == english.pairwise


def test_a_pack_without_templates_has_the_english_ones(tmp_path: Path) -> None:
    assert load_answers(make_pack(tmp_path / "mine", None)) == load_answers("en")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{instruction} {inputs}:", "must hold the fields {instruction} and {input} and no other"),
        ("{instruction} {input} ", "must not end in white space"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(tmp_path: Path, text: str, error: str) -> None:
    answers = {**CHINESE, "encodings": [{"with_input": text, "without_input": "{instruction}:"}]}
    with pytest.raises(ConfigError) as raised:
        load_pack(make_pack(tmp_path / "zh", answers))
    assert error in str(raised.value)
    assert "pack.yaml" in str(raised.value)
