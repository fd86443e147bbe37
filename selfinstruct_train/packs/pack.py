"""A pack: all that is language or domain in what a model is shown, and in what is filtered.

A pack is a folder: ``pack.yaml`` holds the wording, what the filters must know, how answers are
asked for and how the judge says its verdict; ``judge_pairwise.txt`` and ``judge_grade.txt`` ask
the judge; and three JSONL files hold the demonstrations for classification
(``classification.jsonl``), input-first (``input_first.jsonl``) and output-first
(``output_first.jsonl``) prompts, all in the seed schema. A fourth, ``passages.jsonl``, is wanted
where own texts are asked about: in a task without input the output is the passage that the
instruction asks for, in one with input the output stands in the input word for word. So is a fifth,
``reasoned.jsonl``, where the writer is to reason: its outputs hold the reasoning, and the answer
after the label ``answer`` on a line of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Literal, NamedTuple

import regex
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from selfinstruct_train.bounds import Fraction
from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.packs.fault_words import FaultWords
from selfinstruct_train.packs.language import LanguageRules, require_script
from selfinstruct_train.packs.operations import Operations, read_operations
from selfinstruct_train.records import SeedTask
from selfinstruct_train.sources.fetch import find_own
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.text.words import TokenizerChoice, TokenizerName, Units

BUILT_IN = Path(__file__).parent
_CHAT_ALONE = {"chat_instructions", "chat_more", "system"}
"""Parts of the wording that stand in chat requests alone."""
_OF_PASSAGES = {"passage_header", "question_header", "passage", "question", "answer"}
"""Parts of the wording that stand in prompts about passages, beside ``task`` and ``gap``."""
_NOT_IN_PROMPTS = {
    *_OF_PASSAGES,
    *("input_variants", "output_variants", "label_variants", "no_input"),
    *("arbiter_header", "arbiter"),
    # Rows say which of these stood in their prompt, and how it was worded.
    *("attributes", "attribute", "attribute_gap", "persona"),
    # Labels are asked for apart.
    *("category_header", "category", "task_type_header", "task_type"),
    # Where it is used, it stands in the headers.
    "domain",
}
"""Parts of the wording that stand in no prompt of steps 1 to 3, and so do not bear on their
hash."""


class Wording(BaseModel):
    """The text of the prompts in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instructions_header: str
    """Opens the numbered list that the model continues (step 1)."""
    classification_header: str
    input_first_header: str
    output_first_header: str
    chat_instructions: str = (
        "Write {count} varied tasks for an assistant as a numbered list, each stated in one line."
    )
    """Asks a chat model for the list that the demonstrations are the answer to."""
    chat_more: str = (
        "Write {count} more tasks in the same way, numbered from {first}. They must differ from "
        "those above and from each other."
    )
    """Asks for the new ones."""
    system: str = ""
    """System message of chat and Magpie requests: a domain, for one; empty leaves it to the
    model's chat template."""
    task: str = "Task:"
    example: str = "Example"
    input: str = "Input:"
    output: str = "Output:"
    label: str = "Label:"
    classification: str = "Fixed labels:"
    domain: str = "All of these tasks are for {domain}."
    """Stands before every header where ``seeds.domain`` is set; holds ``{domain}``."""
    attributes: str = "The next tasks have these properties: {attributes}."
    """Stands before new tasks where ``generation.attributes`` are drawn; holds ``{attributes}``."""
    attribute: str = "{name}: {value}"
    """One of them."""
    attribute_gap: str = "; "
    """Between two of them."""
    persona: str = "The next tasks are what this person would ask for: {persona}"
    """Stands before new tasks where a persona is drawn; holds ``{persona}``."""
    category_header: str = "For each task, say what it is about."
    """Opens the question for a category, where ``generation.labels`` is ``model``."""
    category: str = "About:"
    task_type_header: str = "For each task, say what kind of work it is."
    """Opens the question for a task type."""
    task_type: str = "Kind:"
    passage_header: str = "For each text, the task that it is the answer to."
    """Opens the question for the instruction of a passage."""
    question_header: str = (
        "For each text, a question about it and the answer, in the very words of the text."
    )
    """Opens the question for a question about a passage."""
    passage: str = "Text:"
    question: str = "Question:"
    answer: str = "Answer:"
    yes: str = "Yes"
    no: str = "No"
    arbiter_header: str = "For each task, say whether the output is right and complete."
    """Opens the question about an answer, where the arbiter is asked."""
    arbiter: str = "Right and complete:"
    gap: str = " "
    """Between a label and what follows it on its line; empty where the language writes none."""
    input_variants: tuple[str, ...] = ()
    """Other names of the label that models write; they stand in no prompt."""
    output_variants: tuple[str, ...] = ()
    label_variants: tuple[str, ...] = ()
    no_input: tuple[str, ...] = ()
    """What models write where a task has no input, in lower case and without marks around it."""

    @property
    def few_shot_stop(self) -> tuple[str, ...]:
        """What ends a few-shot answer: the next task or the next example."""
        return f"\n{self.task}", f"\n{self.example} "

    @field_validator("domain", "attributes", "attribute", "persona")
    @classmethod
    def _has_a_place(cls, text: str, info: ValidationInfo) -> str:
        name = info.field_name or ""
        needed = {"name", "value"} if name == "attribute" else {name}
        if {part[1] for part in Formatter().parse(text) if part[1] is not None} != needed:
            listed = " and ".join(f"{{{field}}}" for field in sorted(needed))
            raise ValueError(f"must hold {listed} and no other field in braces")
        return text

    def means_no_input(self, text: str) -> bool:
        """Whether the text only says that there is no input, be it by a dash."""
        said = regex.sub(r"^[\W_]+|[\W_]+$", "", text).casefold()
        return said in self.no_input or bool(regex.fullmatch(r"\s*[-–—]+\s*", text))


class Rules(BaseModel):
    """What the filters must know about a language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsuitable_words: tuple[str, ...]
    """Whole words or phrases that ask for what a text model cannot do."""
    program_prefix: tuple[str, ...]
    """How instructions begin that ask for a program; one, or a list."""
    script: str | None
    """Unicode script of the first letter; None takes any."""
    language: LanguageRules | None = None
    """Tells the language from others, whose rows are dropped; None takes rows of any."""
    tokenizer: TokenizerName | None = None
    """Compares instructions for novelty and rows for contamination; None goes by the script of
    the seeds. Suites are scored by the script of their own references, whatever the pack."""
    units: Units = "words"
    """What ``min_words`` and ``max_words`` count."""
    faults: FaultWords | None = None
    """Words by which faults of machine-written text show; None looks for no such faults."""
    everyday_seeds: str = "everyday-seeds"
    """Seed tasks on everything in the language, by name or path: the background against which rows
    are found to be on the topic of a domain's seeds."""
    novelty_threshold: Fraction = 0.7
    """Highest ROUGE-L F1 between two instructions that are new to each other (paper: 0.7)."""

    def tokenizer_choice(self, asked: TokenizerChoice) -> TokenizerChoice:
        """The tokenizer that the user asked for; for ``auto`` the pack's own, if it names one."""
        return self.tokenizer or "auto" if asked == "auto" else asked

    def threshold(self, asked: float | Literal["auto"]) -> float:
        """The novelty threshold that the user asked for; for ``auto`` the pack's own."""
        return self.novelty_threshold if asked == "auto" else asked

    @field_validator("program_prefix", mode="before")
    @classmethod
    def _one_or_many(cls, found: object) -> object:
        return (found,) if isinstance(found, str) else found

    @field_validator("script")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        if name is not None:
            require_script(name)
        return name


class Encoding(BaseModel):
    """One way to ask for an answer, with its fields in braces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_input: str
    """Holds ``{instruction}`` and ``{input}``."""
    without_input: str
    """Holds ``{instruction}``, for tasks that have no input."""

    @field_validator("with_input", "without_input")
    @classmethod
    def _is_well_formed(cls, text: str, info: ValidationInfo) -> str:
        needed = {"instruction", "input"} if info.field_name == "with_input" else {"instruction"}
        found = {part[1] for part in Formatter().parse(text) if part[1] is not None}
        if found != needed:
            listed = " and ".join(f"{{{name}}}" for name in sorted(needed, reverse=True))
            raise ValueError(f"must hold the fields {listed} and no other")
        if text != text.rstrip():
            raise ValueError("must not end in white space: answers.gap stands before the answer")
        return text


class AnswerFormat(BaseModel):
    """How a tuned model is asked, and where an untuned one has begun another example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encodings: tuple[Encoding, ...] = Field(min_length=1)
    """What ``training.template: varied`` chooses from; the first is ``plain``."""
    new_example_labels: tuple[str, ...] = Field(min_length=1)
    """Without the colon; a number may follow. A line that begins with one opens a new example."""

    colon: str = ":"
    """Closes a label; full-width where the language writes it so."""
    gap: str = " "
    """Between a prompt and its answer, as a part of the answer; empty where the language writes
    none. A chat template has its own."""

    @property
    def new_example(self) -> re.Pattern[str]:
        """Matches where a new example begins."""
        labels = "|".join(map(re.escape, self.new_example_labels))
        # Who writes no blank writes none before a number, and mixes the two colons.
        number = rf"(?:[ \t]{'+' if self.gap else '*'}\d+|[ \t]*#\d+)?[ \t]*"
        colon = "[:：]" if self.colon == "：" else re.escape(self.colon)
        return re.compile(rf"(?:\A|\n)[ \t]*(?:#+[ \t]*)?(?:{labels}){number}{colon}")


class JudgeMarks(BaseModel):
    """What the judge is told to say. The English marks are always read as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: str = "Verdict:"
    """May stand before the choice, on its line."""
    first: str = "1"
    second: str = "2"
    tie: str = "tie"
    grade: str = "Grade:"
    """May stand before the level, on its line."""
    levels: tuple[str, str, str, str] = ("A", "B", "C", "D")
    """From the best to the worst."""


class Pack(NamedTuple):
    """All of a pack but the judge's prompts, which are read where a judge is asked."""

    wording: Wording
    rules: Rules
    answers: AnswerFormat
    classification: tuple[SeedTask, ...]
    input_first: tuple[SeedTask, ...]
    output_first: tuple[SeedTask, ...]
    operations: Operations
    """What can make a new instruction of another."""
    passages: tuple[SeedTask, ...] = ()
    """Demonstrations for passages; none in a pack without ``passages.jsonl``."""
    reasoned: tuple[SeedTask, ...] = ()
    """Demonstrations of reasoning; none in a pack without ``reasoned.jsonl``."""

    @property
    def demonstrations(self) -> tuple[SeedTask, ...]:
        """All of them, of whatever prompt."""
        shown = *self.classification, *self.input_first, *self.output_first
        return *shown, *self.passages, *self.reasoned

    @property
    def passages_hash(self) -> str:
        """16 hex digits that change when any text of the prompts about passages changes."""
        return self._hash_with({*_OF_PASSAGES, "task", "gap", "system"}, self.passages)

    @property
    def reasoned_hash(self) -> str:
        """The same of the prompts that ask for reasoning and an answer."""
        used = {"input_first_header", "task", "example", "input", "output", "answer", "gap"}
        return self._hash_with({*used, "system"}, self.reasoned)

    def _hash_with(self, used: set[str], tasks: Sequence[SeedTask]) -> str:
        text = self.wording.model_dump_json(include=used)
        text += "".join(task.model_dump_json() for task in tasks)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def hash(self) -> str:
        """16 hex digits that change when any text of the prompts of steps 1 to 3 changes."""
        return self._hash(_CHAT_ALONE)

    @property
    def chat_hash(self) -> str:
        """The same of the prompts as messages."""
        return self._hash(set())

    def _hash(self, unused: set[str]) -> str:
        # A blank is what it always was; hashes in rows of earlier versions hold.
        unused = unused | _NOT_IN_PROMPTS | ({"gap"} if self.wording.gap == " " else set())
        text = self.wording.model_dump_json(exclude=unused) + "".join(
            task.model_dump_json()
            for group in (self.classification, self.input_first, self.output_first)
            for task in group
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class PackFile(BaseModel):
    """What ``pack.yaml`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wording: Wording
    rules: Rules
    answers: AnswerFormat | None = None
    """None takes those of ``en``."""
    judge: JudgeMarks = JudgeMarks()


class _WordsLoader(yaml.SafeLoader):
    """Reads ``yes``, ``no``, ``on`` and ``off`` as the words they are.

    Nothing in a pack is a truth value, and its lists of words hold these in some language.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def pack_folder(name_or_path: str) -> Path:
    """The folder of a pack.

    Raises:
        ConfigError: the pack does not exist.
    """
    built_in = BUILT_IN / name_or_path
    folder = built_in if built_in.is_dir() else Path(name_or_path)
    if not folder.is_dir():
        folder = find_own(name_or_path) or folder
    if (folder / "prompts.yaml").is_file() and not (folder / "pack.yaml").is_file():
        raise ConfigError(
            f"generation.prompts: {folder} has prompts.yaml, which is now one file with rules.yaml:"
            f" write {folder / 'pack.yaml'} with the contents of the one, indented, under "
            "'wording:' and of the other under 'rules:'"
        )
    if not (folder / "pack.yaml").is_file():
        known = ", ".join(sorted(p.parent.name for p in BUILT_IN.glob("*/pack.yaml")))
        raise ConfigError(
            f"generation.prompts: no pack '{name_or_path}' (no file {folder / 'pack.yaml'}); use "
            f"one of {known}, or a folder with pack.yaml"
        )
    return folder


def read_pack_file(path: Path) -> PackFile:
    """Read a ``pack.yaml``.

    Raises:
        ConfigError: it is malformed.
    """
    try:
        return PackFile.model_validate(yaml.load(path.read_text("utf-8"), _WordsLoader))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def load_pack(name_or_path: str) -> Pack:
    """Load a pack: a built-in one such as ``en``, or a folder.

    Raises:
        ConfigError: the pack does not exist, or its pack.yaml is malformed.
        DataError: one of its demonstration files is malformed.
    """
    folder, file = pack_folder(name_or_path), load_pack_file(name_or_path)
    classification, input_first, output_first = (
        read_seed_tasks(folder / f"{name}.jsonl")
        for name in ("classification", "input_first", "output_first")
    )
    passages, reasoned = folder / "passages.jsonl", folder / "reasoned.jsonl"
    return Pack(
        file.wording,
        file.rules,
        _answers(file),
        classification,
        input_first,
        output_first,
        read_operations(folder),
        read_seed_tasks(passages) if passages.is_file() else (),
        read_seed_tasks(reasoned) if reasoned.is_file() else (),
    )


def load_answers(name_or_path: str) -> AnswerFormat:
    """Load only how a pack asks for answers.

    Raises:
        ConfigError: the pack does not exist, or its pack.yaml is malformed.
    """
    return _answers(load_pack_file(name_or_path))


def load_pack_file(name_or_path: str) -> PackFile:
    """Load a pack without its demonstrations.

    Raises:
        ConfigError: the pack does not exist, or its pack.yaml is malformed.
    """
    return read_pack_file(pack_folder(name_or_path) / "pack.yaml")


def judge_prompt_file(name_or_path: str, kind: str) -> Path:
    """The file of a judge's prompt, ``pairwise`` or ``grade``: the pack's, else that of ``en``.

    Raises:
        ConfigError: the pack does not exist.
    """
    own = pack_folder(name_or_path) / f"judge_{kind}.txt"
    return own if own.is_file() else BUILT_IN / "en" / own.name


def _answers(file: PackFile) -> AnswerFormat:
    found = file.answers or read_pack_file(BUILT_IN / "en" / "pack.yaml").answers
    assert found is not None
    return found


def require_demonstrations(pack: Pack, source: str) -> None:
    """Check that every demonstration file says something.

    Raises:
        DataError: a file is empty, or classification shows only one of the two answers.
    """
    if len({task.is_classification for task in pack.classification}) < 2:
        raise DataError(
            f"{source}/classification.jsonl: needs demonstrations of both kinds, Yes and No"
        )
