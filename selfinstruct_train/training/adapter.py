"""The adapter on the loaded model: put on, saved, and every trace of it taken off again."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import set_seed

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.models.adapters import without_advice
from selfinstruct_train.run.stores import write_atomically


def attach_adapter(base: Any, config: TrainingConfig, seed: int, start: Path | None) -> PeftModel:
    """Wrap the base in a fresh adapter, or in the one in ``start`` to go on from it.

    Raises:
        ConfigError: ``target_modules`` names no module of the model.
        RunError: there is no adapter to go on from.
    """
    if start is not None:
        if not (start / "adapter_config.json").exists():
            raise RunError(
                f"{start}: no adapter there to go on from; finish the round before, or set "
                "training.start=base"
            )
        with without_advice():
            return PeftModel.from_pretrained(base, str(start), is_trainable=True)
    # peft draws the first weights from the global generator.
    set_seed(seed)
    modules = config.target_modules
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        exclude_modules=_routers(base) or None,
        task_type="CAUSAL_LM",
    )
    try:
        with without_advice():
            tuned = get_peft_model(base, lora)
    except ValueError as error:
        _unwrap(base)
        reason = " ".join(str(error).split()).rstrip(".")
        advice = "name linear layers of the model, or all-linear"
        if "dropout" in reason:
            advice = "set training.lora_dropout=0"
        elif "incompatible with Mamba" in reason:
            reason = "PEFT cannot tune the Mamba layers of this model"
            advice = "name the layers of the attention alone, such as [q_proj, v_proj]"
        raise ConfigError(f"training.target_modules: {reason}; {advice}") from None
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        _unwrap(base)
        raise ConfigError(
            "training.target_modules: names the language-model head, which the trainer reads past; "
            "leave it out, or set all-linear, which does"
        )
    return tuned


def without_adapter(model: Any) -> Any:
    """The model that an adapter is on, or the model itself where it has none."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _routers(base: Any) -> list[str]:
    """Linear layers of an architecture that give more than their product, as routers of experts do.

    PEFT takes them for plain ones and adds to what is a tuple.
    """
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear)
        and type(module).forward is not torch.nn.Linear.forward
        and type(module).__module__.startswith("transformers.models.")
    ]


def _unwrap(base: Any) -> None:
    """Take off the layers that peft had put on before it met a module that it cannot wrap."""
    for module in list(base.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(module, name, child.get_base_layer())


def save_adapter(
    tuned: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter into the folder in place of what is there, the same bytes every time.

    Args:
        tuned: has the adapter.
        folder: where to.
        weights: of the adapter, by their names in ``tuned``; by default those that it has.
    """
    shutil.rmtree(folder, ignore_errors=True)
    # LoRA leaves the embeddings alone; peft would ask the hub about them.
    tuned.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text("utf-8"))
    # peft keeps the modules in a set, whose order changes from process to process.
    if isinstance(modules := settings["target_modules"], list):
        modules.sort()
    write_atomically(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")


@contextmanager
def restored_after(model: Any) -> Iterator[None]:
    """Put back what peft, TRL and transformers change on a model that they are given.

    TRL replaces the model's forward by one with a fused language-model head, the trainer writes
    its special tokens into the configs, gradient checkpointing hooks itself to the embeddings, and
    peft freezes the weights.
    """
    config = copy.deepcopy(model.config)
    generation_config = copy.deepcopy(model.generation_config)
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    training = model.training
    hooks = model.get_input_embeddings()._forward_hooks
    hooked = set(hooks)
    own = {key: model.__dict__[key] for key in ("forward", "model_tags") if key in model.__dict__}
    try:
        yield
    finally:
        for key in ("forward", "model_tags", "peft_config"):
            model.__dict__.pop(key, None)
        model.__dict__.update(own)
        # The model's parts share the config object, so it is filled again rather than replaced.
        model.config.__dict__.clear()
        model.config.__dict__.update(config.__dict__)
        model.generation_config = generation_config
        for name, parameter in model.named_parameters():
            # A stop in the middle of unloading leaves layers of peft behind, and ends the program;
            # an adapter whose weights are spread over processes leaves with its model.
            parameter.requires_grad_(frozen.get(name, False))
            parameter.grad = None
        for key in set(hooks) - hooked:
            del hooks[key]
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.gradient_checkpointing = False
        model.train(training)
