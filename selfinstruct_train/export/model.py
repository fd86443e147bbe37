"""The tuned model of a run as a folder that other programs load: adapter, merged weights, GGUF."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.evaluation.compare import Trained
from selfinstruct_train.export.card import model_licence, public_name
from selfinstruct_train.export.chat_template import ollama_modelfile, plain_chat_template
from selfinstruct_train.export.choose import choose_trained
from selfinstruct_train.export.folder import CARD, whole_folder
from selfinstruct_train.export.gguf_writer import GgufType, check_gguf, write_gguf
from selfinstruct_train.export.model_card import ModelFiles, model_card
from selfinstruct_train.models.describe import ModelDescription, describe_model
from selfinstruct_train.models.load import load_model
from selfinstruct_train.models.merge import Merged, merge_adapter, tuned_whole
from selfinstruct_train.models.whole import is_whole
from selfinstruct_train.packs.pack import Pack, load_pack
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.templates import completion_text, encode

Dtype = Literal["float32", "bfloat16", "float16"]
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_COMPARED = 4


class ModelExport(NamedTuple):
    """What was written."""

    trained: Trained
    difference: float | None
    """Of the merged model's logits, in shares of the largest; None where nothing was merged."""


def export_model(
    run: RunDirectory,
    folder: Path,
    *,
    merge: bool = False,
    gguf: GgufType | None = None,
    trained: Trained | None = None,
    dtype: Dtype | None = None,
) -> ModelExport:
    """Write the tuned model of a run and its card.

    Args:
        run: where it was tuned.
        folder: where to; an earlier export there is replaced.
        merge: write the base's weights with the adapter merged into them, not the adapter; a model
            of which all weights were trained has none, and is written whole in any case.
        gguf: write a GGUF file of the merged weights, beside them if both are asked for.
        trained: which of its models; by default the best.
        dtype: of the merged weights; by default what the run computes in.

    Raises:
        RunError: the run has no such model, or the folder cannot be written.
        EngineError: the base is not to be had, or cannot be written as GGUF.
        TrainingError: the merged model does not compute what base and adapter do.
    """
    config = run.config()
    trained = trained or choose_trained(run, config)
    merge = merge or (is_whole(trained.directory.tuned) and gguf is None)
    described = describe_model(config.model)
    tokenizer, name = described.tokenizer, public_name(config.model.name_or_path)
    pack = load_pack(config.generation.prompts)
    is_chat = config.training.template == "chat"
    if not is_chat:
        tokenizer.chat_template = plain_chat_template(pack.answers, tokenizer)
    if gguf:
        check_gguf(described.config, tokenizer, name)
    with whole_folder(folder) as scratch:
        merged = None
        if merge or gguf:
            merged = _whole_weights(config, described, trained, dtype, pack)
        if merge and merged:
            merged.model.save_pretrained(scratch)
        if merge or not gguf:
            tokenizer.save_pretrained(scratch)
        weights = None
        if gguf and merged:
            weights = f"{run.path.resolve().name}-{gguf}.gguf"
            licence = model_licence(config.model)
            write_gguf(merged.model, tokenizer, scratch / weights, gguf, name, licence)
            modelfile = ollama_modelfile(weights, None if is_chat else pack.answers, tokenizer)
            (scratch / "Modelfile").write_text(modelfile, "utf-8")
        if merged is None:
            _copy_adapter(trained, scratch, name)
        difference = merged.difference if merged else None
        card = model_card(run, config, trained, ModelFiles(merge, weights, difference))
        card.save(scratch / CARD)
    return ModelExport(trained, difference)


def _whole_weights(
    config: Config,
    described: ModelDescription,
    trained: Trained,
    dtype: Dtype | None,
    pack: Pack,
) -> Merged:
    template, model, tuned = config.training.template, config.model, trained.directory.tuned
    if dtype is not None:
        model = model.model_copy(update={"dtype": dtype})
        described = described._replace(dtype=describe_model(model).dtype)
    if is_whole(tuned):
        here = model.model_copy(update={"name_or_path": str(tuned), "revision": None})
        return tuned_whole(load_model(here, described._replace(source=str(tuned))))
    texts = [
        encode(template, task.instruction, given.input, pack.answers, tokenizer=described.tokenizer)
        + completion_text(given.output, pack.answers, template)
        for task in pack.input_first[:_COMPARED]
        for given in task.instances
    ]
    return merge_adapter(load_model(model, described), tuned, texts)


def _copy_adapter(trained: Trained, folder: Path, base: str) -> None:
    settings, weights = (trained.directory.adapter / name for name in _ADAPTER_FILES)
    shutil.copyfile(weights, folder / weights.name)
    # The base's place on this machine says nothing elsewhere.
    known = json.loads(settings.read_text("utf-8")) | {"base_model_name_or_path": base}
    (folder / settings.name).write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")
