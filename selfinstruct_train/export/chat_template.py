"""The pack's plain answer template in the languages of other programs, so that messages work."""

from __future__ import annotations

import json
from string import Formatter

from transformers import PreTrainedTokenizerBase

from selfinstruct_train.packs.parts import AnswerFormat

_JINJA = """\
{%- set turn = namespace(system='', instruction='', input='', asked=false) -%}
@START@
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set turn.system = message['content'] ~ '\\n\\n' -%}
  {%- elif message['role'] == 'user' -%}
    {%- if not turn.asked -%}
      {%- set turn.instruction = turn.system ~ message['content'] -%}
      {%- set turn.system = '' -%}
      {%- set turn.input = '' -%}
      {%- set turn.asked = true -%}
    {%- elif turn.input -%}
      {%- set turn.input = turn.input ~ '\\n\\n' ~ message['content'] -%}
    {%- else -%}
      {%- set turn.input = message['content'] -%}
    {%- endif -%}
    {%- if loop.last or messages[loop.index0 + 1]['role'] != 'user' -%}
      {%- if turn.input -%}
        {{- @WITH_INPUT@ -}}
      {%- else -%}
        {{- @WITHOUT_INPUT@ -}}
      {%- endif -%}
      {%- set turn.asked = false -%}
    {%- endif -%}
  {%- elif message['role'] == 'assistant' -%}
    {{- @GAP@ ~ message['content'] ~ eos_token -}}
    {%- if not loop.last -%}{{- '\\n\\n' -}}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
"""


def plain_chat_template(answers: AnswerFormat, tokenizer: PreTrainedTokenizerBase) -> str:
    """The plain template as a Jinja chat template.

    A user's message is the instruction; where a second one follows at once it is the input. What a
    system message says stands before the instruction, though the model never saw one in training.

    Args:
        answers: the pack's templates.
        tokenizer: the model's; the template begins with its start token if it adds one itself.
    """
    adds_start = tokenizer.bos_token_id is not None and (
        tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    )
    plain = answers.encodings[0]
    parts = {
        "START": "{{- bos_token -}}" if adds_start else "",
        "WITHOUT_INPUT": _expression(plain.without_input),
        "WITH_INPUT": _expression(plain.with_input),
        "GAP": _literal(answers.gap),
    }
    template = "".join(line.strip() for line in _JINJA.splitlines())
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


def ollama_modelfile(
    weights: str, answers: AnswerFormat | None, tokenizer: PreTrainedTokenizerBase
) -> str:
    """A Modelfile for Ollama.

    Args:
        weights: name of the GGUF file beside it.
        answers: the pack's templates; None where the model has a chat template of its own, which
            Ollama reads from the file.
        tokenizer: the model's.
    """
    lines = [f"FROM ./{weights}"]
    if answers is not None:
        prompt = answers.encodings[0].without_input.format(instruction="{{ .Prompt }}")
        lines += [f'TEMPLATE """{prompt}"""', f"PARAMETER stop {json.dumps(tokenizer.eos_token)}"]
    return "\n".join([*lines, "PARAMETER temperature 0"]) + "\n"


def _expression(encoding: str) -> str:
    """A template with fields in braces as a Jinja expression."""
    parts = []
    for text, field, _, _ in Formatter().parse(encoding):
        if text:
            parts.append(_literal(text))
        if field is not None:
            parts.append(f"turn.{field}")
    return " ~ ".join(parts)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
