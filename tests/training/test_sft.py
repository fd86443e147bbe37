from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from selfinstruct_train.config import TrainingConfig
from selfinstruct_train.distributed import ALONE, World
from selfinstruct_train.errors import ConfigError, DataError, RunError, TrainingError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import job, sft, stopping
from selfinstruct_train.training.adapter import attach_adapter, restored_after
from selfinstruct_train.training.arguments import seeds_only_lengths
from selfinstruct_train.training.dataset import encode_rows
from selfinstruct_train.training.launcher import share_out


def tune(
    small: ModuleType, path: Path, base_model: Any = None, **options: Any
) -> sft.TrainingResult:
    config = options.pop("config", None) or small.settings()
    return sft.train(
        base_model or small.loaded_model(),
        options.pop("rows", None) or small.rows(),
        config,
        RoundDirectory(path),
        answers=load_answers("en"),
        seed=options.pop("seed", 1),
        world=ALONE,
        **options,
    )


def adapter_bytes(path: Path) -> tuple[str, str]:
    names = ("adapter_model.safetensors", "adapter_config.json")
    first, second = (hashlib.sha256((path / "adapter" / n).read_bytes()).hexdigest() for n in names)
    return first, second


def figures(path: Path) -> list[tuple[Any, ...]]:
    steps = RoundDirectory(path).store(path / "training.jsonl", TrainingStep).read()
    return [tuple(s.model_dump(exclude={"seconds"}).values()) for s in steps]


@pytest.fixture(scope="module")
def undisturbed(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("undisturbed") / "round-0"
    tune(small, path)
    return path


def test_a_training_leaves_an_adapter_and_its_figures_and_no_checkpoints(undisturbed: Path) -> None:
    files = {p.relative_to(undisturbed).as_posix() for p in undisturbed.rglob("*") if p.is_file()}
    assert files == {
        "training.jsonl",
        "dataset/train.jsonl",
        "dataset/counts.json",
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/training.json",
    }
    assert [row[0] for row in figures(undisturbed)] == [1, 2, 3, 4, 5, 6]


def test_the_same_data_settings_and_seed_give_the_same_adapter(
    small: ModuleType, tmp_path: Path, undisturbed: Path
) -> None:
    tune(small, tmp_path / "same")
    tune(small, tmp_path / "other", seed=2)
    assert adapter_bytes(tmp_path / "same") == adapter_bytes(undisturbed)
    assert adapter_bytes(tmp_path / "other") != adapter_bytes(undisturbed)


def test_the_loss_falls_and_the_tuned_model_learns_to_stop(
    small: ModuleType, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    result = tune(
        small,
        tmp_path,
        config=small.settings(
            max_steps=60, save_steps=100, logging_steps=20, lora_dropout=0.0, lora_r=16
        ),
        rows=small.rows(4),
        on_step=lambda step, total: seen.append((step.step, total)),
    )
    losses = [row[2] for row in figures(tmp_path)]
    assert seen == [(20, 60), (40, 60), (60, 60)]
    assert losses[-1] < 0.5 * losses[0]
    assert result.final_loss == losses[-1]
    assert result.check.stopped == result.check.prompts == 4


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_base_is_handed_back_as_it_was(
    small: ModuleType, tmp_path: Path, architecture: str, checkpointing: bool
) -> None:
    base_model = small.loaded_model(architecture)
    model, tokens = base_model.model, torch.arange(2, 40)[None]
    names = [name for name, _ in model.named_modules()]
    attributes, config = set(vars(model)), model.config.to_dict()
    logits = model(tokens).logits

    tune(
        small,
        tmp_path,
        base_model,
        config=small.settings(max_steps=2, gradient_checkpointing=checkpointing),
    )

    assert torch.equal(model(tokens).logits, logits)
    assert [name for name, _ in model.named_modules()] == names
    assert set(vars(model)) - attributes <= {"_require_grads_hooks", "_require_grads_hook"}
    assert model.config.to_dict() == config
    assert not model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


def test_the_base_is_handed_back_when_training_fails(small: ModuleType, tmp_path: Path) -> None:
    base_model = small.loaded_model()
    tokens = torch.arange(2, 40)[None]
    logits = base_model.model(tokens).logits

    def fail(step: TrainingStep, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(small, tmp_path, base_model, on_step=fail)
    assert torch.equal(base_model.model(tokens).logits, logits)


def test_a_stop_while_the_adapter_is_taken_off_is_not_covered_by_an_error(
    small: ModuleType,
) -> None:
    model = small.loaded_model().model
    with pytest.raises(Stopped), restored_after(model):
        attach_adapter(model, small.settings(), 1, None)
        raise Stopped


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_a_stopped_training_ends_as_an_undisturbed_one(
    small: ModuleType, tmp_path: Path, undisturbed: Path, stop_at: int
) -> None:
    def stop(step: TrainingStep, total: int) -> None:
        if step.step == stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        tune(small, tmp_path, on_step=stop)
    tune(small, tmp_path)
    assert adapter_bytes(tmp_path) == adapter_bytes(undisturbed)
    assert figures(tmp_path) == figures(undisturbed)


def test_figures_are_means_over_the_same_steps_after_a_stop(
    small: ModuleType, tmp_path: Path
) -> None:
    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 6:
            raise Stopped

    config = small.settings(max_steps=9, logging_steps=3, save_steps=5)
    tune(small, tmp_path / "whole", config=config)
    with pytest.raises(Stopped):
        tune(small, tmp_path / "stopped", config=config, on_step=stop)
    tune(small, tmp_path / "stopped", config=config)
    assert [row[0] for row in figures(tmp_path / "whole")] == [3, 5, 6, 9]
    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")
    assert adapter_bytes(tmp_path / "stopped") == adapter_bytes(tmp_path / "whole")


_KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import small_models as small
from selfinstruct_train.distributed import ALONE
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import sft

def kill(step, total):
    if step.step == 5:
        os.kill(os.getpid(), 9)

directory = RoundDirectory(Path(sys.argv[1]))
sft.train(small.loaded_model(), small.rows(), small.settings(), directory,
          answers=load_answers("en"), seed=1, world=ALONE, on_step=kill)
"""


def test_a_killed_training_resumes_and_ends_as_an_undisturbed_one(
    small: ModuleType, tmp_path: Path, undisturbed: Path
) -> None:
    script = _KILLED.format(folder=str(Path(__file__).parents[1] / "helpers"))
    command = [sys.executable, "-c", script, str(tmp_path)]
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    checkpoints = sorted(p.name for p in (tmp_path / "checkpoints").glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-2", "checkpoint-4"]
    tune(small, tmp_path)
    assert adapter_bytes(tmp_path) == adapter_bytes(undisturbed)
    assert figures(tmp_path) == figures(undisturbed)


_STOPPED = """
import os, signal, sys
from pathlib import Path
from selfinstruct_train.cli.program import guard
sys.path.insert(0, {folder!r})

def stop(step, total):
    if step.step == {at}:
        os.kill(os.getpid(), signal.{name})

def program():
    import small_models as small
    from selfinstruct_train.distributed import ALONE
    from selfinstruct_train.packs.pack import load_answers
    from selfinstruct_train.run.directory import RoundDirectory
    from selfinstruct_train.training import sft
    sft.train(small.loaded_model(), small.rows(), small.settings(save_steps=100),
              RoundDirectory(Path(sys.argv[1])), answers=load_answers("en"), seed=1, world=ALONE,
              on_step=stop)

guard(program)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_training_that_a_scheduler_stops_saves_its_steps_and_ends_as_an_undisturbed_one(
    name: str, code: int, small: ModuleType, tmp_path: Path, undisturbed: Path
) -> None:
    folder = str(Path(__file__).parents[1] / "helpers")
    script = _STOPPED.format(folder=folder, at=2, name=name)
    stopped = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert stopped.returncode == code, stopped.stderr[-2000:]
    assert "training stopped after 3 of 6 steps: they are saved" in stopped.stderr
    assert f"stopped by {name}; run the same command to go on" in stopped.stderr
    assert [p.name for p in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-3"]
    seen: list[int] = []
    tune(
        small,
        tmp_path,
        config=small.settings(save_steps=100),
        on_step=lambda step, total: seen.append(step.step),
    )
    assert seen == [4, 5, 6]
    assert adapter_bytes(tmp_path) == adapter_bytes(undisturbed)
    assert figures(tmp_path) == figures(undisturbed)


def test_a_stop_waits_for_a_step_that_can_be_saved_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with stopping.deferred_stop() as request:
            callback = stopping.SaveAndStop(request, ALONE)
            assert outcome(callback, 10) == (False, False)
            os.kill(os.getpid(), signal.SIGTERM)
            assert outcome(callback, 11) == (False, False)
            assert outcome(callback, 20) == (True, True)
            assert outcome(callback, 100) == (False, False), "the last step ends by itself"
            monkeypatch.setattr(stopping, "_PATIENCE_SECONDS", 0.0)
            assert outcome(callback, 21) == (False, True)
            assert told == []
        assert told == [signal.SIGTERM], "the signal is not forgotten"
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_who_is_stopped_with_another_process_leaves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the steps so far for a whole training."""
    monkeypatch.setattr(stopping.SaveAndStop, "_agreed", lambda self, device: 1)
    told: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with stopping.deferred_stop() as request:
            assert outcome(stopping.SaveAndStop(request, ALONE), 20) == (True, True)
            assert told == []
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, handler)


def outcome(callback: stopping.SaveAndStop, step: int) -> tuple[bool, bool]:
    """Whether a step is saved, and whether the training ends with it."""
    arguments = SimpleNamespace(logging_steps=10, save_steps=1000, device="cpu")
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    callback.on_step_end(arguments, SimpleNamespace(global_step=step, max_steps=100), control)
    return control.should_save, control.should_training_stop


def test_torn_files_are_passed_over(small: ModuleType, tmp_path: Path, undisturbed: Path) -> None:
    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 5:
            raise Stopped

    with pytest.raises(Stopped):
        tune(small, tmp_path, on_step=stop)
    # As a kill between two files of a checkpoint leaves it.
    torn = tmp_path / "checkpoints" / "checkpoint-4"
    (torn / "complete").unlink()
    (torn / "optimizer.pt").write_bytes(b"half")
    with (tmp_path / "training.jsonl").open("a") as file:
        file.write('{"step": 6, "epo')
    tune(small, tmp_path)
    assert adapter_bytes(tmp_path) == adapter_bytes(undisturbed)
    assert figures(tmp_path) == figures(undisturbed)


def test_a_finished_training_is_not_repeated(small: ModuleType, tmp_path: Path) -> None:
    first = tune(small, tmp_path)
    before = adapter_bytes(tmp_path), figures(tmp_path)

    def never(step: TrainingStep, total: int) -> None:
        raise AssertionError("trained again")

    assert tune(small, tmp_path, on_step=never) == first
    assert (adapter_bytes(tmp_path), figures(tmp_path)) == before


def test_a_process_that_is_late_finds_the_training_finished(
    small: ModuleType, tmp_path: Path
) -> None:
    done = tune(small, tmp_path)
    file = RoundDirectory(tmp_path).encoded
    said = [done, done.fingerprint]

    class Late(World):
        """A process whose main process is through before this one does anything."""

        def stream(self, make: Any) -> Any:
            return iter(())

        def gather(self, make: Any) -> Any:
            file.unlink()
            return []

        def on_main(self, make: Any) -> Any:
            return said.pop()

    encode_rows(
        small.rows(), small.settings(), small.loaded_model().tokenizer, answers=load_answers("en"),
        max_length=512, seed=1, file=file, world=ALONE,
    )  # fmt: skip
    late = sft.train(
        small.loaded_model(), small.rows(), small.settings(), RoundDirectory(tmp_path),
        answers=load_answers("en"), seed=1, world=Late(rank=1, size=2),
    )  # fmt: skip
    assert late == done


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_of_an_adapter_is_a_sentence(
    text: str, small: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/training.json").write_text(text)
    with pytest.raises(DataError, match=r"adapter/training\.json: .*move the folder away"):
        tune(small, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_is_short_in_training_is_answered_with_what_helps(error: Exception) -> None:
    def train(**_: Any) -> None:
        raise error

    arguments = SimpleNamespace(device=torch.device("cpu"), process_index=0, world_size=1)
    trainer: Any = SimpleNamespace(train=train, args=arguments, add_callback=lambda callback: None)
    with pytest.raises(TrainingError, match="too little memory .*micro_batch_size=16; halve it"):
        job.run_trainer(trainer, None, TrainingConfig())
    error = RuntimeError("another")
    with pytest.raises(RuntimeError, match="another"):
        job.run_trainer(trainer, None, TrainingConfig())


def test_an_adapter_in_force_does_not_enter_the_training(
    small: ModuleType, tmp_path: Path, undisturbed: Path
) -> None:
    base_model = small.loaded_model()
    base_model.adapters.activate(undisturbed / "adapter")
    tune(small, tmp_path, base_model)
    assert adapter_bytes(tmp_path) == adapter_bytes(undisturbed)


def test_the_work_of_another_training_is_refused(small: ModuleType, tmp_path: Path) -> None:
    def stop(step: TrainingStep, total: int) -> None:
        if step.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        tune(small, tmp_path, on_step=stop)
    with pytest.raises(RunError, match="other data or with other settings"):
        tune(small, tmp_path, rows=small.rows(12))
    tune(small, tmp_path)
    with pytest.raises(RunError, match="other data or with other settings"):
        tune(small, tmp_path, rows=small.rows(12))


def test_an_adapter_can_be_gone_on_from(small: ModuleType, tmp_path: Path) -> None:
    config = small.settings(max_steps=20, save_steps=50, lora_dropout=0.0)
    tune(small, tmp_path / "first", config=config)
    start = tmp_path / "first" / "adapter"
    tune(small, tmp_path / "second", config=config, start=start, seed=2)
    assert figures(tmp_path / "second")[0][2] < 0.7 * figures(tmp_path / "first")[0][2]
    with pytest.raises(RunError, match="no adapter there"):
        tune(small, tmp_path / "third", start=tmp_path / "nowhere")


def test_the_number_of_steps_can_be_set_from_outside(small: ModuleType, tmp_path: Path) -> None:
    assert tune(small, tmp_path / "a", max_steps_override=3).steps == 3
    by_epochs = small.settings(max_steps=None, epochs=1.5, logging_steps=100)
    assert tune(small, tmp_path / "b", config=by_epochs).steps == 6


def test_a_step_holds_the_same_rows_however_it_is_split(small: ModuleType, tmp_path: Path) -> None:
    plain = small.settings(lora_dropout=0.0)
    tune(small, tmp_path / "a", config=plain)
    tune(small, tmp_path / "b", config=small.settings(lora_dropout=0.0, micro_batch_size=1))
    for a, b in zip(figures(tmp_path / "a"), figures(tmp_path / "b"), strict=True):
        assert b[2] == pytest.approx(a[2], rel=2e-2)
        assert b[5] == a[5]


def test_the_share_of_a_process_fits_or_is_refused(small: ModuleType) -> None:
    config = small.settings(batch_size=16, micro_batch_size=6)
    assert share_out(config, ALONE) == (4, 4)
    assert share_out(config, World(0, 2)) == (4, 2)
    with pytest.raises(ConfigError, match="training.batch_size is 16.* multiple of 3"):
        share_out(config, World(0, 3))


def test_seeds_alone_are_trained_on_for_fewer_passes_too_and_never_for_longer_than_tuned() -> None:
    # 175 seeds, 16 in a step: 11 steps a pass.
    assert seeds_only_lengths((3.0, 10.0), 175, 16, 200) == (200, 110, 33)
    assert seeds_only_lengths((3.0, 10.0), 175, 16, 110) == (110, 33)
    assert seeds_only_lengths((3.0, 10.0), 175, 16, 6) == (6,)
    assert seeds_only_lengths((), 175, 16, 200) == (200,)
    assert seeds_only_lengths((1.0, 0.999), 175, 16, 200) == (200, 11)


def test_packing_trains_on_the_same_rows_in_the_same_steps(
    small: ModuleType, tmp_path: Path
) -> None:
    settings = {"batch_size": 16, "micro_batch_size": 8, "max_steps": None, "epochs": 1.0}
    alone, packed = (
        tune(
            small,
            tmp_path / f"packing-{packing}",
            rows=small.rows(64),
            config=small.settings(**settings, packing=packing, lora_dropout=0.0),
        )
        for packing in (False, True)
    )
    assert packed.gate.rows == 64
    # 64 rows, 16 in a step.
    assert packed.steps == alone.steps == 4
    for a, b in zip(
        figures(tmp_path / "packing-False"), figures(tmp_path / "packing-True"), strict=True
    ):
        assert b[2] == pytest.approx(a[2], rel=2e-2)


def test_the_adapter_stays_float32_on_a_bfloat16_base(small: ModuleType, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    result = tune(small, tmp_path, small.loaded_model(dtype=torch.bfloat16))
    weights = load_file(result.tuned / "adapter_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}


def test_a_diverged_training_says_so(small: ModuleType, tmp_path: Path) -> None:
    base_model = small.loaded_model()
    with torch.no_grad():
        base_model.model.lm_head.weight[5] = float("nan")
    with pytest.raises(TrainingError, match="lower training.learning_rate"):
        tune(small, tmp_path, base_model)


def test_unknown_target_modules_are_named(small: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training.target_modules.*no_such_layer"):
        tune(small, tmp_path, config=small.settings(target_modules=["no_such_layer"]))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("llama", "SmolLM2-135M-base"),
        ("qwen2", "Qwen2.5-Instruct"),
        ("gpt_neox", "pythia-gpt-neox"),
    ],
)
def test_real_tokenizers_pass_the_gate(
    small: ModuleType, tmp_path: Path, architecture: str, name: str
) -> None:
    tokenizer = small.real_tokenizer(name)
    if tokenizer is None:
        pytest.skip(f"no {small.material()}/tokenizers/{name}; set SELFINSTRUCT_MATERIAL")
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = "<|padding|>" if "neox" in architecture else "<|im_start|>"
    base_model = small.loaded_model(architecture, tokenizer)
    result = tune(small, tmp_path, base_model, config=small.settings(max_steps=2, lora_r=2))
    assert result.gate.eos_token == tokenizer.eos_token
    assert result.gate.pad_token != result.gate.eos_token
    assert (result.gate.joined_differently, result.gate.unspaced, result.gate.warnings) == (
        0,
        0,
        (),
    )
    assert result.check.largest_difference <= 1e-3 * result.check.largest_logit
