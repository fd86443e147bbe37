"""The rows that flow between the stages, each one line of a JSONL file in the run directory."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from selfinstruct_train.bounds import Count, RepetitionPenalty, Temperature, TopK, TopP


class Row(BaseModel):
    """A typed, immutable row; an unknown key is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_empty(value: object) -> bool:
    """Whether a row is written as in versions that did not know the field."""
    return not value


def _is_none(value: object) -> bool:
    """The same of a number, which may be 0."""
    return value is None


def _require_moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


Moment = Annotated[str, AfterValidator(_require_moment)]
"""A time with its zone; ISO 8601."""


def is_visible(text: str) -> bool:
    """Whether a text holds anything but blanks, zero-width ones included, and controls."""
    return any(unicodedata.category(c)[0] not in "CZ" for c in text)


def _require_visible(text: str) -> str:
    if not is_visible(text):
        raise ValueError("is empty; write it or leave the task out")
    return text


class Instance(Row):
    """One worked example of a task."""

    input: str = ""
    """Empty where the instruction says it all."""
    output: str


class SeedTask(Row):
    """A human-written task, in the schema of the official seed file."""

    id: str
    name: str
    instruction: Annotated[str, AfterValidator(_require_visible)]
    instances: tuple[Instance, ...] = Field(min_length=1)
    is_classification: bool
    category: str | None = Field(default=None, min_length=1, exclude_if=_is_empty)
    """What it is about, such as ``cooking``; one word for one thing in the whole file."""
    task_type: str | None = Field(default=None, min_length=1, exclude_if=_is_empty)
    """What is to be done, such as ``extraction``."""

    @field_validator("instances")
    @classmethod
    def _have_answers(cls, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        for place, instance in enumerate(instances):
            if not is_visible(instance.output):
                raise ValueError(f"the output of instance {place} is empty; write it")
        return instances


class EvalTask(Row):
    """A task of an evaluation suite, in the schema of the official 252 user-oriented tasks."""

    id: str
    motivation_app: str = ""
    """The application or category under which scores are grouped."""
    instruction: str = Field(min_length=1)
    instances: tuple[Instance, ...] = Field(min_length=1)


class Sampling(Row):
    """How tokens are drawn for one request."""

    max_tokens: Count
    """Most tokens to write."""
    temperature: Temperature = 0.0
    """0 is greedy."""
    top_p: TopP = 1.0
    """Nucleus mass; 1 keeps every token."""
    top_k: TopK = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    repetition_penalty: RepetitionPenalty = 1.0
    """Above 1, tokens already seen lose likelihood (Keskar et al., arXiv 1909.05858)."""
    stop: tuple[str, ...] = ()
    """Strings that end the completion; the completion's text does not hold them."""
    seed: int = 0
    """Seed of this request alone: it fixes the text whatever else is asked beside it."""


class Attribute(Row):
    """What the tasks of a request were to be like, in one respect."""

    name: str
    value: str


class TextPlace(Row):
    """Where a passage stands in the user's own texts."""

    file: str
    """Relative to ``generation.texts``."""
    line: int | None = None
    """Of a JSONL file, counted from 1; None of a plain text."""
    offset: int
    """Characters before it in the file, or in the text of its line."""
    length: int
    """Characters that it has."""

    @property
    def words(self) -> str:
        """For a person."""
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}, characters {self.offset} to {self.offset + self.length}"


class Provenance(Row):
    """Where a machine-written row comes from."""

    round: int
    request: str
    """Id of the request to the engine."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the tasks shown in the prompt, in order."""
    sampling: Sampling
    model: str
    adapter: str | None = None
    """Adapter directory relative to the run, or None when the base wrote."""
    prompt_hash: str
    """First 16 hex digits of the SHA-256 of the prompt template in use."""
    attributes: tuple[Attribute, ...] = Field(default=(), exclude_if=_is_empty)
    """What the prompt said that its tasks are like, as drawn for this request."""
    operation: str | None = Field(default=None, exclude_if=_is_empty)
    """The operation by which an instruction was made of the one demonstration; None of a list."""
    passage: TextPlace | None = Field(default=None, exclude_if=_is_empty)
    """The passage of the user's own texts that it was written for; None of all other rows."""
    entailment: float | None = Field(default=None, exclude_if=_is_none)
    """Log P(Yes) - log P(No) of the writer, asked whether the passage says what the answer says;
    None where it stands there word for word, and of all other rows."""


class Neighbour(Row):
    """The nearest instruction already in the pool."""

    id: str
    instruction: str
    score: float
    """ROUGE-L F1, 0 to 1."""


class Instruction(Row):
    """A machine-written instruction that passed the filters and joined the pool."""

    id: str
    instruction: str
    nearest: Neighbour | None = None
    """None where the pool was empty, and of most that joined when it held 10,000 or more."""
    mean_similarity: float | None = None
    """Mean ROUGE-L F1 against the pool; None of most that joined when it held 10,000 or more."""
    nearest_seed: Neighbour | None = None
    """The most similar seed task; None only where there is none."""
    provenance: Provenance
    category: str | None = Field(default=None, exclude_if=_is_empty)
    """That of more than half of the tasks in its prompt; None where there is none such."""
    task_type: str | None = Field(default=None, exclude_if=_is_empty)
    """Likewise."""


class Classified(Row):
    """The answer to: is this a classification task?"""

    id: str
    """Id of the instruction."""
    is_classification: bool
    logprob_yes: float
    logprob_no: float


class Labelled(Row):
    """The model's own label of an instruction: a line of labels.jsonl.

    A label is None where the seeds have fewer than two of its kind.
    """

    id: str
    """Id of the instruction."""
    category: str | None = None
    category_margin: float | None = None
    """Calibrated log-probability of the label less that of the next best."""
    task_type: str | None = None
    task_type_margin: float | None = None


class GeneratedInstance(Row):
    """A machine-written worked example that passed the filters: one training row."""

    id: str
    instruction_id: str
    instruction: str
    input: str
    output: str
    is_classification: bool
    provenance: Provenance


class DrawnAnswers(Row):
    """The answers drawn for one input, of which one was kept: a line of drawn.jsonl."""

    id: str
    """Of the instance."""
    instruction: str
    input: str
    answers: tuple[str, ...]
    scores: tuple[float | None, ...]
    """The chooser's, in the order of the answers; None of an answer that could not be chosen,
    because it is empty or was cut."""
    chosen: int | None
    """Place of the answer that was kept, counted from 0; None where none was."""
    chooser: str
    adapter: str | None = None
    """Adapter directory relative to the run, or None when the base answered."""


class RowScores(Row):
    """What an instance scores: a line of scores.jsonl.

    A score is None where the config does not ask for it, and where it cannot be had.
    """

    id: str
    """Of the instance."""
    arbiter: float | None = None
    """Log P(Yes) - log P(No), asked whether the answer is right; None where it does not fit into
    the context."""
    ifd: float | None = None
    """Perplexity of the answer given the prompt over that of the answer alone; None where they do
    not fit into the context."""
    length: int | None = None
    """Of the answer, in the units of the pack."""
    novelty: float | None = None
    """1 - ROUGE-L F1 with the instruction's nearest neighbour, 0 to 1; None where none is
    stored."""


class LeftOutRow(Row):
    """An instance that is not trained on: a line of selection.jsonl."""

    id: str
    """Of the instance."""
    reason: Literal["too_close", "same_meaning", "over_budget"]
    """Its instruction has the words or the meaning of a better row's, or as many better rows as
    wanted were taken."""
    score: float
    """Weighted sum of its standardised scores."""
    nearest: Neighbour | None = None
    """The taken row that it is too close to; of ``same_meaning`` the score is the cosine."""


class Rejection(Row):
    """Something the model wrote that was dropped, and why."""

    stage: Literal["instruction", "instance", "contamination"]
    reason: str
    """Name of the predicate that dropped it."""
    evidence: str
    """What exactly the predicate saw."""
    instruction: str
    instruction_id: str | None = None
    """Set where the instruction itself stayed in the pool."""
    input: str = ""
    output: str = ""
    nearest: Neighbour | None = None
    """Set where the novelty test dropped it."""
    provenance: Provenance | None = None


class TrainingRow(Row):
    """One example that the adapter is trained on."""

    id: str
    source: Literal["seed", "generated", "own", "replay"]
    instruction: str
    input: str
    output: str
    is_classification: bool


class PreferencePair(Row):
    """Two answers to one question, and which of them is to be preferred."""

    id: str
    source: Literal["drawn", "earlier_model", "judged"]
    instruction: str
    input: str
    chosen: str
    rejected: str


class PairCounts(Row):
    """dataset/pairs.json: what the pairs are made of."""

    pairs: int
    """Trained on."""
    sources: dict[str, int]
    """Pairs trained on by where they come from."""
    left_out: int
    """Pairs left out so that chosen and rejected answers are equally long on average."""
    too_long: int
    """Pairs left out because one of the answers did not fit."""
    chosen_words: float
    """Mean length of the chosen answers that are trained on."""
    rejected_words: float
    chosen_words_before: float
    """The same of all pairs, before any was left out."""
    rejected_words_before: float

    @property
    def sentence(self) -> str:
        """What a user is told."""
        return (
            f"{self.pairs} preference pairs, chosen answers of {self.chosen_words:.1f} words "
            f"against {self.rejected_words:.1f} ({self.left_out} left out to balance the lengths, "
            f"{self.too_long} too long)"
        )


class Prediction(Row):
    """A model's answer to one instance of an evaluation task."""

    task_id: str
    instruction: str
    input: str
    response: str
    target: str
    finish_reason: Literal["stop", "eos", "length"] | None = None
    """None where the file did not say, as in published predictions."""
    completion_tokens: int | None = None


class TrainingStep(Row):
    """The figures of one logged optimizer step."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float | None = None
    tokens: int | None = None
    """Tokens seen so far."""
    reward_accuracy: float | None = None
    """Share of the pairs whose chosen answer gained more likelihood than the rejected one, 0 to 1;
    None of a training on answers alone, as the next one."""
    reward_margin: float | None = None
    """How much more it gained: beta x the difference of the two log-probability gains."""
    seconds: float
    """Seconds since training began, pauses not counted."""


class ConstraintKindScore(Row):
    """How often a system met the constraints of one kind."""

    kind: str
    declared: int
    met: int


class ConstraintScore(Row):
    """How a system kept to constraints on form, in the terms of IFEval (arXiv 2311.07911)."""

    answers: int
    """Answers to tasks that declare constraints."""
    declared: int
    """Constraints that those answers had to meet, together."""
    instruction_level_strict: float
    """Percent of constraints met."""
    prompt_level_strict: float
    """Percent of answers that meet all of theirs."""
    kinds: tuple[ConstraintKindScore, ...]


class SystemScore(Row):
    """How one system did on a suite; figures that do not apply are None, never zero."""

    system: str
    """``base``, ``base-stopped`` (cut where it starts a new example), ``base-few-shot``,
    ``seeds-only`` or ``tuned``."""
    n: int
    """Instances scored."""
    rouge_l: float
    """Mean ROUGE-L F1 x 100 (rouge_score; with its stemmer where the suite is in ASCII)."""
    unscored: int = 0
    """Instances left out of ROUGE-L: their references have no word that the tokenizer sees."""
    exact_match: float
    """Percent of answers equal to the reference after normalisation."""
    mean_words: float
    """Mean length of the answers."""
    empty: float
    """Percent of answers that are blank."""
    ended: float | None = None
    """Percent of answers that the model ended by itself; None where unknown, as where answers are
    cut at a stop string."""
    oracle_accuracy: float | None = None
    """Percent judged right by the microworld's oracle; None on other suites."""
    constraints: ConstraintScore | None = None
    """None where the suite declares none."""
    accuracy: float | None = None
    """Percent of the answers that can be told right or wrong that are right: one of the accepted
    answers, where the task has any, and all its constraints met; None where no task has either."""


class PairedComparison(Row):
    """B against A on the same instances: paired differences B - A with a bootstrap interval."""

    a: str
    b: str
    metric: str
    """``rouge_l``, ``accuracy``, ``oracle_accuracy``, ``instruction_level_strict`` or
    ``prompt_level_strict``, all x 100."""
    group: str
    """The application, or ``overall``."""
    n: int
    delta: float
    ci_low: float
    ci_high: float
    wins: int
    ties: int
    losses: int


class Halves(Row):
    """A suite's tasks in two halves, each with tuned against stop-controlled base in ROUGE-L.

    Where no suite of its own chooses between models, one half does, and the other is reported.
    """

    choosing: PairedComparison
    reported: PairedComparison
    pairs: tuple[PairedComparison, ...] = ()
    """On the reported half: tuned against the stop-controlled base, the seeds-only model and the
    few-shot base, in every figure."""


class ContaminatedRow(Row):
    """A row of a suite whose answer the training rows may have given away."""

    id: str
    """Task and instance, ``task#0``."""
    level: Literal["similar", "exact"]
    """``exact``: a training row asks the very question."""
    training_row: str
    """Id of the training row that resembles it most."""
    what: str
    """In which way."""


class Comparison(Row):
    """eval/<suite>/comparison.json: tuned against stop-controlled base, the rest beside it."""

    suite: str
    n: int
    delta: float
    """Tuned minus stop-controlled base, ROUGE-L x 100."""
    ci_low: float
    ci_high: float
    wins: int
    ties: int
    losses: int
    confidence: float
    scores: tuple[SystemScore, ...]
    pairs: tuple[PairedComparison, ...]
    """Every pair of interest, overall and per application."""
    halves: Halves | None = None
    """None where there is one task alone, and in a comparison of files."""
    seeds_only_steps: int | None = None
    """Steps of the ``seeds-only`` model, the best of several lengths; None where there is none."""
    contaminated: tuple[ContaminatedRow, ...] | None = None
    """Rows of the suite that the tuned model may have been trained on; None where not looked for,
    as in a comparison of files."""
