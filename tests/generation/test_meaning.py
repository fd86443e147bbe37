"""Rows that mean the same in other words: the better one stays, and says whom it bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selfinstruct_train.config import Config, ScoreWeights, SelectConfig
from selfinstruct_train.errors import EngineError
from selfinstruct_train.generation.selection import Candidate, select, weighted
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.models.meaning import mean_hidden_states
from selfinstruct_train.records import GeneratedInstance, LeftOutRow, RowScores
from selfinstruct_train.report.wording import left_out_words
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.rounds.preflight import preflight
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from tests.generation.test_generate import SEEDS, scripted, small_config
from tests.helpers.small_models import loaded_model, rows
from tests.helpers.small_models import settings as training_settings

LIMIT = "generation.select.meaning=0.9"


def by_first_word(texts: Sequence[str]) -> NDArray[np.float32]:
    """Means whatever the first word is; hidden states have much in common, so these do too."""
    known = sorted({text.split()[0] for text in texts})
    found = np.full((len(texts), len(known) + 1), 100.0, dtype=np.float32)
    for place, text in enumerate(texts):
        found[place, known.index(text.split()[0])] += 1.0
    return found


def selected(config: Config, meanings: object = by_first_word) -> RoundDirectory:
    run = RunDirectory(config.output_dir)
    run.open(config, {})
    generate_round(
        config, scripted(), run, 0, SEEDS, None, lambda i, g: i, lambda update: None,
        meanings=meanings,  # type: ignore[arg-type]
    )  # fmt: skip
    return run.round(0)


def left_out(directory: RoundDirectory) -> tuple[LeftOutRow, ...]:
    return directory.store(directory.selection, LeftOutRow).read()


def test_of_rows_that_mean_the_same_one_is_trained_on(tmp_path: Path) -> None:
    config = small_config(tmp_path, LIMIT)
    directory = selected(config)
    written = directory.store(directory.instances, GeneratedInstance).read()
    first: dict[str, str] = {}
    for row in written:
        first.setdefault(row.instruction.split()[0], row.id)
    assert 1 < len(first) < len(written)
    live = [row.id for row in LiveRows(RunDirectory(config.output_dir)).instances(1)]
    assert live == [row.id for row in written if row.id in first.values()]
    by_id = {row.id: row for row in written}
    for gone in left_out(directory):
        assert gone.reason == "same_meaning" and gone.nearest is not None
        assert gone.nearest.id == first[by_id[gone.id].instruction.split()[0]]
        assert gone.nearest.score == pytest.approx(1.0)
        assert "means nearly what" in left_out_words(gone)
        assert "cosine 1.00" in left_out_words(gone)
    mark = directory.mark("selection")
    assert mark is not None and mark.figures["same_meaning"] == len(written) - len(first)


def test_without_it_no_model_is_read(tmp_path: Path) -> None:
    def never(texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError

    directory = selected(small_config(tmp_path, "generation.select.diversity=0.5"), never)
    mark = directory.mark("selection")
    assert mark is not None and "same_meaning" not in mark.figures


VECTORS = st.lists(
    st.tuples(st.lists(st.integers(-3, 3), min_size=3, max_size=3), st.integers(-3, 3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(VECTORS, st.floats(0.0, 1.0), st.none() | st.just(0.5))
def test_no_taken_pair_is_nearer_than_the_limit_and_what_bars_is_better(
    drawn: list[tuple[list[int], int]], limit: float, diversity: float | None
) -> None:
    words = ("red", "blue", "green", "tall")
    candidates = [
        Candidate(str(i), " ".join(words[: 1 + score % 4]), RowScores(id=str(i), length=score))
        for i, (_, score) in enumerate(drawn)
    ]
    vectors = np.array([vector for vector, _ in drawn], dtype=np.float64)
    config = SelectConfig(by=ScoreWeights(length=1.0), meaning=limit, diversity=diversity)
    gone = {row.id: row for row in select(candidates, config, "rouge", vectors.astype(np.float32))}
    spread = vectors.std(axis=0)
    apart = (vectors - vectors.mean(axis=0)) / np.where(spread, spread, 1)
    lengths = np.linalg.norm(apart, axis=1)

    def cosine(a: int, b: int) -> float:
        product = lengths[a] * lengths[b]
        return float(apart[a] @ apart[b] / product) if product else 0.0

    taken = [i for i in range(len(drawn)) if str(i) not in gone]
    assert taken
    for i, place in enumerate(taken):
        assert all(cosine(place, other) <= limit + 1e-5 for other in taken[:i])
    total = weighted(candidates, config.by)
    for row in gone.values():
        assert row.nearest is not None and int(row.nearest.id) in taken
        assert total[int(row.nearest.id)] >= total[int(row.id)]
        if row.reason == "same_meaning":
            found = cosine(int(row.id), int(row.nearest.id))
            assert row.nearest.score == pytest.approx(found, abs=1e-5) and found > limit - 1e-5


def test_meanings_are_means_of_the_states_of_a_layer_whatever_is_beside_or_in_force(
    tmp_path: Path,
) -> None:
    loaded = loaded_model()
    texts = ["Name a bird.", "<eos> is a word.", "x" * 400]
    found = mean_hidden_states(loaded, texts)
    assert found.shape == (3, 32) and found.dtype == np.float32
    ids = [loaded.tokenizer.convert_tokens_to_ids(c) for c in "Name\u0120a\u0120bird."]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        states = loaded.model(tokens, output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert np.allclose(found[0], states[2][0, 1:].mean(0).numpy(), atol=1e-6)
    assert np.array_equal(mean_hidden_states(loaded, texts[1:]), found[1:])
    ended = torch.tensor([[loaded.tokenizer.eos_token_id]])
    with torch.no_grad():
        end = loaded.model(ended, output_hidden_states=True).hidden_states[2][0, 0].numpy()
    assert not np.allclose(found[1], end), "what a text says is text"

    from selfinstruct_train.distributed import ALONE
    from selfinstruct_train.packs.pack import load_answers
    from selfinstruct_train.training.sft import train

    tuned = train(
        loaded, rows(), training_settings(max_steps=2), RoundDirectory(tmp_path),
        answers=load_answers("en"), seed=1, world=ALONE,
    ).tuned  # fmt: skip
    loaded.adapters.activate(tuned)
    assert np.array_equal(mean_hidden_states(loaded, texts), found), "they are the base's"


def test_another_model_or_limit_is_another_selection(tmp_path: Path) -> None:
    def found(config: Config, source: str) -> str:
        return read_contents(config, source, SEEDS, [], [], [])["meanings"]

    asked = small_config(tmp_path, LIMIT)
    assert found(small_config(tmp_path), "embedded") == "none"
    assert found(asked, "embedded") != found(asked, str(tmp_path))


def test_weights_that_are_not_here_are_named_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "weightless"
    loaded = loaded_model()
    loaded.model.config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    settings = (f"model.name_or_path={folder}", "generation.engine.kind=server")
    preflight(small_config(tmp_path, *settings), ("generate",))
    with pytest.raises(EngineError, match="no weights in safetensors format"):
        preflight(small_config(tmp_path, *settings, LIMIT), ("generate",))
