"""A round of generation in a pack's language without a model, with text that wants to break it.

The pack's demonstrations are the material: half of the tasks of step 2 are the seeds, the other
half is what the scripted model writes, in every dress that models give to numbers and labels, and
between them stand rows that the filters must drop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.packs.language import language_test
from selfinstruct_train.packs.pack import Pack
from selfinstruct_train.packs.parts import Wording
from selfinstruct_train.records import GeneratedInstance, Instance, Instruction, Rejection, SeedTask
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.text.words import split_words

_SHOWN, _ITEMS = 4, 8
_NUMBERS = ("{}.", "**{}.**", "{})", "{}:", "# {}.", "{}：", "{}、", "（{}）")
_DRESSES: tuple[Callable[[str], str], ...] = (
    lambda label: label,
    lambda label: f"**{label}**",
    lambda label: f"### {label}\n",
    lambda label: label.upper(),
    lambda label: label.rstrip(":：") + "：",
    lambda label: label.rstrip(":：") + " 1: ",
    lambda label: f"- {label}",
)
_FOREIGN = (
    "Write a letter to the mayor about the state of the roads in our town.",
    "请给市长写一封信，谈谈我们镇上道路的状况，并提出三条建议。",
    "Напишите мэру письмо о состоянии дорог в нашем городе и предложите три меры.",
    "اكتب رسالة إلى رئيس البلدية عن حالة الطرق في مدينتنا واقترح ثلاثة حلول",
    "우리 마을의 도로 상태에 대해 시장에게 편지를 쓰고 세 가지를 제안하세요",
)
_UNSEEN = "\u202e\u200b"
"""Turns the writing direction, and stands without width."""


class Rehearsal(NamedTuple):
    """What became of the rows."""

    summary: str
    faults: tuple[str, ...]


class _Row(NamedTuple):
    """A row that is written, and what must become of it."""

    instruction: str
    instance: Instance | None
    reason: str | None
    """Of the filter that must drop it; None where it must be kept."""


class _Script:
    """Says what the rows need, whatever it is asked, once each and in order."""

    def __init__(self, pack: Pack, tasks: Sequence[SeedTask], rows: Sequence[_Row]) -> None:
        self._pack, self._rows = pack, rows
        self._labelled = {one_line(task.instruction): task.is_classification for task in tasks}
        self._items = iter([row.instruction for row in rows if row.instance is None])
        self._numbers, self._dresses = cycle(_NUMBERS), cycle(_DRESSES)

    def answer(self, request: Request, adapter: Path | None) -> ScriptedAnswer:
        """The next items of the list, or all instances of the task that is asked about."""
        if "-instructions-" in request.id:
            items = list(islice(self._items, _ITEMS))
            # The number of the first item stands in the prompt.
            numbers = ["", *islice(self._numbers, max(0, len(items) - 1))]
            listed = zip(numbers, items, strict=True) if items else ()
            lines = [f"{mark.format(_SHOWN + 1 + i)} {x}" for i, (mark, x) in enumerate(listed)]
            return ScriptedAnswer("\r\n".join(lines))
        task = self._asked(request.prompt)
        found = [row.instance for row in self._rows if row.instance and row.instruction == task]
        return ScriptedAnswer(self._instances(found, self._labelled[task]))

    def score(self, prompt: str, continuation: str) -> float:
        """Yes is likelier where the task is classification."""
        is_yes = continuation.strip() == self._pack.wording.yes
        task = self._asked(prompt)
        return float(self._labelled.get(task, False) == is_yes)

    def _asked(self, prompt: str) -> str:
        return prompt.rpartition(f"\n{self._pack.wording.task}")[2].split("\n")[0].strip()

    def _instances(self, found: Sequence[Instance], labels_first: bool) -> str:
        wording, dress = self._pack.wording, next(self._dresses)
        if labels_first:
            rows = [
                f"{wording.gap}{row.output}\n{dress(wording.input)}{wording.gap}{row.input}"
                for row in found
            ]
            return f"\n{dress(wording.label)}".join(rows)
        return "".join(
            ("" if number == 1 else f"\n{wording.example} {number}")
            + f"\n{dress(wording.input)}{wording.gap}{row.input}"
            + f"\n{dress(wording.output)}{wording.gap}{row.output}"
            for number, row in enumerate(found, 1)
        )


def rehearse(name_or_path: str, pack: Pack, folder: Path) -> Rehearsal:
    """Play a round of steps 1 to 4 with the scripted engine.

    Args:
        name_or_path: the pack as the config names it.
        pack: the same, loaded.
        folder: where the run is left.
    """
    seeds, written = pack.classification[::2], pack.classification[1::2]
    rows = [*_instructions(pack, seeds, written), *_instances(pack, written)]
    kept = sum(row.instance is None and row.reason is None for row in rows)
    config = Config.model_validate(
        {
            "model": {"name_or_path": "scripted"},
            "seeds": {"path": "demonstrations"},
            "evaluation": {"suites": ["none"]},
            "output_dir": folder / "run",
            "generation": {
                "prompts": name_or_path,
                "instructions_per_round": kept,
                "max_requests": 2 + len(rows) // _ITEMS,
                "saturation_floor": 0.0,
                "instructions": {
                    "seed_demonstrations": _SHOWN,
                    "machine_demonstrations": 0,
                    "requests_per_batch": 1,
                },
            },
        }
    )
    script = _Script(pack, pack.classification, rows)
    run = RunDirectory(config.output_dir)
    engine = ScriptedEngine(script.answer, script.score)
    generate_round(config, engine, run, 0, seeds, None, lambda i, g: i, lambda u: None)
    found = _outcomes(run.round(0))
    faults = tuple(_faults(rows, found))
    dropped = sum(row.reason is not None for row in rows)
    summary = (
        f"Rehearsal: {len(rows) - dropped} rows kept and {dropped} hostile ones dropped, each for "
        "its reason"
    )
    return Rehearsal(summary, faults)


def _instructions(
    pack: Pack, seeds: Sequence[SeedTask], written: Sequence[SeedTask]
) -> Iterator[_Row]:
    rules, good = pack.rules, written[0].instruction
    blank = " " if " " in good else ""
    last = split_words(good)[-1]
    hostile = [
        (seeds[0].instruction, "not_novel"),
        (f"!{good}", "leading_punctuation"),
        (split_words(good)[0], "too_short"),
        (f"{good}{blank}" + blank.join([last] * 12), "loop"),
        *((f"{good}{blank}{word}", "unsuitable_word") for word in rules.unsuitable_words[:1]),
        *((text, "foreign_language") for text in _foreign(pack)),
    ]
    for text, reason in hostile:
        yield _Row(one_line(text), None, reason)
    for task in written:
        yield _Row(one_line(task.instruction), None, None)


def _foreign(pack: Pack) -> Iterator[str]:
    """Samples that the pack's own rules have to tell apart from its language."""
    rules = pack.rules.language
    if rules is None:
        return
    knows_words, test = bool(rules.function_words), language_test(rules)
    assert test is not None
    for text in _FOREIGN:
        # Whether its script or its words must tell; a language of its own is not foreign to it.
        own_script = test.script_share(text) >= 0.5
        if not own_script or (knows_words and not test.has_function_words(text)):
            yield text


def _instances(pack: Pack, written: Sequence[SeedTask]) -> Iterator[_Row]:
    pairs = [i for task in pack.input_first for i in task.instances if "\n" not in i.output]
    with_input = [pair for pair in pairs if pair.input] or pairs
    labelled = pack.output_first[0].instances[:2]
    for number, task in enumerate(written):
        text = one_line(task.instruction)
        if task.is_classification:
            for instance in labelled:
                yield _Row(text, instance, None)
            continue
        good = with_input[number % len(with_input)]
        other = with_input[(number + 1) % len(with_input)]
        yield _Row(text, Instance(input=good.input, output=good.output + _UNSEEN), None)
        yield _Row(text, *_hostile(pack.wording, other, number))


def _hostile(wording: Wording, pair: Instance, number: int) -> tuple[Instance, str | None]:
    blank = " " if wording.gap else "。"
    words = split_words(pair.output)
    word = next((word for word in words if word.isalpha()), words[0])
    cases: list[tuple[str, str, str | None]] = [
        (pair.output, pair.output, "output_is_input"),
        (pair.input, f"{pair.output}{blank}{wording.output}{wording.gap}x", "leftover_label"),
        (pair.input, (" " if wording.gap else "").join([word] * 12), "loop"),
        (pair.input, f"{word}：", "ends_with_colon"),
        (pair.input, "", "empty_output"),
        *((f"（{said}）", pair.output, None) for said in wording.no_input[:1]),
    ]
    given, output, reason = cases[number % len(cases)]
    return Instance(input=given, output=output), reason


def _outcomes(directory: RoundDirectory) -> dict[tuple[str, str | None], str | None]:
    """(instruction, output or None) -> the reason of the drop, or None."""
    found: dict[tuple[str, str | None], str | None] = {}
    for row in directory.store(directory.rejected("instructions"), Rejection).read():
        found[row.instruction, None] = row.reason
    for kept in directory.store(directory.instructions, Instruction).read():
        found[kept.instruction, None] = None
    for row in directory.store(directory.rejected("instances"), Rejection).read():
        found[row.instruction, row.output] = row.reason
    for instance in directory.store(directory.instances, GeneratedInstance).read():
        found[instance.instruction, instance.output] = None
    return found


def _faults(rows: Sequence[_Row], found: dict[tuple[str, str | None], str | None]) -> Iterator[str]:
    for row in rows:
        key = row.instruction, row.instance.output.strip() if row.instance else None
        what = f"instruction {key[0][:60]!r}" + (f", output {key[1][:60]!r}" if key[1] else "")
        if key not in found:
            yield f"rehearsal: {what}: was written and not read; a label or number is not known"
        elif found[key] != row.reason and not _foreign_start(found[key], row.reason):
            got = found[key] or "kept"
            yield f"rehearsal: {what}: {got}, but must be {row.reason or 'kept'}"


def _foreign_start(got: str | None, wanted: str | None) -> bool:
    return got == "foreign_start" and wanted == "foreign_language"
