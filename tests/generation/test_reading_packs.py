"""What models write in the languages of the built-in packs is read however it is labelled."""

from collections.abc import Callable, Sequence

import pytest

from selfinstruct_train.generation.filters import check_instance
from selfinstruct_train.generation.list_items import read_instructions
from selfinstruct_train.generation.prompting import Prompt, input_first_prompt, output_first_prompt
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.packs.pack import Pack, load_pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.templates import cut_at_new_example

ZH, PT = load_pack("zh"), load_pack("pt")
CHINESE = [Instance(input="猫", output="Katze"), Instance(input="狗", output="Hund")]
PORTUGUESE = [Instance(input="gato", output="Katze"), Instance(input="cão", output="Hund")]


@pytest.mark.parametrize(
    "text",
    [
        "\n输入：猫\n输出：Katze\n示例 2\n输入：狗\n输出：Hund\n",
        "\n输入: 猫\n输出: Katze\n示例2：\n输入: 狗\n输出: Hund\n\n任务：唱歌",
        "\n输入一：猫\n输出一：Katze\n输入二：狗\n输出二：Hund",
        "\n【输入】猫\n【输出】Katze\n【示例二】\n【输入】狗\n【输出】Hund",
        "）\n【输入】：猫\n【输出】：Katze\n（示例 ２）\n【输入】：狗\n【输出】：Hund",
        "\n**输入**：猫\n**输出**：Katze\n### 示例 2\n**输入：** 狗\n**输出：** Hund",
        "\n输入文本：猫\n输出（德语）：Katze\n示例 2\n输入文本：狗\n输出（德语）：Hund",
        "\nInput: 猫\nOutput: Katze\n示例 2\nInput：狗\nOutput：Hund",
        "\n输入\n猫\n输出\nKatze\n\n输入\n狗\n输出\nHund",
        "\n\u3000輸入：猫\n\u3000輸出：Katze\n示例：\n[输入] 狗\n[输出] Hund",
        "：输入：猫\n输出：Katze\n示例 2：输入：狗\n▪ 输出 → Hund",
    ],
)
def test_chinese_pairs_are_read_in_full_and_half_width(text: str) -> None:
    assert read_input_first(ZH.wording, text, truncated=False) == CHINESE


@pytest.mark.parametrize(
    "text",
    [
        "\nEntrada: gato\nSaída: Katze\nExemplo 2\nEntrada: cão\nSaída: Hund",
        "\nENTRADA: gato\nSAÍDA: Katze\nentrada: cão\nsaida: Hund\n\nTarefa: cante",
        "\n**Entrada:** gato\n**Saída:** Katze\n**Exemplo 2**\n**Entrada:** cão\n**Saída:** Hund",
    ],
)
def test_portuguese_pairs_are_read_with_and_without_accents(text: str) -> None:
    assert read_input_first(PT.wording, text, truncated=False) == PORTUGUESE


def test_labels_before_inputs_are_read_in_both_languages() -> None:
    labelled = "好评\n输入：好用\n标签：差评\n输入：老死机\n【标签】中评\n【输入】还行"
    assert read_output_first(ZH.wording, labelled, truncated=False) == [
        Instance(input="好用", output="好评"),
        Instance(input="老死机", output="差评"),
        Instance(input="还行", output="中评"),
    ]
    found = read_output_first(PT.wording, " boa\nEntrada: ótimo\nRotulo: má\nEntrada: trava", False)
    assert found == [Instance(input="ótimo", output="boa"), Instance(input="trava", output="má")]


@pytest.mark.parametrize("pack", [ZH, PT], ids=["zh", "pt"])
def test_what_a_pack_says_where_there_is_no_input_is_an_empty_input(pack: Pack) -> None:
    wording = pack.wording
    for said in pack.wording.no_input:
        for shown in (said, f"（{said}）", f"<{said.upper()}>", f"{said}。"):
            text = f"\n{wording.input}{shown}\n{wording.output}x y"
            assert read_input_first(wording, text, False) == [Instance(output="x y")]


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        *((ZH, said) for said in ("無需輸入", "该任务不需要输入。", "无（不需要输入）")),
        *((PT, said) for said in ("nao ha entrada", "NA\u0303O SE APLICA", "Não requer entrada.")),
    ],
)
def test_no_input_is_known_in_any_spelling(pack: Pack, said: str) -> None:
    assert pack.wording.means_no_input(said)


@pytest.mark.parametrize(
    "text",
    [
        " 说出三种水果。\n9. 讲个笑话。\n10. 写一副对联。",
        "说出三种水果。\n9、讲个笑话。\n10、写一副对联。",
        "说出三种水果。\n（9）讲个笑话。\n（10）写一副对联。",
        "说出三种水果。\n9．讲个笑话。\n１０．写一副对联。",
        "说出三种水果。\n任务9：讲个笑话。\n任务10：写一副对联。",
    ],
)
def test_items_of_a_chinese_list_are_read_however_they_are_marked(text: str) -> None:
    found = read_instructions(text, 8, False, ZH.wording.task)
    assert found == ["说出三种水果。", "讲个笑话。", "写一副对联。"]


@pytest.mark.parametrize("output", ["很好。输出：很好", "很好\n任务：唱歌", "好。 标签：好评"])
def test_a_label_left_in_a_chinese_answer_drops_it(output: str) -> None:
    fault = check_instance("评一评。", Instance(output=output), 4, ZH.wording)
    assert fault is not None and fault.reason == "leftover_label"


def test_words_of_a_sentence_are_no_labels() -> None:
    for output in ("请给出标签：好或坏", "它的输入和输出都是整数", "任务一完成就收工"):
        assert check_instance("说说。", Instance(output=output), 4, ZH.wording) is None


@pytest.mark.parametrize("pack", [ZH, PT], ids=["zh", "pt"])
def test_the_demonstrations_read_back_as_they_are_shown(pack: Pack) -> None:
    wording = pack.wording

    def shown(make: Callable[[Wording, Sequence[SeedTask], str], Prompt], task: SeedTask) -> str:
        return make(wording, [task], "x").demonstrations[0]

    for task in pack.input_first:
        text = shown(input_first_prompt, task).partition(f"{wording.example} 1")[2]
        assert read_input_first(wording, text, False) == list(task.instances)
    for task in pack.output_first:
        text = shown(output_first_prompt, task).partition(wording.label)[2]
        assert read_output_first(wording, text, False) == list(task.instances)


@pytest.mark.parametrize(
    "start", ["输入：", "任务2：", "问题 3：", "### 指令：", "示例1:", "Input:"]
)
def test_a_chinese_base_is_cut_where_it_begins_another_example(start: str) -> None:
    assert cut_at_new_example(f"北京\n{start}哪里", ZH.answers) == "北京"
    assert cut_at_new_example("北京\n输入法很多", ZH.answers) == "北京\n输入法很多"
