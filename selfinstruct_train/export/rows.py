"""The data of a run as the rows that others train on, and the files that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.contamination.check import Contamination, check
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.packs.parts import AnswerFormat
from selfinstruct_train.records import (
    GeneratedInstance,
    Instruction,
    Labelled,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.sources.lenient import read_own
from selfinstruct_train.sources.seeds import read_seeds, split_seeds
from selfinstruct_train.templates import choose_variant, completion_text, encode, user_message
from selfinstruct_train.training.dataset import seed_row_id, training_rows
from selfinstruct_train.training.mix import mix_rows, own_training_rows, too_many_short

DataFormat = Literal["sft", "alpaca", "messages", "sharegpt", "parquet"]


class RowLabels(NamedTuple):
    """What a row is about, and what kind of work it is; None where nothing says so."""

    category: str | None
    task_type: str | None


class DataRows(NamedTuple):
    """The rows of a run, ready to be given away."""

    config: Config
    rows: tuple[TrainingRow, ...]
    """What a training on all rounds is given: seeds and live rows, less what resembles a suite."""
    generated: dict[str, GeneratedInstance]
    """By id: where the machine-written ones come from."""
    instructions: dict[str, Instruction]
    """By id: what their instructions were drawn for."""
    labels: dict[str, RowLabels]
    """By id of the row: of a seed its own, of a machine-written row those of its instruction, or
    where that has none the model's own. Rows that have neither are not in it."""
    contamination: Contamination


class Split(NamedTuple):
    """Rows to train on, and rows held out."""

    train: tuple[TrainingRow, ...]
    test: tuple[TrainingRow, ...]


def read_data(run: RunDirectory) -> DataRows:
    """The rows of a run as its next training would be given them.

    Raises:
        RunError: the folder is not a run, or no model has written an instance yet.
        DataError: seeds, suites or rows cannot be read.
    """
    config = run.config()
    live, rounds = LiveRows(run), len(run.rounds())
    instances = list(live.instances(rounds))
    if config.generates and not instances:
        raise RunError(
            f"{run.path}: no row is finished that could be exported; go on with "
            f"'selfinstruct generate {run.config_file}'"
        )
    known = read_seeds(config.seeds.path, config.seeds.id_from)
    seeds = split_seeds(known, config.seeds.hold_out, config.seed).kept
    pack = load_pack(config.generation.prompts)
    own = own_training_rows(read_own(config.data), pack.answers) if config.data else []
    found = training_rows(seeds, lambda: instances, config.training.include_seeds, own)
    mixed = mix_rows(list(found), config.training.mix, config.seed)
    too_many = too_many_short(mixed, config.training.short_answers, config.seed)
    rows = [row for place, row in enumerate(mixed) if place not in too_many]
    suites = [load_suite(name) for name in config.evaluation.suites]
    contamination = check(
        rows,
        seeds,
        pack.demonstrations,
        [SuiteTasks(suite.name, suite.tasks) for suite in suites],
        config.evaluation.contamination,
        pack.rules.tokenizer_choice(config.generation.filters.tokenizer),
    )
    kept = tuple(row for place, row in enumerate(rows) if place not in contamination.left_out)
    generated = {row.id: row for row in instances}
    instructions = {row.id: row for row in live.instructions(rounds)}
    labels = _labels(run, seeds, instances, instructions)
    return DataRows(config, kept, generated, instructions, labels, contamination)


def split_rows(rows: Sequence[TrainingRow], share: float, seed: int) -> Split:
    """Hold out a share of the instructions, each with all its instances.

    So no instruction is trained on with one input and tested with another.

    Args:
        rows: all rows.
        share: of the instructions, 0 to 1; at least one is held out where it is above 0.
        seed: chooses them; the same seed and instructions give the same split.
    """

    def rank(instruction: str) -> str:
        return hashlib.sha256(f"{seed}:{instruction}".encode()).hexdigest()

    instructions = sorted({row.instruction for row in rows}, key=rank)
    count = max(1, round(share * len(instructions))) if share else 0
    held_out = set(instructions[:count])
    return Split(
        tuple(row for row in rows if row.instruction not in held_out),
        tuple(row for row in rows if row.instruction in held_out),
    )


def write_rows(
    path: Path,
    rows: Iterable[TrainingRow],
    format: DataFormat,
    data: DataRows,
    answers: AnswerFormat,
) -> Path:
    """Write rows to a file of a format: JSON lines, or Parquet with where each row comes from.

    Args:
        path: without a suffix.
        rows: what to write.
        format: the columns, as the trainers that take them know them.
        data: what the rows are of.
        answers: the pack's templates, for ``sft``.

    Returns:
        The file.
    """
    if format == "parquet":
        return _write_parquet(path.with_suffix(".parquet"), rows, data)
    shape = _shape(format, data.config, answers)
    target, columns = path.with_suffix(".jsonl"), label_columns(data)
    with target.open("w", encoding="utf-8") as file:
        for row in rows:
            labels = data.labels.get(row.id)
            # A column is in every row, or readers differ in what they make of it.
            beside = {name: getattr(labels, name, None) for name in columns}
            file.write(json.dumps(shape(row) | beside, ensure_ascii=False) + "\n")
    return target


def _labels(
    run: RunDirectory,
    seeds: Sequence[SeedTask],
    instances: Sequence[GeneratedInstance],
    instructions: Mapping[str, Instruction],
) -> dict[str, RowLabels]:
    said = {
        row.id: row
        for directory in run.rounds()
        for row in RowStore(directory.labels, Labelled, writable=False).stream()
    }
    found = {
        seed_row_id(task, number): RowLabels(task.category, task.task_type)
        for task in seeds
        for number in range(len(task.instances))
    }
    for row in instances:
        own, by_model = instructions[row.instruction_id], said.get(row.instruction_id)
        found[row.id] = RowLabels(
            own.category or (by_model.category if by_model else None),
            own.task_type or (by_model.task_type if by_model else None),
        )
    return {row_id: labels for row_id, labels in found.items() if any(labels)}


def label_columns(data: DataRows) -> list[str]:
    """Which of ``category`` and ``task_type`` any row of the data has."""
    labels = data.labels.values()
    return [name for name in RowLabels._fields if any(getattr(one, name) for one in labels)]


def _shape(
    format: DataFormat, config: Config, answers: AnswerFormat
) -> Callable[[TrainingRow], dict[str, Any]]:
    def sft(row: TrainingRow) -> dict[str, Any]:
        template = config.training.template
        if template == "chat":
            # The trainer has the model's own chat template.
            return {"prompt": [_user(row)], "completion": [_assistant(row)]}
        variant = choose_variant(config.seed, row.id, answers)
        prompt = encode(template, row.instruction, row.input, answers, variant=variant)
        return {"prompt": prompt, "completion": completion_text(row.output, answers, template)}

    def alpaca(row: TrainingRow) -> dict[str, Any]:
        return {"instruction": row.instruction, "input": row.input, "output": row.output}

    def messages(row: TrainingRow) -> dict[str, Any]:
        return {"messages": [_user(row), _assistant(row)]}

    def sharegpt(row: TrainingRow) -> dict[str, Any]:
        asked = {"from": "human", "value": user_message(row.instruction, row.input)}
        return {"conversations": [asked, {"from": "gpt", "value": row.output}]}

    match format:
        case "sft":
            return sft
        case "alpaca":
            return alpaca
        case "messages":
            return messages
        case _:
            return sharegpt


def _user(row: TrainingRow) -> dict[str, str]:
    return {"role": "user", "content": user_message(row.instruction, row.input)}


def _assistant(row: TrainingRow) -> dict[str, str]:
    return {"role": "assistant", "content": row.output}


def _write_parquet(path: Path, rows: Iterable[TrainingRow], data: DataRows) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [(name, text) for name in ("id", "source", "instruction", "input", "output")]
        + [("is_classification", pa.bool_()), ("round", pa.int32())]
        + [(name, text) for name in ("instruction_id", "model", "adapter", "prompt_hash")]
        + [("temperature", pa.float64()), ("demonstrations", pa.list_(text)), ("passage", text)]
        + [(name, text) for name in ("operation", "category", "task_type")]
        + [("attributes", pa.list_(text))]
    )
    found = [
        row.model_dump()
        | _origin(data, row.id)
        | (labels._asdict() if (labels := data.labels.get(row.id)) else {})
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(found, schema), path, compression="zstd")
    return path


def _origin(data: DataRows, row_id: str) -> dict[str, Any]:
    row = data.generated.get(row_id)
    if row is None:
        return {}
    wrote = row.provenance
    return {
        "round": wrote.round,
        "instruction_id": row.instruction_id,
        "model": wrote.model,
        "adapter": wrote.adapter,
        "prompt_hash": wrote.prompt_hash,
        "temperature": wrote.sampling.temperature,
        "demonstrations": list(wrote.demonstrations),
        "passage": wrote.passage.words if wrote.passage else None,
    } | _steered(data.instructions.get(row.instruction_id))


def _steered(instruction: Instruction | None) -> dict[str, Any]:
    if instruction is None:
        return {}
    return {
        "operation": instruction.provenance.operation,
        "attributes": [f"{one.name}: {one.value}" for one in instruction.provenance.attributes],
    }
