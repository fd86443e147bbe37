"""A pack: all that is language or domain in what a model is shown, and in what is filtered.

A pack is a folder: ``pack.yaml`` holds the wording, what the filters must know, how answers are
asked for and how the judge says its verdict; ``judge_pairwise.txt`` and ``judge_grade.txt`` ask
the judge; and three JSONL files hold the demonstrations for classification
(``classification.jsonl``), input-first (``input_first.jsonl``) and output-first
(``output_first.jsonl``) prompts, all in the seed schema. A fourth, ``passages.jsonl``, is wanted
where own texts are asked about: in a task without input the output is the passage that the
instruction asks for, in one with input the output stands in the input word for word. So is a fifth,
``reasoned.jsonl``, where the writer is to reason: its outputs hold the reasoning, and the answer
after the label ``answer`` on a line of its own. A sixth, ``entailment.jsonl``, shows the writer
what a passage says and what it does not: two answers to a question about it, the first right, in
other words than those of the passage, the second wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from selfinstruct_train.errors import ConfigError, DataError
from selfinstruct_train.packs.operations import Operations, read_operations
from selfinstruct_train.packs.parts import AnswerFormat, JudgeMarks, Rules, Wording
from selfinstruct_train.records import SeedTask
from selfinstruct_train.sources.fetch import find_own
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.text.yaml_text import OwnWordsLoader, WordsLoader, read_yaml

BUILT_IN = Path(__file__).parent
_CHAT_ALONE = {"chat_instructions", "chat_more", "system"}
"""Parts of the wording that stand in chat requests alone."""
_OF_PASSAGES = {"passage_header", "question_header", "passage", "question", "answer"}
"""Parts of the wording that stand in prompts about passages, beside ``task`` and ``gap``."""
_NOT_IN_PROMPTS = {
    *_OF_PASSAGES,
    *("input_variants", "output_variants", "label_variants", "no_input"),
    *("arbiter_header", "arbiter", "entailment_header", "entailment"),
    # Rows say which of these stood in their prompt, and how it was worded.
    *("attributes", "attribute", "attribute_gap", "persona"),
    # Labels are asked for apart.
    *("category_header", "category", "task_type_header", "task_type"),
    # Where it is used, it stands in the headers.
    "domain",
}
"""Parts of the wording that stand in no prompt of steps 1 to 3, and so do not bear on their
hash."""


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
    entailment: tuple[SeedTask, ...] = ()
    """Questions about a passage, each with an answer that it holds and one that it does not; none
    in a pack without ``entailment.jsonl``."""

    @property
    def demonstrations(self) -> tuple[SeedTask, ...]:
        """All of them, of whatever prompt."""
        shown = *self.classification, *self.input_first, *self.output_first
        return *shown, *self.passages, *self.reasoned, *self.entailment

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
    loader = OwnWordsLoader if path.is_relative_to(BUILT_IN) else WordsLoader
    try:
        return PackFile.model_validate(read_yaml(path, loader))
    except ValidationError as error:
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
    passages, reasoned, entailment = (
        read_seed_tasks(path) if (path := folder / f"{name}.jsonl").is_file() else ()
        for name in ("passages", "reasoned", "entailment")
    )
    return Pack(
        file.wording,
        file.rules,
        _answers(file),
        classification,
        input_first,
        output_first,
        read_operations(folder),
        passages,
        reasoned,
        entailment,
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
