from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.templates import (
    choose_variant,
    completion_text,
    cut_at_new_example,
    encode,
)

EN = load_answers("en")


def chat_tokenizer(adds_start: bool) -> PreTrainedTokenizerFast:
    vocab = {"<s>": 0, "<end>": 1, "<unk>": 2, "a": 3}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if adds_start:
        from tokenizers.processors import TemplateProcessing

        raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<end>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    return tokenizer


def test_the_plain_template_is_as_documented() -> None:
    assert encode("plain", "Add.", "1 2", EN) == (
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"
    )
    assert encode("plain", "Add.", " ", EN) == "### Instruction:\nAdd.\n\n### Response:"
    assert completion_text("3", EN) == " 3"


def test_text_in_braces_is_kept_as_it_is() -> None:
    prompt = encode("plain", "Fill {input} in.", "{instruction} {0}", EN)
    assert "Fill {input} in." in prompt
    assert "{instruction} {0}" in prompt


def test_varied_has_many_encodings_that_never_end_in_white_space() -> None:
    prompts = {encode("varied", "Add.", "1 2", EN, variant=v) for v in range(8)}
    bare = {encode("varied", "Add.", "", EN, variant=v) for v in range(8)}
    assert len(prompts) == 8
    assert len(bare) >= 6
    for prompt in prompts | bare:
        assert prompt == prompt.rstrip()
        assert "Add." in prompt
    assert all("1 2" in p for p in prompts)
    assert not any("Input" in p or "Text" in p for p in bare)


def test_a_model_tuned_on_varied_is_asked_the_plain_way() -> None:
    assert encode("varied", "Add.", "1 2", EN) == encode("plain", "Add.", "1 2", EN)


def test_the_encoding_of_a_row_follows_from_seed_and_row_alone() -> None:
    chosen = [choose_variant(3, f"row-{i}", EN) for i in range(400)]
    assert chosen == [choose_variant(3, f"row-{i}", EN) for i in range(400)]
    assert chosen != [choose_variant(4, f"row-{i}", EN) for i in range(400)]
    assert min(chosen.count(v) for v in range(8)) > 25


def test_chat_puts_instruction_and_input_into_one_message() -> None:
    tokenizer = chat_tokenizer(adds_start=False)
    asked = encode("chat", "Add.", "1 2", EN, tokenizer=tokenizer)
    assert asked == "<s>[user] Add.\n\n1 2\n[assistant]\n"
    assert encode("chat", "Add.", "", EN, tokenizer=tokenizer) == "<s>[user] Add.\n[assistant]\n"
    assert completion_text("3", EN, "chat") == "3"


def test_chat_does_not_give_the_start_token_twice() -> None:
    tokenizer = chat_tokenizer(adds_start=True)
    prompt = encode("chat", "a", "", EN, tokenizer=tokenizer)
    assert tokenizer(prompt).input_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_chat_without_a_chat_template_is_refused(with_tokenizer: bool) -> None:
    tokenizer = chat_tokenizer(adds_start=False)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="training.template is 'chat'"):
        encode("chat", "Add.", "", EN, tokenizer=tokenizer if with_tokenizer else None)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" Paris\n\nInput: Spain\nOutput: Madrid", " Paris"),
        ("\nA line.\nOutput:\nAnother.", "\nA line."),
        ("\n\nInput: the same\nOutput:", ""),
        (" Paris\n\n### Instruction:\nName a colour.", " Paris"),
        (" Paris\nTask 3: Name a colour.", " Paris"),
        (" Paris\nExample #2:\nmore", " Paris"),
        (" Paris\nQ: And Spain?", " Paris"),
        (" Paris.\nThe input: none", " Paris.\nThe input: none"),
        (
            "# Heading\n\n## Steps\n1. Input the code\n",
            "# Heading\n\n## Steps\n1. Input the code\n",
        ),
        (" It has an Input: and an Output: in mid-line", None),
        ("", ""),
    ],
)
def test_a_base_is_cut_where_a_line_opens_a_new_example(text: str, kept: str | None) -> None:
    assert cut_at_new_example(text, EN) == (text if kept is None else kept)
    assert cut_at_new_example(cut_at_new_example(text, EN), EN) == cut_at_new_example(text, EN)


@pytest.mark.parametrize("given", ["1 2", ""])
def test_the_template_of_evaluation_is_recognised_as_a_new_example(given: str) -> None:
    prompt = encode("plain", "Add.", given, EN)
    assert cut_at_new_example(f" 3\n\n{prompt} 3\n\n{prompt}", EN) == " 3"
