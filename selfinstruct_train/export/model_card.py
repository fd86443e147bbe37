"""The card of a tuned model: its scores with their intervals, how to use it, how it was made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from selfinstruct_train.config import Config
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    OVERALL,
    Trained,
    read_comparison,
)
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.export.card import language_of, model_licence, public_name
from selfinstruct_train.export.folder import TAG
from selfinstruct_train.models.adapters import vllm_ranks
from selfinstruct_train.models.gguf import is_gguf
from selfinstruct_train.models.source import EMBEDDED
from selfinstruct_train.models.whole import is_whole
from selfinstruct_train.records import Comparison, PairedComparison, Rejection, TrainingRow
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore

_RANKS = 16
"""Of the widest adapter that vLLM takes unasked."""
_TEMPLATE = Path(__file__).with_name("model_card.md")
_MEASURES = {
    "rouge_l": "ROUGE-L",
    "accuracy": "accuracy",
    "oracle_accuracy": "right by the oracle",
}
_ASK = """\
messages = [{"role": "user", "content": "Name three things that float."}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
written = model.generate(**inputs, max_new_tokens=128, do_sample=False)
answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(answer.strip())"""


class ModelFiles(NamedTuple):
    """What an export holds."""

    merged: bool
    """Whether the weights are whole, as safetensors."""
    gguf: str | None
    """Name of the GGUF file."""
    difference: float | None
    """Of the merged model's logits, in shares of the largest."""


def model_card(run: RunDirectory, config: Config, trained: Trained, files: ModelFiles) -> ModelCard:
    """The card of an exported model.

    Args:
        run: where it was tuned.
        config: the run's settings.
        trained: which of its models.
        files: what the export holds.
    """
    base = public_name(config.model.name_or_path)
    title = run.path.resolve().name
    mark = trained.directory.read_mark("train")
    licence = model_licence(config.model)
    method = _method(config, trained)
    comparisons = [
        read_comparison(path)
        for path in sorted(trained.directory.path.glob(f"eval/*/{COMPARISON_FILE}"))
    ]
    card: ModelCard = ModelCard.from_template(
        ModelCardData(
            base_model=base if _is_on_hub(config) else None,
            language=language_of(config),
            library_name="transformers" if files.merged else None if files.gguf else "peft",
            license=licence or "unknown",
            pipeline_tag="text-generation",
            tags=[
                TAG,
                "self-instruct",
                method.lower().replace(" ", "-"),
            ],
        ),
        template_str=_TEMPLATE.read_text("utf-8"),
        title=title,
        base=f"`{base}`",
        rounds="one round" if trained.round == 0 else f"{trained.round + 1} rounds",
        form=_form(files),
        scores=[row for comparison in comparisons for row in _score_rows(comparison)],
        chosen=f"Chosen from the run's models on {selection_of(config.evaluation).description}.",
        asking=_asking(config),
        has_folder=files.merged or not files.gguf,
        python=_python(config, files),
        vllm=_vllm(base, files, trained),
        gguf=files.gguf,
        licence=licence or "not known here; see its own card",
        data=_data(trained),
        method=method,
        training=config.training,
        steps=mark.figures["steps"] if mark else "some",
        seed=config.seed,
        contamination=_contamination(trained),
        difference=files.difference,
    )
    return card


def _method(config: Config, trained: Trained) -> str:
    if is_whole(trained.directory.tuned):
        return "full fine-tuning"
    return "QLoRA" if config.training.adapter == "qlora" else "LoRA"


def _is_on_hub(config: Config) -> bool:
    name = config.model.name_or_path
    return name != EMBEDDED and not is_gguf(name) and not Path(name).expanduser().is_dir()


def _form(files: ModelFiles) -> str:
    held = ["whole weights"] if files.merged else [] if files.gguf else ["the adapter alone"]
    held += [f"`{files.gguf}`"] if files.gguf else []
    return f"Here: {' and '.join(held)}."


def _asking(config: Config) -> str:
    if config.training.template == "chat":
        return "It was tuned in the chat template of its base."
    return (
        "The chat template is the one that it was tuned in: a user's message is the instruction, "
        "and a second one right after it is the input. It was tuned on single questions."
    )


def _score_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    rows = []
    scores = {score.system: score for score in comparison.scores}
    for metric, name in _MEASURES.items():
        values = {system: getattr(score, metric) for system, score in scores.items()}
        if values.get("tuned") is None:
            continue
        cells = (_figure(values.get(s)) for s in ("base", "base-stopped", "seeds-only", "tuned"))
        pairs = [
            pair
            for pair in comparison.pairs
            if pair.metric == metric and pair.group == OVERALL and pair.b == "tuned"
        ]
        gains = (_gain(pairs, against) for against in ("base-stopped", "seeds-only"))
        title = f"{public_name(comparison.suite)}, {name}"
        rows.append((title, str(comparison.n), *cells, *gains))
    return rows


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _gain(pairs: list[PairedComparison], against: str) -> str:
    pair = next((pair for pair in pairs if pair.a == against), None)
    return f"{pair.delta:+.1f} ({pair.ci_low:+.1f} to {pair.ci_high:+.1f})" if pair else ""


def _python(config: Config, files: ModelFiles) -> str:
    head = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    load = ['here = "."  # this folder, or its name on the Hub']
    load += ["tokenizer = AutoTokenizer.from_pretrained(here)"]
    if files.merged:
        load += ["model = AutoModelForCausalLM.from_pretrained(here)"]
    else:
        head = ["from peft import PeftModel", *head]
        load += [f'base = "{public_name(config.model.name_or_path)}"  # or where it lies']
        if not _is_on_hub(config):
            # Names that only this package knows.
            head += ["from selfinstruct_train.config import ModelConfig"]
            head += ["from selfinstruct_train.models.describe import describe_model"]
            load += ["base = describe_model(ModelConfig(name_or_path=base)).source"]
        load += [
            "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), here)"
        ]
    return "\n".join([*head, "", *load, _ASK])


def _vllm(base: str, files: ModelFiles, trained: Trained) -> str:
    if files.merged:
        return "vllm serve ."
    adapter = "--enable-lora --lora-modules tuned=."
    settings = trained.directory.adapter / "adapter_config.json"
    if settings.is_file() and (ranks := json.loads(settings.read_text("utf-8"))["r"]) > _RANKS:
        adapter += f" --max-lora-rank {vllm_ranks(ranks)}"
    return f"vllm serve {base} {adapter} --chat-template chat_template.jinja"


def _data(trained: Trained) -> str:
    file = trained.directory.dataset / "train.jsonl"
    count = Counter(row.source for row in RowStore(file, TrainingRow, writable=False).stream())
    own = f", {count['own']} from elsewhere" if count["own"] else ""
    if count["replay"]:
        own += f", {count['replay']} answers of the base to general prompts"
    return f"{count['seed']} rows from seed tasks, {count['generated']} that the base wrote{own}"


def _contamination(trained: Trained) -> str:
    file = trained.directory.contamination
    found = list(RowStore(file, Rejection, writable=False).stream())
    dropped = sum(row.evidence.endswith("dropped") for row in found)
    return f"{len(found)} resemblances found, {dropped} of them dropped"
