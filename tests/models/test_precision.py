"""Precision on a CPU: tried once where it is left open, never where it cannot matter."""

from pathlib import Path

import pytest
import torch

from selfinstruct_train.config import Config, ModelConfig
from selfinstruct_train.models import precision
from selfinstruct_train.models.describe import ModelDescription, describe_model
from selfinstruct_train.models.precision import settle_precision
from selfinstruct_train.rounds.opened import OpenedRun

OPEN = ModelConfig(name_or_path="embedded", device="cpu", threads=1)


@pytest.fixture(scope="module")
def described() -> ModelDescription:
    return describe_model(OPEN)


def speedups(monkeypatch: pytest.MonkeyPatch, written: float, read: float) -> None:
    """Let a CPU with bfloat16 be so many times as fast, whatever the size of the model."""
    found = {precision._ROWS: written, precision._PROMPT_ROWS: read}
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(precision, "_SMALL", 0)
    monkeypatch.setattr(precision, "_speedup", lambda shapes, rows: found[rows])


def never(*args: object) -> float:
    raise AssertionError("measured")


def test_a_small_model_stays_in_float32_without_a_trial(
    monkeypatch: pytest.MonkeyPatch, described: ModelDescription
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(precision, "_speedup", never)
    found = settle_precision(OPEN, described)
    assert found is not None and found.dtype == torch.float32
    assert "5,410,048 parameters" in found.note


@pytest.mark.parametrize(
    ("written", "read", "chosen"),
    [(3.0, 3.0, "bfloat16"), (1.4, 3.0, "float32"), (3.0, 1.4, "float32")],
)
def test_bfloat16_must_be_clearly_faster_at_writing_and_at_reading(
    monkeypatch: pytest.MonkeyPatch,
    described: ModelDescription,
    written: float,
    read: float,
    chosen: str,
) -> None:
    speedups(monkeypatch, written, read)
    found = settle_precision(OPEN, described)
    assert found is not None and found.name == chosen
    assert f"{written:.1f} times" in found.note and f"{read:.1f} times" in found.note


def test_without_instructions_for_bfloat16_nothing_is_tried(
    monkeypatch: pytest.MonkeyPatch, described: ModelDescription
) -> None:
    speedups(monkeypatch, 9.0, 9.0)
    monkeypatch.setattr(precision, "_speedup", never)
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    found = settle_precision(OPEN, described)
    assert found is not None and found.name == "float32"


def test_what_the_config_says_or_the_run_began_with_stands(
    monkeypatch: pytest.MonkeyPatch, described: ModelDescription
) -> None:
    speedups(monkeypatch, 9.0, 9.0)
    monkeypatch.setattr(precision, "_speedup", never)
    said = OPEN.model_copy(update={"dtype": "float32"})
    assert settle_precision(said, described) is None
    # Begun on a GPU, or by a version that tried nothing.
    assert settle_precision(OPEN, described, "auto") is None
    begun = settle_precision(OPEN, described, "bfloat16")
    assert begun is not None and begun.dtype == torch.bfloat16
    on_gpu = described._replace(device=torch.device("cuda"))
    assert settle_precision(OPEN, on_gpu) is None


def test_the_trial_multiplies_every_matrix_but_the_embeddings(described: ModelDescription) -> None:
    parameters, shapes = precision._outline(described)
    settings = described.config
    per_layer = sum(inputs * outputs * count for (inputs, outputs), count in shapes.items())
    vectors = (2 * settings.num_hidden_layers + 1) * settings.hidden_size
    embeddings = settings.vocab_size * settings.hidden_size
    assert per_layer + vectors + embeddings == parameters
    assert precision._speedup(shapes, 4) > 0


def test_a_run_keeps_what_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Config.model_validate(
        {
            "model": {"name_or_path": "embedded", "device": "cpu"},
            "seeds": {"path": "microworld-seeds"},
            "evaluation": {"suites": ["microworld-dev"]},
            "output_dir": str(tmp_path / "run"),
        }
    )
    speedups(monkeypatch, 3.0, 3.0)
    first = OpenedRun(wanted)
    assert first.run.config().model.dtype == "bfloat16"
    assert first.model.dtype == first.model.model.dtype == torch.bfloat16
    speedups(monkeypatch, 1.0, 1.0)
    again = OpenedRun(wanted)
    assert again.config == first.config and again.described.dtype == torch.bfloat16
    # Another output_dir is another run.
    other = wanted.model_copy(update={"output_dir": tmp_path / "other"})
    assert OpenedRun(other).config.model.dtype == "float32"
