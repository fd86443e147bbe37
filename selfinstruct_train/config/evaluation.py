"""Settings of the evaluation: suites, judge, contamination check, harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfinstruct_train.bounds import Count, Float, Fraction
from selfinstruct_train.config.model import EngineConfig, ModelConfig
from selfinstruct_train.config.section import Section


class JudgeConfig(Section):
    """A model that compares two systems' answers, or grades them, where a reference cannot."""

    model: ModelConfig | None = None
    """The judge; by default the run's base model, which is not an impartial judge of itself."""
    engine: EngineConfig | None = None
    """Where the judge's text comes from; by default as the run's own."""
    tasks: tuple[Literal["pairwise", "grade"], ...] = Field(default=("pairwise",), min_length=1)
    """``pairwise``: which of two answers is better. ``grade``: one answer, level A to D."""
    pairwise_prompt: Path | None = None
    """A text file with {instruction}, {input}, {first} and {second}; by default the pack's."""
    grade_prompt: Path | None = None
    """A text file with {instruction}, {input} and {answer}; by default the pack's."""
    chat_template: bool = False
    """Ask in the judge's chat template, as an instruction-tuned judge wants it."""
    server_context_length: Count = 8192
    """Most tokens of a prompt and its verdict where a server judges; other judges know theirs."""
    max_tokens: Count = 64
    """Most tokens of a verdict; raise it for a prompt that asks for reasons first."""


class ContaminationConfig(Section):
    """What is done with training rows that resemble rows of the evaluation suites."""

    drop: Literal["none", "exact", "similar", "instruction"] = "similar"
    """Generated rows to leave out: none; those that ask a suite's question; also those that nearly
    do; also those that give its instruction with another input. What is kept is listed as well."""
    drop_seeds: bool = False
    """Leave out seed tasks too; by default they are only listed, for they are yours to fix."""
    rouge_threshold: Fraction = 0.7
    """Lowest ROUGE-L F1 of two instructions, or two inputs, that counts as a resemblance."""
    ngram_threshold: Fraction = 0.5
    """Lowest share of a suite row's 8-grams in a training row that counts as a resemblance."""


class HarnessConfig(Section):
    """Tasks of lm-evaluation-harness (``pip install 'selfinstruct-train[harness]'``)."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks or groups, as the harness knows them."""
    include_path: str | None = None
    """Folder with YAML files of own tasks; Python functions that they name are run."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples in each prompt; by default what the task says."""
    limit: int | None = Field(default=None, ge=1)
    """Most items of each task, from its front; by default all."""
    batch_size: Count = 8
    """Items that the model reads at once."""
    apply_chat_template: bool = False
    """Ask base and tuned model alike in the model's chat template."""


class EvaluationConfig(Section):
    """Did it help?"""

    suites: tuple[str, ...] = Field(min_length=1)
    """Names that ``selfinstruct data list`` shows, JSONL files in the same schema, or a checkout of
    the natural-instructions repository."""
    max_tokens: Count = 256
    """Most tokens of an answer."""
    select_on: str | None = None
    """The suite, one of ``suites``, that chooses the best round and training, and thereby the
    writer of the next round; all other suites are only reported. By default the first suite of a
    name that ends in ``-dev``, else one half of the tasks of the first suite, with a warning."""
    seeds_only: bool = True
    """Also train and score a model on the seed tasks alone, for as many steps as the tuned one and
    for each length of ``seeds_only_epochs``; the best by the suite that chooses is compared with
    tuned, the others stand beside it."""
    seeds_only_epochs: tuple[Annotated[Float, Field(gt=0.0)], ...] = (3.0, 10.0)
    """Shorter trainings on the seed tasks alone, in passes over them, for as many steps as tuned
    may be too many; lengths that reach the tuned model's steps are left out."""
    few_shot_demonstrations: int = Field(default=0, ge=0)
    """Also score the base with this many worked examples, those that step 3 shows, before each
    question; 0 leaves the column out."""
    bootstrap_samples: Count = 10_000
    """Resamples behind each interval."""
    confidence: Fraction = 0.95
    """Coverage of each interval."""
    judge: JudgeConfig | None = None
    """Also let a model judge tuned against stop-controlled base; by default no model is asked."""
    published: str | None = None
    """Folder with published answers to ``user-oriented-252`` that the report shows beside the
    run's; by default what ``selfinstruct data pull published-predictions`` fetched, if anything."""
    held_out_text: str | None = None
    """A ``.txt`` file, or a ``.jsonl`` file of rows with ``text``, on which the loss of base and
    tuned model is compared, to see what tuning made them forget; by default nothing is."""
    held_out_tokens: Count = 65_536
    """Most tokens of the held-out text that are read, from its front."""
    harness: HarnessConfig | None = None
    """Also put tasks of lm-evaluation-harness to base and tuned model; by default none."""
    contamination: ContaminationConfig = ContaminationConfig()
    """What is done, before training, with rows that resemble a suite."""

    @model_validator(mode="after")
    def _chooser_is_measured(self) -> EvaluationConfig:
        if self.select_on is not None and self.select_on not in self.suites:
            raise ValueError(
                f"select_on names '{self.select_on}', which is not measured; add it to "
                "evaluation.suites"
            )
        return self
