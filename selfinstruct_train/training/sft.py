"""Step 5: tune the loaded base with a LoRA adapter, and hand the base back as it was."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import torch
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.engines.adapters import release_adapters
from selfinstruct_train.errors import ConfigError, RunError, TrainingError
from selfinstruct_train.records import Row, TrainingRow
from selfinstruct_train.run import RoundDirectory, write_atomically
from selfinstruct_train.training import checks
from selfinstruct_train.training.dataset import (
    Example,
    encode_rows,
    to_dataset,
    write_dataset,
)
from selfinstruct_train.training.progress import OnStep, Recorder, adopt_checkpoint

if TYPE_CHECKING:
    from selfinstruct_train.engines.models import LoadedModel

_RESULT = "training.json"
_CHECKPOINTS_KEPT = 2
# Settings that change neither the data nor a weight.
_FREE_SETTINGS = {"report_to", "save_steps", "logging_steps"}


class TrainingResult(Row):
    """What a training did; adapter/training.json holds it."""

    fingerprint: str
    """Of data, settings, seed and model: the same training has the same one."""
    steps: int
    seconds: float
    """Time in training steps, pauses between a kill and its resumption not counted."""
    final_loss: float
    """Mean over the last logged steps."""
    rows: int
    too_long: int
    """Rows left out because they did not fit."""
    precision: str
    """``bf16`` or ``fp16`` where the arithmetic is mixed, else ``fp32``."""
    adapter: Path
    gate: checks.GateReport
    check: checks.AdapterCheck


class Batching(NamedTuple):
    """How the rows of one optimizer step are shared out."""

    micro_batch: int
    """Rows that each process puts through the model at once."""
    accumulation: int
    """Micro-batches of each process in one optimizer step."""


def train(
    loaded: LoadedModel,
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    directory: RoundDirectory,
    *,
    seed: int,
    world: World,
    start_adapter: Path | None = None,
    on_step: OnStep | None = None,
    max_steps_override: int | None = None,
) -> TrainingResult:
    """Tune a LoRA adapter on the loaded base, or finish a tuning that was stopped.

    The same data, settings and seed give the same adapter on the same machine, stopped in between
    or not. On return, and on any error, the base is as it was: no adapter, the same weights,
    forward and settings.

    Args:
        loaded: the base, which is lent, and its tokenizer.
        rows: what to learn.
        config: how.
        directory: where data, adapter, checkpoints and figures go.
        seed: of the adapter's first weights, the order of the rows, dropout, and ``varied``
            templates.
        world: this process among its peers; each takes a share of every step's rows.
        start_adapter: go on from this adapter instead of a fresh one.
        on_step: called on the main process with each logged step.
        max_steps_override: train for so many steps, whatever the config says.

    Raises:
        ConfigError: settings that cannot go together.
        DataError: no row fits.
        TrainingError: the gate or the check of the saved adapter failed, or the loss is not a
            number.
        RunError: the directory holds another training, or cannot be written.
    """
    examples = encode_rows(
        rows,
        config,
        loaded.tokenizer,
        max_length=min(config.max_length, loaded.context_length),
        seed=seed,
    )
    fingerprint = _fingerprint(
        examples.kept, config, loaded.model_id, seed, start_adapter, max_steps_override
    )
    done = world.on_main(lambda: _finished(directory, fingerprint))
    if done:
        return done
    checkpoint = world.on_main(lambda: adopt_checkpoint(directory, fingerprint))
    write_dataset(rows, directory)
    release_adapters(loaded)
    with _quietly():
        arguments = _arguments(loaded, config, directory, seed, world, max_steps_override)
    recorder = Recorder(directory, world, on_step, resumed=checkpoint)
    with _lent(loaded.model), _quietly():
        tuned = _put_adapter_on(loaded.model, config, seed, start_adapter)
        try:
            trainer = SFTTrainer(
                model=tuned,
                args=arguments,
                train_dataset=to_dataset(examples.kept),
                processing_class=loaded.tokenizer,
                callbacks=[recorder],
            )
            trainer.remove_callback(PrinterCallback)
            gate = checks.check_batches(
                trainer.train_dataset,
                trainer.data_collator,
                examples.kept,
                loaded.tokenizer,
                too_long=len(examples.too_long),
                chat=config.template == "chat",
                batch_size=arguments.per_device_train_batch_size,
            )
            if config.packing:
                checks.check_packing(tuned, trainer.train_dataset, trainer.data_collator)
            _run(trainer, checkpoint, config)
            # Off comes the mixed precision that training wrapped around the forward.
            trainer.accelerator.unwrap_model(tuned, keep_fp32_wrapper=False)
            in_memory = checks.row_logits(tuned, examples.kept)
            scratch = directory.adapter.with_name(directory.adapter.name + ".partial")
            world.on_main(lambda: _save_adapter(tuned, scratch))
        finally:
            tuned.unload()

    def finish() -> TrainingResult:
        check = checks.check_adapter(
            loaded.model, scratch, in_memory, examples.kept, loaded.tokenizer, loaded.context_length
        )
        last = recorder.rows[-1]
        result = TrainingResult(
            fingerprint=fingerprint,
            steps=last.step,
            seconds=last.seconds,
            final_loss=last.loss,
            rows=len(examples.kept),
            too_long=len(examples.too_long),
            precision="bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
            adapter=directory.adapter,
            gate=gate,
            check=check,
        )
        write_atomically(scratch / _RESULT, result.model_dump_json(indent=1) + "\n")
        scratch.rename(directory.adapter)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
        return result

    with _lent(loaded.model), _quietly():
        return world.on_main(finish)


def share_out(config: TrainingConfig, world: World) -> Batching:
    """Split one optimizer step of ``batch_size`` rows over processes and micro-batches.

    Raises:
        ConfigError: the processes cannot take equal shares.
    """
    share, rest = divmod(config.batch_size, world.size)
    if rest:
        raise ConfigError(
            f"training.batch_size is {config.batch_size}, which {world.size} processes cannot "
            f"share evenly; set it to a multiple of {world.size}"
        )
    micro = next(n for n in range(min(share, config.micro_batch_size), 0, -1) if share % n == 0)
    return Batching(micro, share // micro)


def _arguments(
    loaded: LoadedModel,
    config: TrainingConfig,
    directory: RoundDirectory,
    seed: int,
    world: World,
    max_steps_override: int | None,
) -> SFTConfig:
    batching = share_out(config, world)
    device = torch.device(loaded.device)
    bf16 = _has_fast_bf16(device)
    # By default tensorboard writes beside the checkpoints, which do not last.
    if "tensorboard" in config.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(directory.path / "tensorboard"))
    # The switch is read when huggingface_hub is imported, which may be long ago.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        arguments = SFTConfig(
            output_dir=str(directory.checkpoints),
            use_cpu=device.type == "cpu",
            bf16=bf16,
            fp16=not bf16 and device.type == "cuda" and loaded.dtype == torch.float16,
            per_device_train_batch_size=batching.micro_batch,
            gradient_accumulation_steps=batching.accumulation,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.scheduler,
            # From 1 on transformers takes it for a number of steps.
            warmup_steps=min(config.warmup_fraction, 0.999),
            weight_decay=config.weight_decay,
            num_train_epochs=config.epochs,
            max_steps=max_steps_override or config.max_steps or -1,
            optim="adamw_torch",
            max_length=min(config.max_length, loaded.context_length),
            completion_only_loss=True,
            packing=config.packing,
            packing_strategy="bfd",
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs=(
                {"use_reentrant": False} if config.gradient_checkpointing else None
            ),
            logging_strategy="steps",
            logging_steps=config.logging_steps,
            # Otherwise a diverged training goes on and reports its last good loss.
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=_CHECKPOINTS_KEPT,
            report_to=list(config.report_to) or "none",
            disable_tqdm=True,
            seed=seed,
            data_seed=seed,
            dataloader_pin_memory=device.type == "cuda",
            ddp_find_unused_parameters=False,
        )
    except ValueError as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from None
    if world.size == 1 and arguments.n_gpu > 1:
        # One process takes one GPU; more of them are a matter for `accelerate launch`.
        arguments._n_gpu = 1
    return arguments


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On a CPU without the instructions bf16 is emulated, several times slower than float32.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_has_bf16_instructions()


def _cpu_has_bf16_instructions() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _put_adapter_on(
    base: Any, config: TrainingConfig, seed: int, start_adapter: Path | None
) -> PeftModel:
    if start_adapter is not None:
        if not (start_adapter / "adapter_config.json").exists():
            raise RunError(
                f"{start_adapter}: no adapter there to go on from; finish the round before, or set "
                "training.start=base"
            )
        return PeftModel.from_pretrained(base, str(start_adapter), is_trainable=True)
    # peft draws the first weights from the global generator.
    set_seed(seed)
    modules = config.target_modules
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, lora)
    except ValueError as error:
        raise ConfigError(f"training.target_modules: {' '.join(str(error).split())}") from None


def _run(trainer: SFTTrainer, checkpoint: Path | None, config: TrainingConfig) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError:
        raise TrainingError(
            "the GPU has too little memory for "
            f"training.micro_batch_size={config.micro_batch_size}; halve it (the result stays the "
            "same), or set training.gradient_checkpointing=true"
        ) from None


def _save_adapter(tuned: PeftModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # LoRA leaves the embeddings alone; peft would ask the hub about them.
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text("utf-8"))
    if isinstance(settings["target_modules"], list):
        settings[
            "target_modules"
        ].sort()  # peft keeps a set: its order changes from process to process
    write_atomically(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _finished(directory: RoundDirectory, fingerprint: str) -> TrainingResult | None:
    file = directory.adapter / _RESULT
    if not file.exists():
        if directory.adapter.exists():
            raise RunError(
                f"{directory.adapter}: not the end of a training of this package (no {_RESULT}); "
                "move the folder away and run the same command again"
            )
        return None
    result = TrainingResult.model_validate_json(file.read_text("utf-8"))
    if result.fingerprint != fingerprint:
        raise RunError(
            f"{directory.adapter}: this adapter was trained on other data or with other settings; "
            "use a new output_dir, or delete the folder to train anew"
        )
    shutil.rmtree(directory.checkpoints, ignore_errors=True)
    return result.model_copy(update={"adapter": directory.adapter})


def _fingerprint(
    examples: Sequence[Example],
    config: TrainingConfig,
    model_id: str,
    seed: int,
    start_adapter: Path | None,
    max_steps_override: int | None,
) -> str:
    digest = hashlib.sha256()
    settings = config.model_dump(mode="json", exclude=_FREE_SETTINGS)
    head = [settings, model_id, seed, max_steps_override]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for example in examples:
        digest.update(repr((example.id, example.tokens, example.answer_start)).encode())
    if start_adapter is not None:
        for file in sorted(start_adapter.glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _lent(model: Any) -> Iterator[None]:
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
        # The model's parts share the config object, so it is filled anew rather than replaced.
        model.config.__dict__.clear()
        model.config.__dict__.update(config.__dict__)
        model.generation_config = generation_config
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(frozen[name])
            parameter.grad = None
        for key in set(hooks) - hooked:
            del hooks[key]
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.gradient_checkpointing = False
        model.train(training)


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars of datasets, and no advice of transformers to those who wrote TRL."""
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            datasets.enable_progress_bars()
