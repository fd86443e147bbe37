"""The card of a data set: what it is, how it was made, what it cannot do."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from huggingface_hub import DatasetCard, DatasetCardData, hf_hub_download

from selfinstruct_train.config import Config, ModelConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.export.folder import TAG
from selfinstruct_train.export.rows import (
    DataFormat,
    DataRows,
    RowLabels,
    Split,
    label_columns,
)
from selfinstruct_train.models.gguf import is_gguf, smollm2_file
from selfinstruct_train.models.source import model_source
from selfinstruct_train.packs.pack import BUILT_IN
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import count_rows
from selfinstruct_train.sources.registry import SOURCES
from selfinstruct_train.text.words import count_words

_HERE = Path(__file__).parent
_COLUMNS = {
    "sft": "`prompt` and `completion`, as TRL's SFTTrainer takes them",
    "alpaca": "`instruction`, `input`, `output`",
    "messages": "`messages`, each with `role` and `content`",
    "sharegpt": "`conversations`, each with `from` and `value`",
    "parquet": "instruction, input, output, and where each row comes from",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_MOST_LABELS = 20
"""Labels that the card counts one by one."""


class DataFigures(NamedTuple):
    """What a data set is made of; shares as ``12 of 40``, means over the rows."""

    rows: int
    train: int
    test: int
    instructions: int
    seed: int
    generated: int
    own: int
    classification: str
    with_input: str
    instruction_words: str
    input_words: str
    """Over the rows that have one."""
    output_words: str
    categories: str
    """Rows of each, most frequent first; empty where no row has one. So are the next."""
    task_types: str


def data_card(
    run: RunDirectory, data: DataRows, split: Split, format: DataFormat, licence: str | None
) -> DatasetCard:
    """The card of an exported data set.

    Args:
        run: where it was made.
        data: the rows, and what was left out of them.
        split: the rows as they are written.
        format: the columns.
        licence: what the user gives it out under; None leaves it unknown.
    """
    config = data.config
    card: DatasetCard = DatasetCard.from_template(
        _data_metadata(config, len(data.rows), split, format, licence),
        template_str=(_HERE / "data_card.md").read_text("utf-8"),
        title=f"{run.path.resolve().name}: instruction data",
        figures=data_figures(split, data.labels),
        columns=_columns(data, format),
        samples=_samples(split.train),
        model=f"`{public_name(config.model.name_or_path)}`",
        model_licence=model_licence(config.model) or "not known here; see its own card",
        seeds=_seeds(config),
        rounds="one round" if len(run.rounds()) == 1 else f"{len(run.rounds())} rounds",
        sampling=config.generation.instructions,
        pack=public_name(config.generation.prompts),
        novelty=config.generation.filters.novelty_threshold,
        dropped=_dropped(run),
        suites=", ".join(f"`{public_name(suite)}`" for suite in config.evaluation.suites),
        contamination=data.contamination.sentence,
        seed=config.seed,
    )
    return card


def data_figures(split: Split, labels: Mapping[str, RowLabels]) -> DataFigures:
    """Count what a data set is made of.

    Args:
        split: its rows.
        labels: of rows, by their ids.
    """
    rows = (*split.train, *split.test)
    inputs = [row.input for row in rows if row.input.strip()]
    return DataFigures(
        rows=len(rows),
        train=len(split.train),
        test=len(split.test),
        instructions=len({row.instruction for row in rows}),
        seed=sum(row.source == "seed" for row in rows),
        generated=sum(row.source == "generated" for row in rows),
        own=sum(row.source == "own" for row in rows),
        classification=f"{sum(row.is_classification for row in rows)} of {len(rows)}",
        with_input=f"{len(inputs)} of {len(rows)}",
        instruction_words=_mean_words([row.instruction for row in rows]),
        input_words=_mean_words(inputs),
        output_words=_mean_words([row.output for row in rows]),
        categories=_counted([one.category if (one := labels.get(r.id)) else None for r in rows]),
        task_types=_counted([one.task_type if (one := labels.get(r.id)) else None for r in rows]),
    )


def public_name(name: str) -> str:
    """A name as strangers may see it: of a path, the last part alone."""
    is_path = name.startswith((".", "/", "~")) or Path(name).exists() or name.count("/") > 1
    return Path(name).name if is_path else name


def model_licence(model: ModelConfig) -> str | None:
    """The licence that a model's own card or file names; None where nothing here does."""
    if is_gguf(model.name_or_path):
        return _gguf_licence(model.name_or_path)
    try:
        source = model_source(model)
        card = Path(source) / "README.md"
        if not Path(source).is_dir():
            card = Path(hf_hub_download(source, "README.md", revision=model.revision))
        text = card.read_text("utf-8")
    except Exception:  # no card, no Hub, no access: then nobody here knows the licence
        return None
    found = re.search(r"^licen[cs]e:\s*(\S+)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return found[1].strip("\"'") if found else None


def language_of(config: Config) -> str | None:
    """The language of the run's pack, where it is a built-in one named after it."""
    pack = config.generation.prompts
    return pack if (BUILT_IN / pack).is_dir() and re.fullmatch("[a-z]{2}", pack) else None


def _data_metadata(
    config: Config, rows: int, split: Split, format: DataFormat, licence: str | None
) -> DatasetCardData:
    suffix = "parquet" if format == "parquet" else "jsonl"
    names = ["train", "test"] if split.test else ["train"]
    files = [{"split": name, "path": f"{name}.{suffix}"} for name in names]
    return DatasetCardData(
        language=language_of(config),
        license=licence or "unknown",
        task_categories=["text-generation"],
        size_categories=next((name for most, name in _SIZES if rows < most), "n>1M"),
        tags=[TAG, "synthetic", "instruction-tuning"],
        configs=[{"config_name": "default", "data_files": files}],
    )


def _gguf_licence(name: str) -> str | None:
    try:
        from gguf import GGUFReader

        file = Path(name) if name.endswith(".gguf") else smollm2_file()
        field = GGUFReader(file).get_field("general.license")
    except (ImportError, EngineError, OSError, ValueError):
        return None
    return str(field.contents()) if field is not None else None


def _seeds(config: Config) -> str:
    known = next((source for source in SOURCES if source.name == config.seeds.path), None)
    name = f"`{public_name(config.seeds.path)}`"
    return f"{name} ({known.note})" if known else f"{name}, of the authors of this data set"


def _dropped(run: RunDirectory) -> str:
    candidates = sum(count_rows(place.rejected("instructions")) for place in run.rounds())
    instances = sum(count_rows(place.rejected("instances")) for place in run.rounds())
    return f"{candidates} instructions and {instances} instances"


def _samples(rows: Sequence[TrainingRow]) -> str:
    # JSON in ASCII has neither line ends nor marks that could end the block or act on a reader.
    chosen = [row for row in rows if row.source == "generated"][:3] or rows[:3]
    return "\n".join(
        json.dumps({"instruction": row.instruction, "input": row.input, "output": row.output})
        for row in chosen
    )


def _columns(data: DataRows, format: DataFormat) -> str:
    labels = label_columns(data) if format != "parquet" else []
    return " and ".join((_COLUMNS[format], *(f"`{name}`" for name in labels)))


def _counted(labels: Sequence[str | None]) -> str:
    """How many rows have each label, as a cell of a table; empty where none has any."""
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        return ""
    # The words are the seeds' authors': one line, and neither a column nor a tag.
    shown = [
        f"{escape(' '.join(label.split())).replace('|', '&#124;')} {number}"
        for label, number in counts.most_common(_MOST_LABELS)
    ]
    others = len(counts) - len(shown)
    more = [f"{others} others"] if others > 0 else []
    return ", ".join((*shown, *more, f"none {len(labels) - counts.total()}"))


def _mean_words(texts: Sequence[str]) -> str:
    return f"{fmean(map(count_words, texts)):.1f}" if texts else "none"
