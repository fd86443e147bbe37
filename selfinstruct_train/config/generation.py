"""Settings of the seeds and of what is written from them: steps 1 to 4."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfinstruct_train.bounds import (
    Count,
    CountOrShare,
    Float,
    Fraction,
    Line,
    RepetitionPenalty,
    Seconds,
    Temperature,
    TopK,
    TopP,
    Weights,
)
from selfinstruct_train.config.filters import FilterConfig
from selfinstruct_train.config.model import EngineConfig
from selfinstruct_train.config.section import Section
from selfinstruct_train.config.steering import AugmentConfig

Style = Literal["completion", "chat", "magpie"]
"""How a model is asked: by a text to continue, by messages, or by a user's turn left open."""

DemonstrationSampling = Literal["uniform", "balanced", "rare_first"]
"""Which tasks of the pool are shown together in a prompt of step 1."""

PassageTask = Literal["instruction", "question"]
"""What a passage of the user's own texts is asked for."""

ScoreName = Literal["arbiter", "ifd", "length", "novelty"]
"""What a row may be selected by."""


class SeedsConfig(Section):
    """The human-written tasks that everything starts from."""

    path: str
    """A file or Hub data set in the official schema or any form that ``data`` takes, or a name that
    ``selfinstruct data list`` shows."""
    id_from: str | None = None
    """Field that holds a row's id; by default ``id``, else rows are numbered."""
    hold_out: Fraction = 0.0
    """Share of the seed tasks that is kept out of prompts and training and measured on, as the
    suite ``held-out-seeds``."""
    domain: Annotated[str, Field(pattern=r"^\S(?:[^\r\n]{0,198}\S)?$")] | None = None
    """What the tasks are for, in the language of the pack, such as ``a veterinary clinic``: every
    prompt names it, and what is written is held against the seeds' topic."""
    demonstrations: Literal["auto", "pack", "seeds"] = "auto"
    """Worked examples of steps 2 and 3: the pack's, or your own seeds, filled up from the pack
    where there are fewer than four of a kind. ``auto``: the seeds where a domain is set."""
    off_topic: Literal["keep", "drop"] = "keep"
    """What becomes of rows that are not on the seeds' topic, where a domain is set. The share of
    rows on topic is reported either way."""

    @property
    def shows_seeds(self) -> bool:
        """Whether the seeds are the demonstrations of steps 2 and 3."""
        named = self.demonstrations == "auto" and self.domain is not None
        return named or self.demonstrations == "seeds"

    @model_validator(mode="after")
    def _has_a_topic(self) -> SeedsConfig:
        if self.off_topic == "drop" and self.domain is None:
            raise ValueError("off_topic is 'drop', but no domain is set; set seeds.domain")
        return self


class InstructionStep(Section):
    """Step 1: new instructions from a numbered list of demonstrations."""

    style: Style | None = None
    """How this step asks; by default as ``generation.style`` says."""
    seed_demonstrations: Count = 6
    """Seed tasks shown in each prompt (paper: 6)."""
    machine_demonstrations: int = Field(default=2, ge=0)
    """Machine-written tasks shown once there are any (paper: 2)."""
    sampling: DemonstrationSampling = "uniform"
    """``uniform`` draws demonstrations from the whole pool (paper). The others show tasks of one
    ``category`` and ``task_type`` together, as far as the seeds say these: ``balanced`` any of
    them, ``rare_first`` the one that has the fewest tasks so far."""
    last_item: Count = 16
    """The list ends before this number is reached (paper: 16)."""
    temperature: Temperature = 0.7
    """Paper: 0.7. Small base models need 1.0 to stay varied."""
    top_p: TopP = 0.5
    """Paper: 0.5. Small base models loop under it and want 0.95."""
    top_k: TopK = 0
    """0 keeps all tokens."""
    repetition_penalty: RepetitionPenalty = 1.1
    """Stands in for the presence penalty of 2 that the paper asked of GPT-3."""
    max_tokens: Count = 1024
    """Most tokens of one list (paper: 1024)."""
    requests_per_batch: Count = 16
    """Lists asked for at once: the unit of progress, of resuming and of the pool's growth."""


class ClassificationStep(Section):
    """Step 2: is it a classification task? Answered by comparing log-probabilities."""

    style: Literal["completion", "chat"] | None = None
    """How this step asks; by default as ``generation.style`` says, where ``magpie`` means chat."""
    yes_demonstrations: Count = 12
    """Classification tasks shown (paper: 12)."""
    no_demonstrations: Count = 19
    """Other tasks shown (paper: 19)."""
    demonstrations: Literal["pack", "seeds"] = "pack"
    """Whose tasks are shown: the pack's, or the user's own seeds where there are enough of both
    kinds to show some and to calibrate on the others."""
    requests_per_batch: Count = 64
    """Instructions asked about at once: the unit of progress and of resuming."""
    calibrate: bool = True
    """Choose the threshold of the log-probability margin on the labels of the seed tasks; without
    it, Yes must be likelier than No, which small models rarely say (paper: asked GPT-3)."""


class InstanceStep(Section):
    """Step 3: worked examples, output-first for classification and input-first otherwise."""

    style: Style | None = None
    """How this step asks; by default as ``generation.style`` says. ``magpie`` asks the instruction
    itself, without demonstrations, and takes the answer as the output."""
    demonstrations: Count = 8
    """Most demonstration tasks shown in each prompt."""
    shown_answers: int = Field(default=0, ge=0)
    """Of these demonstrations, how many that need no input are shown as earlier turns in the style
    ``magpie``: a chat model's answers are long, and then about as long as those shown."""
    temperature: Temperature = 0.0
    """Paper: 0."""
    top_p: TopP = 1.0
    """Nucleus mass."""
    top_k: TopK = 0
    """0 keeps all tokens."""
    repetition_penalty: RepetitionPenalty = 1.0
    """1 is off: instances rightly repeat words of their input."""
    max_tokens: Count = 300
    """Most tokens of all instances of one instruction (paper: 300 to 350)."""
    requests_per_batch: Count = 64
    """Instructions worked on at once: the unit of progress and of resuming."""
    max_per_instruction: Count = 5
    """Instances kept for one instruction (paper: 5)."""
    answers: Literal["as_written", "asked_again", "agreed"] = "as_written"
    """Input-first answers as they were written with their inputs (paper); or asked for again,
    greedily and alone; or kept only where both agree."""
    best_of: Count = 1
    """Answers drawn for each input, of which ``chooser`` keeps one; the others are kept beside it
    in ``drawn.jsonl``. 1 draws none beyond what ``answers`` says."""
    chooser: Literal["majority", "minimum_bayes_risk", "likelihood", "arbiter", "program"] = (
        "majority"
    )
    """Which of the drawn answers is kept: what more than half of them say, once case, punctuation
    and blanks are left out (self-consistency, arXiv 2203.11171); the one most like the others by
    ROUGE-L; the likeliest token for token; the one that the writer itself holds right when asked;
    or the one that ``chooser_program`` scores highest. Where none qualifies the row is dropped."""
    draw_temperature: Temperature = 0.7
    """Of the drawn answers."""
    chooser_program: Path | None = None
    """A Python file with a function ``score(instruction, input, output)``: a number, or whether it
    is right; an answer needs more than 0 to be kept. It runs in a process of its own."""
    chooser_seconds: Seconds = 5.0
    """Longest that ``chooser_program`` may take over one answer, which then scores 0."""
    fix: bool = False
    """The arbiter, calibrated on the seeds' own answers and those of other seeds, judges every
    answer. One that it holds wrong is drawn once more, at ``draw_temperature``, and judged again; a
    row whose answer is still wrong is dropped."""
    reasoning: Literal["none", "hidden", "shown"] = "none"
    """Whether the writer reasons before it answers, where it is asked for an answer alone
    (``answers`` or ``best_of``); the answer stands after the pack's ``answer`` label. ``hidden``
    keeps the answer; ``shown`` keeps both, and in evaluation what stands after the label counts. A
    chooser compares answers, whatever led to them."""
    consistency: bool = False
    """From the second round on, keep an instance only if the tuned model, asked in its own
    template, agrees."""

    @model_validator(mode="after")
    def _chooser_can_choose(self) -> InstanceStep:
        if self.reasoning != "none" and self.best_of == 1 and self.answers == "as_written":
            raise ValueError(
                f"reasoning is '{self.reasoning}', but no answer is asked for alone; set "
                "answers=asked_again, or best_of to 3 or more"
            )
        if self.reasoning == "shown" and self.answers == "agreed":
            raise ValueError(
                "reasoning 'shown' replaces the written answers, and 'agreed' keeps them; set "
                "answers=asked_again, or reasoning=hidden"
            )
        if self.best_of == 1:
            return self
        if self.chooser == "program" and self.chooser_program is None:
            raise ValueError("chooser is 'program', but chooser_program names no file; name one")
        if self.answers == "agreed":
            raise ValueError(
                "best_of draws answers in place of the written ones, so there is none to agree "
                "with; set answers=as_written, or best_of=1"
            )
        if self.best_of == 2 and self.chooser in ("majority", "minimum_bayes_risk"):
            raise ValueError(
                f"best_of is 2, and of two answers '{self.chooser}' can choose none; set it to 3 "
                "or more"
            )
        return self


class PassageStep(Section):
    """Rows for passages of the user's own texts, where ``generation.texts`` names some."""

    tasks: tuple[PassageTask, ...] = ("instruction",)
    """What each passage is asked for. ``instruction``: the instruction that it is the answer to
    (instruction backtranslation, arXiv 2308.06259). ``question``: a question with the passage as
    its input, whose answer must be found in the passage, see ``answers``."""
    answers: Literal["exact_span", "judged"] = "exact_span"
    """Which answers to questions are kept: those that stand in the passage word for word; or
    ``judged``, those too of which the writer, asked few-shot, says that the passage says so, by
    log-probabilities calibrated on the pack's ``entailment.jsonl``."""
    share: Fraction = 1.0
    """Most of a round's instructions that come from texts; step 1 writes the others. A round goes
    on where the one before it stopped; no passage is asked about twice."""
    min_words: Count = 30
    """Fewest words of a passage; the pack may count characters."""
    max_words: Count = 150
    """Most words of a passage; the pack may count characters."""
    demonstrations: Count = 5
    """Most demonstrations shown in each prompt."""
    temperature: Temperature = 0.3
    """Of instructions, questions and their answers. Passages differ, so variety is not wanted."""
    top_p: TopP = 0.9
    """Nucleus mass."""
    max_tokens: Count = 128
    """Most tokens of an instruction, or of a question and its answer."""
    requests_per_batch: Count = 64
    """Passages asked about at once: the unit of progress and of resuming."""

    @model_validator(mode="after")
    def _has_passages(self) -> PassageStep:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks must name 'instruction', 'question' or both, none twice")
        if self.answers == "judged" and "question" not in self.tasks:
            raise ValueError("answers is 'judged', but no question is asked; add it to tasks")
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words is {self.min_words}, above max_words ({self.max_words}); lower it"
            )
        return self


class ScoreWeights(Section):
    """What each score of a row counts for; one with weight 0 is not computed.

    Scores are standardised over the round (mean 0, standard deviation 1), so that weights can be
    compared. A negative weight prefers low scores.
    """

    arbiter: Float = 0.0
    """How right the writer, asked few-shot, holds the answer: log P(Yes) - log P(No)."""
    ifd: Float = 0.0
    """Instruction-following difficulty (arXiv 2402.00530): perplexity of the answer given the
    prompt over that of the answer alone, both under the writer. Low: the prompt says what the
    answer is; above 1: it does not help."""
    length: Float = 0.0
    """Length of the answer, in words or as the pack counts."""
    novelty: Float = 0.0
    """1 - ROUGE-L F1 with the nearest instruction that was in the pool before."""

    @property
    def asked(self) -> tuple[ScoreName, ...]:
        """Names of the scores that count."""
        names: tuple[ScoreName, ...] = ("arbiter", "ifd", "length", "novelty")
        return tuple(name for name in names if getattr(self, name))


class SelectConfig(Section):
    """Which of a round's rows are worth training on; all of them, unless something is set.

    Rows are taken best first. What is left out stays in its file and is listed in
    ``selection.jsonl``; training, reports and exports do not read it.
    """

    by: ScoreWeights = ScoreWeights()
    keep: CountOrShare | None = None
    """Most rows of a round that are taken: a number such as 500, or a share such as 0.5."""
    diversity: Fraction | None = None
    """Passes over a row whose instruction has a higher ROUGE-L F1 than this with one already taken
    (the rule of DEITA, arXiv 2312.15685). Of several rows of one instruction the best stays."""
    meaning: Fraction | None = None
    """Passes over a row whose instruction means nearly what that of one already taken means: whose
    mean hidden states, of the model itself and standardised over the round, have a higher cosine
    than this with those of the other. Beside or without ``diversity``."""
    requests_per_batch: Count = 64
    """Rows scored at once: the unit of progress and of resuming."""

    @property
    def is_on(self) -> bool:
        """Whether rows are scored or left out at all."""
        limits = (self.diversity, self.meaning)
        return bool(self.by.asked) or any(limit is not None for limit in limits)

    @model_validator(mode="after")
    def _knows_the_best(self) -> SelectConfig:
        if self.keep is not None and not self.by.asked:
            raise ValueError(
                "keep is set, but by weighs no score, so no row is better than another; set "
                "select.by.arbiter to 1.0, or another score"
            )
        return self


class GenerationConfig(Section):
    """Steps 1 to 4: instructions, classification, instances, filters."""

    engine: EngineConfig = EngineConfig()
    style: Literal["auto"] | Style = "auto"
    """``completion``: a text with demonstrations to continue, for base models. ``chat``: messages
    in the model's chat template, with the demonstrations as earlier turns. ``magpie``: the template
    up to where a user writes, so that an aligned model writes the instruction itself (Xu et al.,
    arXiv 2406.08464). ``auto``: chat where there is a chat template and the model's name or the
    title of its card says that it was tuned to follow instructions, else completion."""
    prompts: str = "en"
    """Pack: a built-in language, or a folder with pack.yaml and three demonstration files."""
    instructions_per_round: Count = 500
    """Instructions of each round that end with at least one instance. A round goes on, step by
    step, until it has exactly so many, or is saturated or meets ``max_requests``."""
    max_requests: Count = 2000
    """Most step 1 requests of one round, whatever they yield."""
    saturation_window: Count = 200
    """Candidates over which the acceptance rate is watched."""
    saturation_floor: Fraction = 0.05
    """A round stops when fewer of the last candidates than this were accepted."""
    instruction_writer: Literal["base", "tuned"] = "base"
    """Who writes instructions after the first round: the base, or the best round's model so far."""
    instance_writer: Literal["base", "tuned"] = "base"
    """Who writes instances after the first round; ``tuned`` answers in the template it was tuned
    in."""
    attributes: dict[Line, Weights] = {}
    """What the tasks of a list shall be like, drawn by weight for each request of step 1, as in
    ``{audience: [children, experts], difficulty: {easy: 2, hard: 1}}``. The prompt names what was
    drawn, and so does each row that it yields."""
    personas: Path | tuple[Line, ...] = ()
    """Whose tasks they are, one drawn for each request: a list, or a file with a person a line, or
    with ``persona`` in lines of JSON."""
    augment: AugmentConfig = AugmentConfig()
    labels: Literal["demonstrations", "model"] = "demonstrations"
    """Where categories and task types come from, if the seeds have any. An instruction always has
    those of more than half of the tasks in its prompt; ``model`` asks the writer as well, by
    calibrated log-probabilities, into ``labels.jsonl``."""
    texts: Path | None = None
    """Own texts without instructions, such as manuals, notes or papers: a folder of plain texts and
    Markdown, one such file, or a JSONL file whose rows hold a ``text``. The model writes the
    instructions for their passages."""
    passages: PassageStep = PassageStep()
    instructions: InstructionStep = InstructionStep()
    classification: ClassificationStep = ClassificationStep()
    instances: InstanceStep = InstanceStep()
    filters: FilterConfig = FilterConfig()
    select: SelectConfig = SelectConfig()
