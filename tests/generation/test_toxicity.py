"""What a classifier finds toxic is dropped by name, and everything else is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from selfinstruct_train.config import Config, ToxicityConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.models.classifier import TextClassifier
from selfinstruct_train.records import GeneratedInstance, Instruction
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stage import STAGES
from tests.generation.test_generate import (
    SEEDS,
    contents,
    rejections,
    run_generation,
    scripted,
    small_config,
)
from tests.helpers.small_models import byte_tokenizer

POSITIONS = 66


def classifier(
    folder: Path, head: type = BertForSequenceClassification, safe: bool = True, **settings: object
) -> Path:
    """A random one of three layers of nothing, that reads 64 bytes at once."""
    config = BertConfig(
        vocab_size=len(tokenizer := byte_tokenizer()),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=1.0,
        id2label={0: "toxic", 1: "fine"},
        label2id={"toxic": 0, "fine": 1},
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = head(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not safe:
        weights = folder / "model.safetensors"
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("classifier"))


def asking(tmp_path: Path, folder: Path, threshold: float) -> Config:
    return small_config(
        tmp_path,
        f"generation.filters.toxicity.model={folder}",
        "generation.filters.toxicity.label=toxic",
        f"generation.filters.toxicity.threshold={threshold}",
    )


def whole(row: GeneratedInstance) -> str:
    return "\n".join(text for text in (row.instruction, row.input, row.output) if text)


def test_rows_above_the_threshold_go_as_toxic_and_the_others_stay(
    tmp_path: Path, folder: Path
) -> None:
    known = TextClassifier(ToxicityConfig(model=str(folder), label="toxic"))
    free = run_generation(small_config(tmp_path / "free"), scripted())
    texts = sorted(
        known.probability(row.instruction)
        for row in free.store(free.instructions, Instruction).read()
    )
    limit = round(texts[len(texts) * 2 // 3], 6)
    assert texts[0] < limit < texts[-1], "the classifier tells texts apart"
    config = asking(tmp_path / "held", folder, limit)
    directory = run_generation(config, scripted())
    rows = directory.store(directory.instances, GeneratedInstance).read()
    kept = directory.store(directory.instructions, Instruction).read()
    assert rows and all(known.probability(whole(row)) <= limit for row in rows)
    assert kept and all(known.probability(row.instruction) <= limit for row in kept)
    toxic = [row for row in rejections(directory) if row.reason == "toxic"]
    stages = Counter(row.stage for row in toxic)
    assert stages["instruction"] and stages["instance"]
    for row in toxic:
        text = row.instruction
        if row.stage == "instance":
            text = "\n".join(t for t in (row.instruction, row.input, row.output) if t)
        assert (found := known.probability(text)) > limit
        assert row.evidence == f"toxic {found:.3f}, limit {limit:g}"
    again = run_generation(asking(tmp_path / "again", folder, limit), scripted())
    assert contents(again) == contents(directory)
    (stats,) = data_stats(RunDirectory(config.output_dir))
    assert any("toxic" in line for line in stats.lines)


def test_of_a_long_text_the_worst_part_counts(folder: Path) -> None:
    known = TextClassifier(ToxicityConfig(model=str(folder), label="toxic"))
    parts = [f"{word * 60}"[:60] for word in ("lovely ", "kill ", "zebra 42 ", "mother ")]
    worst = max(parts, key=known.probability)
    others = [part for part in parts if part != worst]
    # Windows of 64 bytes, of which 8 are those of the window before: the last holds the text's end.
    long = "".join((*others, worst))
    tokens = list(long.encode())
    windows = [tokens[i : i + 64] for i in range(0, len(tokens) - 8, 56)]
    found = [known.probability(bytes(window).decode()) for window in windows]
    assert known.probability(long) == pytest.approx(max(found), abs=1e-6)
    assert max(found) > found[0]


@pytest.mark.parametrize(
    ("problem", "sums_to_one"), [(None, True), ("multi_label_classification", False)]
)
def test_labels_exclude_each_other_or_do_not_as_the_model_says(
    tmp_path: Path, problem: str | None, sums_to_one: bool
) -> None:
    folder = classifier(tmp_path, problem_type=problem)
    one, other = (
        TextClassifier(ToxicityConfig(model=str(folder), label=label)).probability("Sing a song.")
        for label in ("fine", "toxic")
    )
    assert (abs(one + other - 1) < 1e-6) == sums_to_one


def test_what_cannot_classify_is_one_sentence(tmp_path: Path, folder: Path) -> None:
    def load(model: Path, label: str = "toxic") -> None:
        TextClassifier(ToxicityConfig(model=str(model), label=label))

    with pytest.raises(EngineError, match=r"has no label 'nasty'; it has toxic, fine"):
        load(folder, "nasty")
    with pytest.raises(EngineError, match="was never trained to classify"):
        load(classifier(tmp_path / "writer", BertForMaskedLM))
    with pytest.raises(EngineError, match=r"cannot load .*safetensors"):
        load(classifier(tmp_path / "pickle", safe=False))
    with pytest.raises(EngineError, match=r"toxicity\.model: cannot load"):
        load(tmp_path / "nowhere")


def test_another_classifier_or_threshold_is_another_step_1_and_another_place_is_not(
    tmp_path: Path, folder: Path
) -> None:
    def found(config: Config) -> str:
        known = read_contents(config, "embedded", SEEDS, [], [], [])
        return known["generation.filters.toxicity"]

    first = found(asking(tmp_path, folder, 0.5))
    moved = tmp_path / "moved"
    assert found(asking(tmp_path, classifier(moved), 0.5)) == first
    assert found(asking(tmp_path, folder, 0.4)) != first
    assert found(small_config(tmp_path)) == "none" != first
    assert "generation.filters.toxicity" in STAGES[0].contents
