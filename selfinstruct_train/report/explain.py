"""Where a row comes from: back over what was shown in its prompt, to the seed tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.errors import RunError
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import (
    Classified,
    GeneratedInstance,
    Instruction,
    Labelled,
    LeftOutRow,
    Provenance,
    Rejection,
    Row,
    RowScores,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.report.wording import left_out_words
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import Pruned
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.sources.seeds import read_seeds

RowT = TypeVar("RowT", bound=Row)

_SHORT = 100
_STAGES: tuple[Literal["instructions"], Literal["instances"]] = ("instructions", "instances")


class _Written(NamedTuple):
    """All that a run has of what its model wrote, pruned or not, by id."""

    rounds: list[RoundDirectory]
    instructions: dict[str, Instruction]
    instances: dict[str, GeneratedInstance]
    classified: dict[str, Classified]
    labelled: dict[str, Labelled]
    rejections: list[Rejection]
    shown: dict[str, SeedTask]
    """Seed tasks, and the pack's demonstrations."""
    pruned: dict[str, Pruned]
    scores: dict[str, RowScores]
    left_out: dict[str, LeftOutRow]
    threshold: str


def explain(run: RunDirectory, row_id: str) -> tuple[str, ...]:
    """Tell the story of a row: who wrote it, from what, what filters saw, what it trained.

    Args:
        run: where it was written.
        row_id: of an instruction, an instance, a seed task, or a request to the engine, which
            tells what came of everything that the request wrote.

    Returns:
        Lines for a terminal, which may hold any character that a model wrote.

    Raises:
        RunError: the folder is not a run, or has no such row.
        DataError: seeds or rows cannot be read.
    """
    written = _read(run)
    if row_id in written.instances:
        return tuple(_of_instance(written, written.instances[row_id]))
    if row_id in written.instructions:
        return tuple(_of_instruction(written, written.instructions[row_id], set()))
    if (task := written.shown.get(row_id.partition("#")[0])) is not None:
        return tuple(_of_shown(written, task))
    if found := list(_of_request(written, row_id)):
        return tuple(found)
    some = next(iter([*written.instances, *written.instructions, *written.shown]))
    raise RunError(
        f"{run.path}: no instruction, instance, seed task or request has the id '{row_id}'; ids "
        f"stand in round-N/instances.jsonl and round-N/rejected/, for example '{some}'"
    )


def request_results(run: RunDirectory, request: str) -> tuple[str, ...]:
    """What became of what a request wrote: rows that were kept, and dropped ones with reasons."""
    written = _read(run)
    kept = [row for row in _kept(written) if row.provenance.request == request]
    dropped = [
        row for row in written.rejections if row.provenance and row.provenance.request == request
    ]
    return (
        *(f"kept: {row.id}: {_short(row.instruction)}" for row in kept),
        *map(_dropped, dropped),
    )


def _read(run: RunDirectory) -> _Written:
    config, rounds = run.config(), run.rounds()
    pack = load_pack(config.generation.prompts)
    tasks = [
        *read_seeds(config.seeds.path, config.seeds.id_from),
        *pack.demonstrations,
    ]
    return _Written(
        rounds,
        {row.id: row for d in rounds for row in _rows(d.instructions, Instruction)},
        {row.id: row for d in rounds for row in _rows(d.instances, GeneratedInstance)},
        {row.id: row for d in rounds for row in _rows(d.classified, Classified)},
        {row.id: row for d in rounds for row in _rows(d.labels, Labelled)},
        [row for d in rounds for stage in _STAGES for row in _rows(d.rejected(stage), Rejection)],
        {task.id: task for task in tasks},
        {row.id: row for row in _rows(run.pruned, Pruned)},
        {row.id: row for d in rounds for row in _rows(d.scores, RowScores)},
        {row.id: row for d in rounds for row in _rows(d.selection, LeftOutRow)},
        str(config.generation.filters.novelty_threshold),
    )


def _of_instance(written: _Written, row: GeneratedInstance) -> Iterator[str]:
    yield f"{row.id}: an instance of {row.instruction_id}, round {row.provenance.round}"
    yield from _indented(
        f"instruction  {row.instruction}",
        f"input        {row.input}",
        f"output       {row.output}",
        *_wrote(written, row.provenance),
        *_fate(written, row.id, row.instruction_id),
        *_selected(written, row.id),
        *_trained(written, row.id),
        *_demonstrations(written, row.provenance, set()),
    )
    instruction = written.instructions.get(row.instruction_id)
    if instruction is not None:
        yield from _indented(*_of_instruction(written, instruction, set()))


def _of_instruction(written: _Written, row: Instruction, told: set[str]) -> Iterator[str]:
    told.add(row.id)
    yield f"{row.id}: an instruction, round {row.provenance.round}"
    found = [row.instruction, *_wrote(written, row.provenance)]
    for name, near in (("nearest before it", row.nearest), ("nearest seed", row.nearest_seed)):
        if near is not None:
            found.append(
                f"{name}: {near.id}, ROUGE-L {near.score:.2f} (new up to {written.threshold}): "
                f"{_short(near.instruction)}"
            )
    if (kind := written.classified.get(row.id)) is not None:
        answer = "a classification task" if kind.is_classification else "no classification task"
        found.append(
            f"{answer} (log-probability of Yes {kind.logprob_yes:.2f}, of No {kind.logprob_no:.2f})"
        )
    found += _labels(written, row)
    kept = [i.id for i in written.instances.values() if i.instruction_id == row.id]
    found.append(f"instances: {', '.join(kept) or 'none'}")
    found += [_dropped(r) for r in written.rejections if r.instruction_id == row.id]
    found += _fate(written, row.id)
    yield from _indented(*found, *_demonstrations(written, row.provenance, told))


def _labels(written: _Written, row: Instruction) -> Iterator[str]:
    shown = [("category", row.category), ("task type", row.task_type)]
    if told := [f"{name} {value}" for name, value in shown if value]:
        yield f"by most of what its prompt showed: {', '.join(told)}"
    if (own := written.labelled.get(row.id)) is not None:
        asked = [
            ("category", own.category, own.category_margin),
            ("task type", own.task_type, own.task_type_margin),
        ]
        told = [f"{name} {value} (margin {margin:.2f})" for name, value, margin in asked if value]
        yield f"by the model itself: {', '.join(told)}"


def _of_shown(written: _Written, task: SeedTask) -> Iterator[str]:
    yield f"{task.id}: a task that a person wrote"
    uses = [row.id for row in _kept(written) if task.id in row.provenance.demonstrations]
    ids = [f"{task.id}#{number}" for number in range(len(task.instances))]
    yield from _indented(
        task.instruction,
        *(f"{one.input} -> {one.output}" for one in task.instances),
        f"shown in the prompts of {len(uses)} rows that were kept: {_list(uses)}",
        *_trained(written, *ids),
    )


def _of_request(written: _Written, request: str) -> Iterator[str]:
    kept = [row for row in _kept(written) if row.provenance.request == request]
    dropped = [
        row for row in written.rejections if row.provenance and row.provenance.request == request
    ]
    if not kept and not dropped:
        return
    wrote = kept[0].provenance if kept else dropped[0].provenance
    yield f"{request}: a request"
    if wrote is not None:
        yield from _indented(*_wrote(written, wrote))
    for directory in written.rounds:
        for stage in (*_STAGES, "passages"):
            for completion in _rows(directory.completions(stage), StoredCompletion):
                if completion.id == request:
                    yield from _indented(
                        f"wrote {completion.completion_tokens} tokens, ended by "
                        f"{completion.finish_reason}:",
                        *_indented(*completion.text.split("\n")),
                    )
    yield from _indented(*(f"kept: {row.id}: {_short(row.instruction)}" for row in kept))
    yield from _indented(*(_dropped(row) for row in dropped))


def _kept(written: _Written) -> list[Instruction | GeneratedInstance]:
    return [*written.instructions.values(), *written.instances.values()]


def _wrote(written: _Written, wrote: Provenance) -> Iterator[str]:
    drawn = wrote.sampling
    if wrote.passage is not None:
        yield f"for a passage of your texts: {wrote.passage.words}"
    if wrote.entailment is not None:
        yield f"which says what the answer says, the writer holds: margin {wrote.entailment:+.2f}"
    others = sum(
        row.provenance is not None and row.provenance.request == wrote.request
        for row in written.rejections
    )
    yield (
        f"written by {wrote.adapter or 'the base'} ({wrote.model}), request {wrote.request}, of "
        f"which {others} rows were dropped"
    )
    yield (
        f"temperature {drawn.temperature:g}, top_p {drawn.top_p:g}, top_k {drawn.top_k}, "
        f"repetition penalty {drawn.repetition_penalty:g}, at most {drawn.max_tokens} tokens, seed "
        f"{drawn.seed}, prompt {wrote.prompt_hash}"
    )
    yield from _steered(wrote)


def _steered(wrote: Provenance) -> Iterator[str]:
    if wrote.operation is not None:
        yield f"made of the task below by the operation '{wrote.operation}'"
    if wrote.attributes:
        drawn = "; ".join(f"{one.name}: {one.value}" for one in wrote.attributes)
        yield f"drawn for its request: {drawn}"


def _fate(written: _Written, *ids: str) -> Iterator[str]:
    for pruned in (written.pruned[i] for i in ids if i in written.pruned):
        yield f"pruned{f': {pruned.reason}' if pruned.reason else ''}"


def _selected(written: _Written, row_id: str) -> Iterator[str]:
    """Scores of an instance, and why the selection left it out, if it did."""
    if (scored := written.scores.get(row_id)) is not None:
        found = scored.model_dump(exclude={"id"}, exclude_none=True)
        yield f"scores: {', '.join(f'{name} {value:g}' for name, value in found.items()) or 'none'}"
    if (left_out := written.left_out.get(row_id)) is not None:
        yield left_out_words(left_out)


def _trained(written: _Written, *ids: str) -> Iterator[str]:
    found = []
    for number, directory in enumerate(written.rounds):
        for name, training in directory.trainings().items():
            given = _rows(training.dataset / "train.jsonl", TrainingRow)
            if any(row.id in ids for row in given):
                found.append(f"round {number}, training {name}")
            for row in _rows(training.contamination, Rejection):
                if any(f" row {row_id} against" in row.evidence for row_id in ids):
                    yield row.evidence
    yield f"trained on in: {'; '.join(found) or 'none'}"


def _demonstrations(written: _Written, wrote: Provenance, told: set[str]) -> Iterator[str]:
    yield "shown in its prompt:"
    for name in wrote.demonstrations:
        parent = written.instructions.get(name)
        if parent is not None and name not in told:
            yield from _indented(*_of_instruction(written, parent, told))
        else:
            task = written.shown.get(name)
            text = parent.instruction if parent else task.instruction if task else "not here now"
            yield f"  {name}: {_short(text)}{' (told above)' if name in told else ''}"


def _dropped(row: Rejection) -> str:
    given = f", {_short(row.input)!r} -> {_short(row.output)!r}" if row.output else ""
    near = f" (nearest {row.nearest.id}, {row.nearest.score:.2f})" if row.nearest else ""
    return f"dropped: {row.reason}: {row.evidence}{near}: {_short(row.instruction)}{given}"


def _rows(path: Path, row_type: type[RowT]) -> Iterator[RowT]:
    return RowStore(path, row_type, writable=False).stream()


def _indented(*lines: str) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def _list(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "none"
