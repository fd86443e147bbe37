"""Does a pack work? Its texts against its own rules, then a whole rehearsal without a model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.config import FilterConfig, JudgeConfig
from selfinstruct_train.config.generation import PassageTask
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.evaluation.metrics import exact_match, rouge_l
from selfinstruct_train.generation.entailment import entailment_faults
from selfinstruct_train.generation.filters import InstructionFilter, check_instances
from selfinstruct_train.generation.passage_prompts import passage_prompt, read_passage
from selfinstruct_train.generation.prompting import (
    input_first_prompt,
    one_line,
    output_first_prompt,
)
from selfinstruct_train.generation.reading import read_input_first, read_output_first
from selfinstruct_train.judging.ask import load_judge_prompts, read_choice, read_level
from selfinstruct_train.packs.language import language_test
from selfinstruct_train.packs.pack import (
    Pack,
    load_pack,
    load_pack_file,
    pack_folder,
    require_demonstrations,
)
from selfinstruct_train.packs.parts import AnswerFormat, JudgeMarks
from selfinstruct_train.records import Instance, SeedTask
from selfinstruct_train.rounds.rehearsal import rehearse
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks
from selfinstruct_train.templates import cut_at_new_example
from selfinstruct_train.text.novelty import NoveltyIndex
from selfinstruct_train.text.words import choose_tokenizer

_LEAST = {"classification": 12, "input_first": 4, "output_first": 4}
"""Demonstrations below which small models answer visibly worse."""
_FILTERS = FilterConfig()


class PackReport(NamedTuple):
    """What the check of a sound pack found."""

    summary: str
    advice: tuple[str, ...]
    """What would make it better; nothing that stops a run."""


def check_pack(name_or_path: str) -> PackReport:
    """Check a pack as its author wants it checked: all faults at once.

    Raises:
        ConfigError: the pack does not exist, is malformed, or contradicts itself.
        DataError: one of its demonstration files is malformed.
    """
    pack, folder = load_pack(name_or_path), pack_folder(name_or_path)
    require_demonstrations(pack, str(folder))
    read_seed_tasks(resolve(pack.rules.everyday_seeds))
    faults = [*_label_faults(pack)]
    # With labels that cannot be told apart nothing reads back.
    faults += [] if faults else [*_demonstration_faults(pack), *_reading_faults(pack)]
    faults += _operation_faults(pack)
    faults += [*_passage_faults(pack), *entailment_faults(pack)]
    faults += _answer_faults(pack.answers, pack.input_first)
    faults += _judge_faults(name_or_path)
    kept = ""
    if not faults:
        with tempfile.TemporaryDirectory() as scratch:
            played = rehearse(name_or_path, pack, Path(scratch))
        kept, faults = played.summary, list(played.faults)
    if faults:
        listed = "".join(f"\n- {fault}" for fault in faults)
        count = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise ConfigError(f"{folder}: {count} wrong:{listed}")
    counts = ", ".join(f"{len(tasks)} for {name}" for name, tasks in _groups(pack))
    return PackReport(f"{folder}: in order. Demonstrations: {counts}. {kept}", tuple(_advice(pack)))


def _groups(pack: Pack) -> tuple[tuple[str, tuple[SeedTask, ...]], ...]:
    return (
        ("classification", pack.classification),
        ("input_first", pack.input_first),
        ("output_first", pack.output_first),
    )


def _label_faults(pack: Pack) -> Iterator[str]:
    wording = pack.wording
    labels = {
        name: getattr(wording, name).strip()
        for name in (
            *("task", "example", "input", "output", "label", "classification"),
            *("passage", "question", "answer", "entailment"),
        )
    }
    for name, label in labels.items():
        same = [other for other, text in labels.items() if text == label and other > name]
        if same:
            yield f"pack.yaml: wording.{name} and wording.{same[0]} are the same; tell them apart"
        if name != "example" and label[-1:] not in (":", "："):
            yield f"pack.yaml: wording.{name} must end in its colon, ':' or '：' (now '{label}')"
    if wording.yes.casefold() == wording.no.casefold():
        yield "pack.yaml: wording.yes and wording.no are the same; step 2 compares them"
    for said in wording.no_input:
        if not wording.means_no_input(said):
            yield f"pack.yaml: wording.no_input: '{said}' is never read; it holds no word"


def _demonstration_faults(pack: Pack) -> Iterator[str]:
    screen, language = InstructionFilter(_FILTERS, pack.rules), language_test(pack.rules.language)
    for name, tasks in _groups(pack):
        for task in tasks:
            where = f"{name}.jsonl: '{task.id}'"
            if fault := screen.fault(task.instruction):
                what = f"{fault.reason}: {fault.evidence}"
                yield f"{where}: its own rules drop the instruction ({what})"
            wanted = name == "output_first"
            if name != "classification" and task.is_classification != wanted:
                yield f"{where}: is_classification must be {str(wanted).lower()} here"
            if name == "classification":
                continue
            for row in check_instances(
                task.instruction,
                task.instances,
                task.is_classification,
                len(task.instances),
                _FILTERS.max_repeats,
                pack.wording,
                language,
            ):
                if row.fault:
                    yield (
                        f"{where}: its own rules drop an instance ({row.fault.reason}: "
                        f"{row.fault.evidence})"
                    )
        yield from _near_duplicates(pack, name, tasks)


def _operation_faults(pack: Pack) -> Iterator[str]:
    screen = InstructionFilter(_FILTERS, pack.rules)
    for name, operation in pack.operations.items():
        if operation.label[-1:] not in (":", "："):
            yield f"operations.yaml: {name}: label must end in its colon, ':' or '：'"
        for text in (text for one in operation.examples for text in (one.task, one.result)):
            if fault := screen.fault(text):
                what = f"{fault.reason}: {fault.evidence}"
                yield f"operations.yaml: {name}: its own rules drop {text[:60]!r} ({what})"


def _near_duplicates(pack: Pack, name: str, tasks: Sequence[SeedTask]) -> Iterator[str]:
    texts = [task.instruction for task in tasks]
    tokenizer = choose_tokenizer(pack.rules.tokenizer_choice("auto"), texts)
    index = NoveltyIndex(threshold=pack.rules.novelty_threshold, tokenizer=tokenizer)
    for row in index.admit([(task.id, task.instruction) for task in tasks]):
        if not row.accepted:
            yield (
                f"{name}.jsonl: '{row.id}' nearly says what '{row.nearest_id}' says (ROUGE-L "
                f"{row.score:.2f}); replace one"
            )


def _reading_faults(pack: Pack) -> Iterator[str]:
    """Demonstrations that do not read back as they stand in a prompt."""
    wording = pack.wording
    for task in pack.input_first:
        shown = input_first_prompt(wording, [task], "").demonstrations[0]
        found = read_input_first(wording, shown.partition(f"{wording.example} 1")[2], False)
        yield from _differences("input_first", task, found)
    for task in pack.output_first:
        shown = output_first_prompt(wording, [task], "").demonstrations[0]
        found = read_output_first(wording, shown.partition(wording.label)[2], False)
        yield from _differences("output_first", task, found)


def _differences(name: str, task: SeedTask, found: Sequence[Instance]) -> Iterator[str]:
    if list(found) != list(task.instances):
        yield (
            f"{name}.jsonl: '{task.id}' does not read back as it is shown: a label or a list of "
            "its own stands in it; rephrase it"
        )


def _passage_faults(pack: Pack) -> Iterator[str]:
    """Demonstrations for own texts whose answers do not read back as they are shown."""
    for task in pack.passages:
        one = task.instances[0]
        about: PassageTask = "question" if one.input else "instruction"
        passage = one.input or one.output
        prompt = passage_prompt(about, pack.wording, [task], "-", None)
        shown = "".join(prompt.demonstrations[0])
        label = pack.wording.question if one.input else pack.wording.task
        reply = shown.rpartition(f"\n{label}")[2]
        found = read_passage(about, pack.wording, reply, passage, False)
        if not found.grounded:
            yield f"passages.jsonl: the output of '{task.id}' does not stand in its input"
        elif (found.instruction, found.instance) != (one_line(task.instruction), one):
            yield (
                f"passages.jsonl: '{task.id}' does not read back as it is shown: a label stands in "
                "it; rephrase it"
            )


def _answer_faults(answers: AnswerFormat, tasks: Sequence[SeedTask]) -> Iterator[str]:
    outputs = [instance.output for task in tasks for instance in task.instances]
    for output in outputs:
        if cut_at_new_example(output, answers) != output:
            yield f"answers.new_example_labels cut a demonstration's own answer: {output[:60]!r}"
        score = rouge_l(output, output)
        if score != 100.0 or not exact_match(output, output):
            yield f"the answer {output[:60]!r} cannot be scored: it has no letter and no digit"
    for label in answers.new_example_labels:
        if label.rstrip(" :：") != label:
            yield f"answers.new_example_labels: '{label}' is never found; leave out its colon"


def _judge_faults(name_or_path: str) -> Iterator[str]:
    marks: JudgeMarks = load_pack_file(name_or_path).judge
    prompts = load_judge_prompts(JudgeConfig(), name_or_path)
    said = (marks.first, "first"), (marks.second, "second"), (marks.tie, "tie")
    for mark, meaning in said:
        if read_choice(f"{marks.verdict} {mark}", marks) != meaning:
            yield f"judge: the verdict '{marks.verdict} {mark}' is not read; choose other marks"
        if mark not in prompts.pairwise:
            yield f"judge_pairwise.txt: does not tell the judge that it may say '{mark}'"
    for mark, level in zip(marks.levels, "ABCD", strict=True):
        if read_level(f"{marks.grade} {mark}", marks) != level:
            yield f"judge: the grade '{marks.grade} {mark}' is not read; choose other marks"
        if mark not in prompts.grade:
            yield f"judge_grade.txt: does not tell the judge that it may say '{mark}'"


def _advice(pack: Pack) -> Iterator[str]:
    for name, tasks in _groups(pack):
        if len(tasks) < (least := _LEAST[name]):
            yield f"{name}.jsonl holds {len(tasks)} demonstrations; {least} or more serve better"
    if not any(len(task.instances) > 1 for task in pack.input_first):
        yield "input_first.jsonl: no task has two instances, so models will write one"
    if all(instance.input for task in pack.input_first for instance in task.instances):
        yield "input_first.jsonl: every task has an input, so models will always write one"
    if pack.rules.language is None:
        yield "rules.language is not set: rows in other languages are kept"
