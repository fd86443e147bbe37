"""Every setting of a run: its type, its default, its meaning. No default stands elsewhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from selfinstruct_train.errors import ConfigError


def _number_from_text(value: object) -> object:
    # YAML 1.1 reads 2e-5 (no dot) as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Float = Annotated[float, BeforeValidator(_number_from_text)]
Fraction = Annotated[float, BeforeValidator(_number_from_text), Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """The open base model that teaches itself."""

    name_or_path: str
    """Hub name, local folder, or ``embedded`` for the tiny model that ships with the package."""
    revision: str | None = None
    """Hub revision; pin it to repeat a run."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: bfloat16 on a GPU that has it, else float32 (which also decodes faster on CPUs)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation of transformers."""
    context_length: int | None = Field(default=None, ge=16)
    """Most tokens of prompt and completion together; by default what the model's config says."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each process; by default the cores divided by the processes on this
    machine."""


class SeedsConfig(Section):
    """The human-written tasks that everything starts from."""

    path: str
    """A JSONL file in the official schema, or a name that ``selfinstruct data list`` shows."""


class EngineConfig(Section):
    """Where text comes from."""

    kind: Literal["transformers", "server", "vllm"] = "transformers"
    """In this process, an OpenAI-compatible server, or vLLM's offline engine."""
    max_batch_size: Count = 32
    """Most sequences decoded at once; the engine takes fewer where memory is short."""
    memory_fraction: Fraction = 0.6
    """Share of the free memory that the engine may fill with cached keys and values; for kind
    ``vllm``, share of the GPU's whole memory, weights included."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """Address of the server (kind ``server``); its key comes from the environment."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the server's key."""
    server_model: str | None = None
    """Name that the server knows the model by; by default model.name_or_path."""
    server_endpoint: Literal["completions", "chat"] = "completions"
    """``chat`` sends each prompt as one user message, for servers that offer nothing else."""
    server_dialect: Literal["openai", "vllm", "llama.cpp", "transformers"] = "openai"
    """Whose words for top_k and repetition_penalty the server knows; ``openai``: neither."""
    server_adapters: dict[str, str] = {}
    """Names that the server knows tuned models by, for adapters such as ``round-0/adapter``."""
    concurrency: Count = 16
    """Requests under way at once (kind ``server``)."""
    timeout_seconds: Float = 120.0
    """Seconds before a request to the server is given up and tried again."""
    max_retries: int = Field(default=6, ge=0)
    """Tries after the first before a request to the server fails."""
    tensor_parallel_size: Count = 1
    """GPUs that share one copy of the model (kind ``vllm``)."""


class InstructionStep(Section):
    """Step 1: new instructions from a numbered list of demonstrations."""

    seed_demonstrations: Count = 6
    """Seed tasks shown in each prompt (paper: 6)."""
    machine_demonstrations: int = Field(default=2, ge=0)
    """Machine-written tasks shown once there are any (paper: 2)."""
    last_item: Count = 16
    """The list ends before this number is reached (paper: 16)."""
    temperature: Float = Field(default=0.7, ge=0.0)
    """Paper: 0.7. Small base models need 1.0 to stay varied."""
    top_p: Fraction = 0.5
    """Paper: 0.5. Small base models loop under it and want 0.95."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    repetition_penalty: Float = Field(default=1.1, gt=0.0)
    """Stands in for the presence penalty of 2 that the paper asked of GPT-3."""
    max_tokens: Count = 1024
    """Most tokens of one list (paper: 1024)."""
    requests_per_batch: Count = 16
    """Lists asked for at once: the unit of progress, of resuming and of the pool's growth."""


class ClassificationStep(Section):
    """Step 2: is it a classification task? Answered by comparing log-probabilities."""

    yes_demonstrations: Count = 12
    """Classification tasks shown (paper: 12)."""
    no_demonstrations: Count = 19
    """Other tasks shown (paper: 19)."""
    requests_per_batch: Count = 64
    """Instructions asked about at once: the unit of progress and of resuming."""


class InstanceStep(Section):
    """Step 3: worked examples, output-first for classification and input-first otherwise."""

    demonstrations: Count = 8
    """Most demonstration tasks shown in each prompt."""
    temperature: Float = Field(default=0.0, ge=0.0)
    """Paper: 0."""
    top_p: Fraction = 1.0
    """Nucleus mass."""
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    repetition_penalty: Float = Field(default=1.0, gt=0.0)
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
    consistency: bool = False
    """From the second round on, keep an instance only if the tuned model, asked in its own
    template, agrees."""


class FilterConfig(Section):
    """What may enter the pool."""

    novelty_threshold: Fraction = 0.7
    """Highest ROUGE-L F1 against the pool that is still new (paper: 0.7)."""
    tokenizer: Literal["rouge", "unicode"] = "rouge"
    """``rouge`` sees ASCII letters and digits only; ``unicode`` serves other languages."""
    min_words: int = Field(default=4, ge=1)
    """Fewest words of an instruction (paper: more than 3)."""
    max_words: Count = 150
    """Most words of an instruction (paper: 150)."""
    allow_programs: bool = True
    """Keep instructions that begin with "Write a program" (the original scripts drop them)."""
    max_repeats: Count = 4
    """A text that says one n-gram more often than this in a row is a loop."""


class GenerationConfig(Section):
    """Steps 1 to 4: instructions, classification, instances, filters."""

    engine: EngineConfig = EngineConfig()
    prompts: str = "en"
    """Prompt set: a built-in language, or a folder with prompts.yaml and three demonstration
    files."""
    instructions_per_round: Count = 500
    """New instructions that each round adds to the pool before it stops."""
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
    instructions: InstructionStep = InstructionStep()
    classification: ClassificationStep = ClassificationStep()
    instances: InstanceStep = InstanceStep()
    filters: FilterConfig = FilterConfig()


class TrainingConfig(Section):
    """Step 5: LoRA through TRL's SFTTrainer, loss on the answer only."""

    template: Literal["plain", "varied", "chat"] = "plain"
    """How instruction and input become a prompt: one template, the paper's variety, or the model's
    chat template."""
    include_seeds: bool = True
    """Train on the seed tasks too."""
    start: Literal["base", "previous"] = "base"
    """Each round trains a fresh adapter from the base, or continues the previous round's."""
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
    """Rows that one process puts through the model at once."""
    max_length: Count = 1024
    """Most tokens of prompt and answer; longer rows are dropped and counted, never cut."""
    packing: bool = False
    """Put several rows into one sequence (best-fit, without leaks between rows; needs flash
    attention on GPU)."""
    gradient_checkpointing: bool = False
    """Recompute activations: less memory, a third more time."""
    save_steps: Count = 100
    """Steps between checkpoints, from which a stopped training resumes."""
    logging_steps: Count = 10
    """Steps between rows of figures."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that also get the figures."""


class JudgeConfig(Section):
    """A model that compares two systems' answers, or grades them, where a reference cannot."""

    model: ModelConfig | None = None
    """The judge; by default the run's base model, which is no impartial judge of itself."""
    engine: EngineConfig | None = None
    """Where the judge's text comes from; by default as the run's own."""
    tasks: tuple[Literal["pairwise", "grade"], ...] = Field(default=("pairwise",), min_length=1)
    """``pairwise``: which of two answers is better. ``grade``: one answer, level A to D."""
    pairwise_prompt: Path | None = None
    """A text file with {instruction}, {input}, {first} and {second}; by default the built-in."""
    grade_prompt: Path | None = None
    """A text file with {instruction}, {input} and {answer}; by default the built-in."""
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
    """Leave out seed tasks too; by default they are only listed, for they are yours to mend."""
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
    """``microworld``, ``user-oriented-252``, ``super-natural-instructions``, JSONL files in the
    same schema, or a checkout of the natural-instructions repository."""
    max_tokens: Count = 256
    """Most tokens of an answer."""
    seeds_only: bool = True
    """Also train and score a model on the seed tasks alone, for the same number of steps."""
    few_shot_demonstrations: int = Field(default=0, ge=0)
    """Also score the base with this many seed tasks as demonstrations; 0 leaves the column out."""
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


class Config(Section):
    """A whole run."""

    model: ModelConfig
    seeds: SeedsConfig
    generation: GenerationConfig = GenerationConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig
    rounds: Count = 1
    """How often to go round."""
    output_dir: Path
    """The run directory."""
    seed: int = Field(default=0, ge=0)
    """Everything random follows from it."""

    @model_validator(mode="after")
    def _coherent(self) -> Config:
        step = self.generation.instructions
        shown = step.seed_demonstrations + step.machine_demonstrations
        if step.last_item <= shown + 1:
            raise ValueError(
                f"generation.instructions.last_item is {step.last_item}, but {shown} "
                f"demonstrations come first; set it above {shown + 1}"
            )
        return self


def load_config(
    path: Path, overrides: Sequence[str] = (), output_dir: Path | None = None
) -> Config:
    """Read a YAML file and apply ``key.sub=value`` overrides.

    Args:
        path: the YAML file.
        overrides: settings in dotted form, the value in YAML syntax.
        output_dir: replaces the file's ``output_dir``.

    Raises:
        ConfigError: the file is missing or not YAML, or any setting is wrong; all faults are named
        at once.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold settings such as 'model:', not {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    if output_dir is not None:
        data["output_dir"] = str(output_dir)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(faults)) from None


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML, every default spelled out."""
    path.write_text(
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8"
    )


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ."""
    before, after = (dict(_flatten(c.model_dump(mode="json"))) for c in (old, new))
    return sorted(k for k in before | after if before.get(k) != after.get(k))


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _override(data: dict[str, Any], override: str) -> None:
    dotted, mark, text = override.partition("=")
    if not mark or not dotted:
        raise ConfigError(f"'{override}': an override has the form key.sub=value")
    *parents, last = dotted.split(".")
    node = data
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{override}': '{parent}' is a value, not a section")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"'{override}': the value is not YAML: {' '.join(str(error).split())}"
        ) from None


def _fault(detail: Any) -> str:
    path = [str(part) for part in detail["loc"]]
    dotted = ".".join(path)
    if detail["type"] == "extra_forbidden":
        parent, _, last = dotted.rpartition(".")
        siblings = [k.rpartition(".")[2] for k in all_keys() if k.rpartition(".")[0] == parent]
        near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.4)
        elsewhere = difflib.get_close_matches(dotted, all_keys(), n=1, cutoff=0.0)
        nearest = f"{parent}.{near[0]}".lstrip(".") if near else elsewhere[0]
        return f"unknown key '{dotted}'; did you mean '{nearest}'?"
    if detail["type"] == "missing":
        return f"'{dotted}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
    return f"'{dotted}': {message}{given}" if dotted else message


def all_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the config, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        kinds = (field.annotation, *get_args(field.annotation))
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += all_keys(kind, f"{prefix}{name}.")
    return keys
