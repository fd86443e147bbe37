"""How fast a training gets through useful tokens, and in how much memory, beside TRL's defaults.

    python benchmarks/training.py --rows runs/quickstart/round-0/instances.jsonl
    python benchmarks/training.py --model smollm2-135m-instruct --rows … --sides ours packed trl

Every side trains LoRA of the same rank on all linear layers, on the same rows, for as many steps of
eight rows, on one thread; TRL's take all eight at once, ours ``--micro-batch`` of them. They take
turns, each time in a process of its own:

- ``ours``: a training as a run does it, its precision and its checks before the first step;
- ``packed``: the same with ``training.packing``;
- ``trl``: SFTTrainer as its quick start has it, given prompts and completions: a model in float32,
  mixed precision, gradient checkpointing;
- ``trl-kept``: the same without gradient checkpointing, which a user would turn off.

Useful tokens are those of rows, padding left out. Both clocks run from the end of the first step to
that of the last, where a side ends; CPU time is what a busy machine stretches least. Peaks are of
the whole process, libraries included. ``ACCELERATE_DYNAMO_BACKEND=INDUCTOR`` compiles the model of
all sides (``torch.compile``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, get_args

from selfinstruct_train.environment import prepare_environment

prepare_environment()
import torch  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from selfinstruct_train.config import ModelConfig, TrainingConfig  # noqa: E402
from selfinstruct_train.distributed import ALONE  # noqa: E402
from selfinstruct_train.models.describe import describe_model  # noqa: E402
from selfinstruct_train.models.load import LoadedModel, load_model  # noqa: E402
from selfinstruct_train.models.precision import settle_precision  # noqa: E402
from selfinstruct_train.packs.pack import load_answers  # noqa: E402
from selfinstruct_train.records import GeneratedInstance, TrainingStep  # noqa: E402
from selfinstruct_train.run.directory import RoundDirectory  # noqa: E402
from selfinstruct_train.sources.seeds import read_seeds  # noqa: E402
from selfinstruct_train.templates import completion_text, encode  # noqa: E402
from selfinstruct_train.training.dataset import TrainingRows, training_rows  # noqa: E402
from selfinstruct_train.training.sft import train  # noqa: E402

Side = Literal["ours", "packed", "trl", "trl-kept"]
BATCH = 8
"""Rows of a step: the default of TRL."""
_RANK, _ALPHA = 16, 32
_SEED = 42
"""The default of TRL, so that the steps of all sides have the same rows."""


class Measured(NamedTuple):
    """One side, once, in the steps after its first."""

    tokens: int
    """Of rows."""
    computed: int
    """With padding."""
    cpu: float
    """Seconds."""
    wall: float
    """Seconds."""
    peak: int
    """Bytes of the process."""
    loaded: int
    """Bytes of the process once the model was loaded."""


class _Moment(NamedTuple):
    tokens: int
    computed: int
    cpu: float
    wall: float


class Meter:
    """Counts what goes into a model's embedding, and notes the time after each step.

    Args:
        loaded: the model and its tokenizer, whose padding is a token of its own.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._padding = loaded.tokenizer.pad_token_id
        self._tokens = self._computed = 0
        self._moments: list[_Moment] = []
        self._loaded = peak_of_this_process()
        loaded.model.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, _: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._tokens += int((given[0] != self._padding).sum())
        self._computed += given[0].numel()

    def stepped(self) -> None:
        """Call after each step."""
        spent = (time.process_time(), time.monotonic())
        self._moments.append(_Moment(self._tokens, self._computed, *spent))

    def measured(self) -> Measured:
        """What the steps after the first took."""
        first, last = self._moments[0], self._moments[-1]
        took = _Moment(*(b - a for a, b in zip(first, last, strict=True)))
        return Measured(*took, peak_of_this_process(), self._loaded)


class _Stepped(TrainerCallback):  # type: ignore[misc]
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._meter.stepped()


class _EndedError(Exception):
    """The last step is taken."""


def peak_of_this_process() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows_of(model: str, file: Path | None) -> TrainingRows:
    """The instances of a run, or without a file the seed tasks that go with a model."""
    if file is None:
        name = "microworld-seeds" if model == "embedded" else "everyday-seeds"
        return training_rows(read_seeds(name), tuple, include_seeds=True)
    lines = file.read_text("utf-8").splitlines()
    instances = [GeneratedInstance.model_validate_json(line) for line in lines]
    return training_rows((), lambda: instances, include_seeds=False)


def ours(model: str, rows: TrainingRows, steps: int, packing: bool, micro: int) -> Measured:
    """A training as a run does it, up to its last step."""
    config = ModelConfig(name_or_path=model, device="cpu", threads=1)
    precision = settle_precision(config, describe_model(config))
    if precision is not None:
        config = config.model_copy(update={"dtype": precision.name})
    loaded = load_model(config)
    meter = Meter(loaded)
    training = TrainingConfig(
        max_steps=steps,
        batch_size=BATCH,
        micro_batch_size=micro,
        lora_r=_RANK,
        lora_alpha=_ALPHA,
        packing=packing,
        logging_steps=1,
    )

    def stepped(row: TrainingStep, total: int) -> None:
        meter.stepped()
        if row.step == total:
            raise _EndedError

    with tempfile.TemporaryDirectory() as folder, suppress(_EndedError):
        train(
            loaded,
            rows,
            training,
            RoundDirectory(Path(folder) / "round-0"),
            answers=load_answers("en"),
            seed=_SEED,
            world=ALONE,
            on_step=stepped,
        )
    return meter.measured()


def trl(model: str, rows: TrainingRows, steps: int, checkpointing: bool) -> Measured:
    """SFTTrainer with its own defaults, which tokenizes the texts itself."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    answers = load_answers("en")
    loaded = load_model(ModelConfig(name_or_path=model, device="cpu", dtype="float32", threads=1))
    meter = Meter(loaded)
    texts = [
        {
            "prompt": encode("plain", row.instruction, row.input, answers),
            "completion": completion_text(row.output, answers, "plain"),
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=loaded.model,
            args=SFTConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=BATCH,
                gradient_checkpointing=checkpointing,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(texts),
            processing_class=loaded.tokenizer,
            peft_config=LoraConfig(
                r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[_Stepped(meter)],
        )
        trainer.train()
    return meter.measured()


def measure(side: Side, model: str, file: Path | None, steps: int, micro: int) -> Measured:
    """One side in this process."""
    rows = rows_of(model, file)
    match side:
        case "ours" | "packed":
            return ours(model, rows, steps, side == "packed", micro)
        case "trl" | "trl-kept":
            return trl(model, rows, steps, checkpointing=side == "trl")


def run_once(side: Side, arguments: argparse.Namespace) -> Measured:
    """One side in a process of its own, so that its peak is its own."""
    command = [sys.executable, __file__, "--one", side, "--model", arguments.model]
    command += ["--steps", str(arguments.steps), "--micro-batch", str(arguments.micro_batch)]
    command += ["--rows", str(arguments.rows)] if arguments.rows else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def lines(found: Mapping[Side, Sequence[Measured]]) -> Iterator[str]:
    """A row for each side, and the ratio of our first side to each of the others, turn by turn."""
    for side, runs in found.items():
        padding = 1 - sum(r.tokens for r in runs) / sum(r.computed for r in runs)
        peak, loaded = (max(getattr(r, name) for r in runs) for name in ("peak", "loaded"))
        yield (
            f"{side}: {spread([r.tokens / r.cpu for r in runs])} useful tokens a CPU second, "
            f"{spread([r.tokens / r.wall for r in runs])} a second, padding {padding:.0%}, "
            f"peak {peak / 2**20:,.0f} MiB, {(peak - loaded) / 2**20:,.0f} beyond the loaded model"
        )
    first, *others = found
    for other in others:
        pairs = list(zip(found[first], found[other], strict=True))
        ratios = [(a.tokens / a.cpu) / (b.tokens / b.cpu) for a, b in pairs]
        by_clock = [(a.tokens / a.wall) / (b.tokens / b.wall) for a, b in pairs]
        memory = [a.peak / b.peak for a, b in pairs]
        yield (
            f"{first} / {other}: {spread(ratios)} in CPU time, {spread(by_clock)} by the clock, "
            f"{spread(memory)} in peak memory"
        )


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rows", type=Path, help="instances.jsonl of a run; default: seed tasks")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=get_args(Side), default=get_args(Side))
    parser.add_argument("--micro-batch", type=int, default=BATCH, help="rows at once, ours")
    parser.add_argument("--one", choices=get_args(Side), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        given = (arguments.model, arguments.rows, arguments.steps, arguments.micro_batch)
        print(json.dumps(measure(arguments.one, *given)))
        return
    print(
        f"{arguments.model}, {arguments.steps} steps of {BATCH} rows, the first not timed, "
        f"{arguments.repeats} turns; torch {torch.__version__}, {platform.machine()}"
    )
    found: dict[Side, list[Measured]] = {side: [] for side in arguments.sides}
    for _ in range(arguments.repeats):
        for side in arguments.sides:
            found[side].append(run_once(side, arguments))
            print(f"{side}: {found[side][-1]}", file=sys.stderr)
    for line in lines(found):
        print(line)


if __name__ == "__main__":
    main()
