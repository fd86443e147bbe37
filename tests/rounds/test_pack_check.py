"""`pack check` passes what works, and names everything else with the place and the fix."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.pack import pack_folder
from selfinstruct_train.rounds.pack_check import check_pack

MICROWORLD = "data/microworld/prompts"


def changed(folder: Path, file: str, change: Callable[[str], str], base: str = "zh") -> str:
    """A copy of a built-in pack with one file changed."""
    shutil.copytree(pack_folder(base), folder)
    text = (folder / file).read_text("utf-8")
    assert change(text) != text
    (folder / file).write_text(change(text), "utf-8")
    return str(folder)


@pytest.mark.parametrize("name", ["en", "zh", "pt", MICROWORLD])
def test_the_packs_that_ship_are_in_order(name: str) -> None:
    report = check_pack(name)
    assert "hostile ones dropped, each for its reason" in report.summary
    assert (not report.advice) == (name in ("zh", "pt"))


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("pack.yaml", '"输入："', '"输入"', "wording.input must end in its colon"),
        ("pack.yaml", '"输入："', '"输出："', "wording.input and wording.output are the same"),
        ("pack.yaml", 'no: "否"', 'no: "是"', "wording.yes and wording.no are the same"),
        ("pack.yaml", "[无, 没有", "[（）, 没有", "'（）' is never read; it holds no word"),
        ("pack.yaml", "[图片,", "[谜语, 图片,", "drop the instruction .unsuitable_word: 谜语."),
        ("pack.yaml", "scripts: [Han]", "scripts: [Latin]", "drop the instruction .foreign_lang"),
        ("pack.yaml", 'tie: "平"', 'tie: "平手"', "judge_pairwise.txt: does not tell .* '平手'"),
        ("pack.yaml", 'grade: "评级："', 'levels: [甲, 乙, 丙, 丁]', "does not tell .* '甲'"),
        ("pack.yaml", "[指令, 任务,", "[指令：, 任务,", "'指令：' is never found"),
        ("input_first.jsonl", "雨伞", "雨伞\\n输出：伞", "'zh_input_first_4' does not read back"),
        ("input_first.jsonl", "说出人们写日记的三个理由", "按描述用 Python 写个函数", "nearly"),
        ("output_first.jsonl", '"is_classification": true', '"is_classification": false',
         "is_classification must be true here"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_place(
    tmp_path: Path, file: str, old: str, new: str, says: str
) -> None:
    pack = changed(tmp_path / "mine", file, lambda text: text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"(?s)mine: .* wrong:\n- .*{says}"):
        check_pack(pack)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        return text.replace('"输入："', '"输入"').replace('no: "否"', 'no: "是"')

    with pytest.raises(ConfigError, match="2 things are wrong"):
        check_pack(changed(tmp_path / "mine", "pack.yaml", spoil))


def test_the_command_says_what_was_found_and_what_would_be_better() -> None:
    said = CliRunner().invoke(app, ["pack", "check", "en"])
    assert said.exit_code == 0
    assert "31 for classification, 8 for input_first, 6 for output_first" in said.output
    assert "advice: rules.language is not set" in said.output
