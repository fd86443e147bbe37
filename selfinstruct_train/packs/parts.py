"""What ``pack.yaml`` holds: the wording, rules, how answers are asked for, what a judge says."""

from __future__ import annotations

import functools
import re
import unicodedata
from string import Formatter
from typing import Literal

import regex
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from selfinstruct_train.bounds import Fraction
from selfinstruct_train.packs.fault_words import FaultWords
from selfinstruct_train.packs.language import LanguageRules, require_script
from selfinstruct_train.text.words import TokenizerChoice, TokenizerName, Units


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
    entailment_header: str = "For each text, say whether it says what the answer says."
    """Opens the question whether a passage says what an answer to a question about it says."""
    entailment: str = "The text says so:"
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
    """What models write where a task has no input, in any case, without accents and marks."""

    @property
    def few_shot_stop(self) -> tuple[str, ...]:
        """What ends a few-shot answer: the next task or the next example."""
        return f"\n{self.task}", f"\n{self.example} "

    def of_domain(self, domain: str | None) -> str:
        """The sentence that names a domain; empty where there is none."""
        return "" if domain is None else self.domain.replace("{domain}", domain)

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
        """Whether the text only says that there is no input, be it twice or by a dash."""
        dash = regex.fullmatch(r"\s*[-–—]+\s*", text)
        return bool(dash or _any_of(self.no_input).fullmatch(_plain(text)))


@functools.cache
def _any_of(phrases: tuple[str, ...]) -> regex.Pattern[str]:
    """Matches one or more of the phrases: "None (no input needed)" is two."""
    known = "|".join(plain for said in phrases if (plain := _plain(said)))
    return regex.compile(rf"(?:(?:{known})(?: |$))+" if known else r"(?!)")


def _plain(text: str) -> str:
    """The words of a text, in lower case and without accents, parted by single blanks."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(regex.findall(r"[\p{L}\p{N}]+", regex.sub(r"[\p{M}\p{Cf}]", "", folded)))


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
