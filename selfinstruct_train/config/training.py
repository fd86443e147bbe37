"""Settings of the training."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Literal

from pydantic import Field, model_validator

from selfinstruct_train.bounds import Count, Float, Fraction
from selfinstruct_train.config.section import Section

DEFAULT_TRAINING = "default"
"""Name of the training that stands in the round's own folder."""

SweptSetting = Literal[
    "learning_rate",
    "epochs",
    "max_steps",
    "batch_size",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "warmup_fraction",
    "weight_decay",
]


class MixConfig(Section):
    """How many rows of each kind a training is given, in proportion; 0 leaves a kind out."""

    own: Float = Field(default=1.0, ge=0.0)
    """Rows of ``data``."""
    seeds: Float = Field(default=1.0, ge=0.0)
    """Rows of the seed tasks."""
    generated: Float = Field(default=1.0, ge=0.0)
    """Rows that the model wrote; where it is 0 it writes none."""
    replay: Float = Field(default=0.0, ge=0.0)
    """The base's own answers to ``training.replay_prompts``, which hold the model at what it could
    do before (arXiv 2602.20162). Where there are fewer, the other kinds are not cut for it."""

    @model_validator(mode="after")
    def _holds_something(self) -> MixConfig:
        if not any((self.own, self.seeds, self.generated)):
            raise ValueError("leaves out everything; set own, seeds or generated above 0")
        return self


class PreferenceConfig(Section):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290) through TRL's DPOTrainer.

    Of two answers the chosen one becomes likelier against the rejected one, compared with the model
    as it was when this training began.
    """

    pairs: tuple[Literal["drawn", "earlier_model", "judged"], ...] = ("drawn",)
    """Where pairs come from: the answers of ``generation.instances.best_of``, the one kept against
    the worst; each training answer against what the model before this training answers (SPIN, arXiv
    2401.01335); or drawn answers that the writer, asked as the judge in both orders, prefers twice
    (self-rewarding, arXiv 2401.10020)."""
    loss: Literal["sigmoid", "ipo", "apo_zero"] = "sigmoid"
    """The loss on a pair; ``sigmoid`` is the paper's."""
    beta: Float = Field(default=0.1, gt=0.0)
    """How strongly the model is held to what it was."""
    learning_rate: Float = Field(default=5e-6, gt=0.0)
    """Peak learning rate of this part of the training."""
    epochs: Float = Field(default=1.0, gt=0.0)
    """Passes over the pairs; ignored where max_steps is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, whatever the number of pairs."""
    balance_length: bool = True
    """Leave out the pairs that would make chosen answers longer or shorter on average than rejected
    ones: a model that learns from those grows longer, not better."""


class TrainingConfig(Section):
    """Step 5: LoRA or full fine-tuning through TRL: on answers alone (SFTTrainer), or on pairs."""

    name: str = Field(default=DEFAULT_TRAINING, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    """Name of this training of the data: another name, with other settings, trains beside it
    without writing new data, in ``round-N/trainings/<name>``."""
    sweep: dict[SweptSetting, tuple[Float, ...]] = {}
    """Values to try, such as ``{learning_rate: [1e-4, 2e-4]}``: a training for each, and for each
    combination of several settings, named after its values, all compared in one table."""
    template: Literal["plain", "varied", "chat"] = "plain"
    """How instruction and input become a prompt: one template, the paper's variety, or the model's
    chat template."""
    method: Literal["sft", "dpo", "sft+dpo"] = "sft"
    """Learn the answers; or learn from pairs of answers which one to prefer; or first the one, and
    then the other on the same adapter."""
    preference: PreferenceConfig = PreferenceConfig()
    """The training on pairs."""
    adapter: Literal["lora", "qlora", "none"] = "lora"
    """``lora`` trains small matrices beside weights that stay as they are; ``qlora`` does so beside
    weights in 4 bits (arXiv 2305.14314; extra ``qlora``); ``none`` trains all weights, in float32,
    and leaves a whole model: it wants a tenth of the learning rate."""
    load: Literal["shared", "own"] = "shared"
    """Train on the model that writes and answers, or on a fresh copy that is dropped afterwards.
    ``qlora`` and ``none`` always have a copy of their own."""
    include_seeds: bool = True
    """Train on the seed tasks too."""
    mix: MixConfig | None = None
    """Ratio of own rows, seeds and generated rows, such as ``{own: 1, seeds: 1, generated: 3}``: as
    many rows as there are in it, none twice; by default all rows."""
    replay_prompts: str | None = None
    """Whose instructions the base answers for ``training.mix.replay``: a file, a data set of the
    Hub or a name, as for ``seeds.path``; answers in it are not used. By default the pack's everyday
    tasks."""
    rows_of: Literal["all_rounds", "this_round"] = "all_rounds"
    """Train on what all rounds so far wrote, or on what this round wrote alone. Data that replace
    those before them make models collapse, data that join them do not (arXiv 2404.01413)."""
    short_answers: Fraction = 1.0
    """Largest share of the rows that may have an answer of one word, those of the seeds included.
    Where such answers are many, a small model learns to end before it has said anything."""
    min_rows: int = Field(default=100, ge=1)
    """Fewer rows of the model's own than this are trained on with a warning; none end the run."""
    start: Literal["base", "previous", "merged"] = "base"
    """Each round trains a fresh adapter on the base, or continues the previous round's, or trains a
    fresh one on the base with those of all rounds before merged into it. What ``merged`` leaves is
    one adapter of the base itself, with ``lora_r`` ranks more each round."""
    lora_r: Count = 16
    """Rank of the adapter."""
    lora_alpha: Count = 32
    """Scale of the adapter, divided by its rank."""
    lora_dropout: Fraction = 0.0
    """Dropout inside the adapter."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter."""
    learning_rate: Float = Field(default=2e-4, gt=0.0)
    """Peak learning rate."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_fraction: Fraction = 0.03
    """Share of the steps over which the learning rate rises."""
    weight_decay: Float = Field(default=0.0, ge=0.0)
    """AdamW weight decay."""
    epochs: Float = Field(default=2.0, gt=0.0)
    """Passes over the data; ignored where max_steps is set (paper: 2)."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, whatever the amount of data."""
    batch_size: Count = 16
    """Rows of one optimizer step over all processes."""
    micro_batch_size: Count = 16
    """Rows that one process puts through the model at once. Those of a step that go together are
    alike in length, so smaller ones have less padding; the step is the same."""
    max_length: Count = 1024
    """Most tokens of prompt and answer; longer rows are dropped and counted, never cut."""
    packing: bool = False
    """Lay the rows of a micro-batch end to end instead of padding them: the same steps and the
    same loss, without work on padding (no row sees another; needs flash attention on GPU)."""
    gradient_checkpointing: bool = False
    """Recompute activations: less memory, a third more time."""
    save_steps: Count = 100
    """Steps between checkpoints, from which a stopped training resumes."""
    logging_steps: Count = 10
    """Steps between rows of figures."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that also get the figures, those of generation and evaluation too."""

    @model_validator(mode="after")
    def _sweep_is_trainable(self) -> TrainingConfig:
        if self.sweep and self.name != DEFAULT_TRAINING:
            raise ValueError(
                f"a sweep names its trainings, but name is '{self.name}' too; leave one out"
            )
        if empty := [setting for setting, values in self.sweep.items() if not values]:
            raise ValueError(f"sweep.{empty[0]} has no values; give some, or leave it out")
        names = [training.name for training in self.trainings]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"sweep has '{twice[0]}' twice; give each value once")
        return self

    @model_validator(mode="after")
    def _adapter_is_trained(self) -> TrainingConfig:
        swept = [setting for setting in self.sweep if setting.startswith("lora_")]
        if self.adapter == "none" and swept:
            raise ValueError(
                f"sweep.{swept[0]} has no meaning where adapter is none; leave it out, or set "
                "adapter to lora"
            )
        return self

    @model_validator(mode="after")
    def _merges_what_stays(self) -> TrainingConfig:
        if self.start != "merged":
            return self
        if self.adapter == "none":
            raise ValueError(
                "start is 'merged', but without an adapter there is nothing to merge: the weights "
                "go on; set start to previous"
            )
        for setting in ("weight_decay", "lora_dropout"):
            if getattr(self, setting) or any(self.sweep.get(setting, ())):  # type: ignore[call-overload]
                raise ValueError(
                    f"start is 'merged', but {setting} would change what is merged too; set it to "
                    "0, or start to previous"
                )
        return self

    @property
    def has_own_copy(self) -> bool:
        """Whether a copy of the model is loaded for the training and dropped after it."""
        return self.load == "own" or self.adapter != "lora"

    @property
    def of_answers(self) -> TrainingConfig:
        """The settings of the training on answers alone; nothing about pairs bears on it."""
        return self.model_copy(update={"method": "sft", "preference": PreferenceConfig()})

    @property
    def after_answers(self) -> TrainingConfig:
        """The settings of the training on pairs that goes on from one on answers."""
        # What that one has merged is in the adapter that it leaves.
        goes_on = {"start": "previous"} if self.start == "merged" else {}
        return self.model_copy(update=goes_on)

    def most_ranks(self, rounds: int) -> int:
        """Ranks of the widest adapter that so many rounds leave."""
        return self.lora_r * (rounds if self.start == "merged" else 1)

    @property
    def trainings(self) -> tuple[TrainingConfig, ...]:
        """The trainings that these settings ask for: one, or each of the sweep."""
        if not self.sweep:
            return (self,)
        own = self.model_dump() | {"sweep": {}}
        found = []
        for values in itertools.product(*self.sweep.values()):
            # A whole number is one also where YAML has 8.0; the field's own check has the last say.
            settings = {
                setting: int(value) if value.is_integer() else value
                for setting, value in zip(self.sweep, values, strict=True)
            }
            name = "-".join(f"{setting}-{value:g}" for setting, value in settings.items())
            found.append(TrainingConfig.model_validate(own | settings | {"name": name}))
        return tuple(found)
