"""The adapter on the loaded model: put on, saved, and every trace of it taken off again."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import set_seed

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.models.adapters import without_advice
from selfinstruct_train.run.stores import write_atomically

_RANK = {"lora_A": 0, "lora_B": 1}
"""Which dimension of an adapter's matrices counts its ranks."""


def attach_adapter(base: Any, config: TrainingConfig, seed: int, start: Path | None) -> PeftModel:
    """Wrap the base in a fresh adapter, alone or beside the one in ``start``, or go on from that.

    Of an adapter that has more ranks than ``lora_r`` the last ones alone are trained: the others
    are of earlier rounds, and stay as they are.

    Raises:
        ConfigError: ``target_modules`` names no module of the model.
        RunError: there is no adapter to go on from, or one of other ranks.
    """
    if start is None:
        return _fresh(base, config, seed)
    if not (start / "adapter_config.json").exists():
        raise RunError(
            f"{start}: no adapter there to go on from; finish the round before, or set "
            "training.start=base"
        )
    if config.start == "merged":
        return _fresh_beside(base, config, seed, start)
    with without_advice():
        tuned = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    _hold(tuned, LoraConfig.from_pretrained(str(start)).r - config.lora_r)
    return tuned


def _fresh_beside(base: Any, config: TrainingConfig, seed: int, start: Path) -> PeftModel:
    """A fresh adapter as further ranks of one that stays: the base with that merged, and a new one.

    W + s B A + s B' A' is W + s [B B'] [A; A']. So what is trained and saved is an adapter of the
    base itself, nothing is rounded by a merge, and weights in 4 bits will do too.
    """
    before = LoraConfig.from_pretrained(str(start))
    if (
        before.r % config.lora_r
        or before.lora_alpha * config.lora_r != config.lora_alpha * before.r
    ):
        raise RunError(
            f"{start}: was trained with another training.lora_r or lora_alpha; set these as they "
            "were, or set training.start=base"
        )
    ranks = {
        "lora_r": before.r + config.lora_r,
        "lora_alpha": before.lora_alpha + config.lora_alpha,
    }
    tuned = _fresh(base, config.model_copy(update=ranks), seed)
    weights = load_file(start / "adapter_model.safetensors")
    matrices = list(_matrices(tuned))
    # Files leave out the name that peft gives to a model's one adapter.
    if weights.keys() != {name.replace(".default.", ".") for name, _, _ in matrices}:
        tuned.unload()
        raise RunError(
            f"{start}: was trained with other training.target_modules; set these as they were, or "
            "set training.start=base"
        )
    with torch.no_grad():
        for name, parameter, dimension in matrices:
            kept = weights[name.replace(".default.", ".")]
            parameter.narrow(dimension, 0, before.r).copy_(kept)
    _hold(tuned, before.r)
    return tuned


def _hold(tuned: PeftModel, ranks: int) -> None:
    """Keep the first ranks of an adapter as they are: no gradient reaches them."""
    if ranks > 0:
        for _, parameter, dimension in _matrices(tuned):
            hook = partial(_without_first, ranks=ranks, dimension=dimension)
            parameter.register_hook(hook)  # type: ignore[no-untyped-call]


def _without_first(gradient: torch.Tensor, ranks: int, dimension: int) -> torch.Tensor:
    held = gradient.clone()
    held.narrow(dimension, 0, ranks).zero_()
    return held


def _matrices(tuned: PeftModel) -> Iterator[tuple[str, torch.nn.Parameter, int]]:
    """The matrices of an adapter, each with the dimension that counts its ranks."""
    for name, parameter in tuned.named_parameters():
        for kind, dimension in _RANK.items():
            if f".{kind}." in name:
                yield name, parameter, dimension


def _fresh(base: Any, config: TrainingConfig, seed: int) -> PeftModel:
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
