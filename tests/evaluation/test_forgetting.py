import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from selfinstruct_train.config import Config
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.beyond.forgetting import (
    FORGETTING_FILE,
    HeldOut,
    cut_windows,
    measure_forgetting,
    read_forgetting,
    read_held_out,
    window_losses,
)
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.run.directory import RunDirectory


class Switch:
    """Stands for the adapters: the tuned model is the base with its head scaled."""

    def __init__(self, model: torch.nn.Module, factor: float) -> None:
        self.weight = model.get_output_embeddings().weight  # type: ignore[operator]
        self.base = self.weight.detach().clone()
        self.factor = factor

    def activate(self, adapter: Path | None) -> str | None:
        with torch.no_grad():
            self.weight.copy_(self.base * (1.0 if adapter is None else self.factor))
        return None if adapter is None else "tuned"


class Case(NamedTuple):
    config: Config
    run: RunDirectory
    loaded: LoadedModel


def text(words: int) -> str:
    return " ".join(f"word{i % 17}" for i in range(words))


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model(Config.model_validate(settings(Path("run"), None)).model)


def settings(run: Path, held_out: Path | None) -> dict[str, object]:
    return {
        "model": {"name_or_path": "embedded"},
        "seeds": {"path": "microworld-seeds"},
        "evaluation": {
            "suites": ["microworld"],
            "bootstrap_samples": 200,
            "held_out_text": str(held_out) if held_out else None,
        },
        "output_dir": str(run),
    }


@pytest.fixture
def make_case(base: LoadedModel, tmp_path: Path) -> Callable[[float, int], Case]:
    def make(factor: float, words: int) -> Case:
        path = tmp_path / "held-out.txt"
        path.write_text(text(words))
        config = Config.model_validate(settings(tmp_path / "run", path))
        switch = Switch(base.model, factor)
        return Case(config, RunDirectory(config.output_dir), base._replace(adapters=switch))

    return make


def test_the_loss_is_the_models_own_whatever_is_scored_beside_it(base: LoadedModel) -> None:
    windows = cut_windows(base, HeldOut("x", (text(900),)), 1200)
    assert len(windows) > 2 and len(windows[-1]) < len(windows[0])
    together = window_losses(base, windows, None)
    for window, loss in zip(windows, together, strict=True):
        ids = torch.tensor([window])
        with torch.no_grad():
            mean = float(base.model(ids, labels=ids).loss)
        assert loss == pytest.approx(mean * (len(window) - 1), rel=1e-4)


def test_a_tuned_model_that_is_the_base_forgot_nothing(make_case: Callable[..., Case]) -> None:
    case = make_case(1.0, 900)
    found = measure_forgetting(case.config, case.loaded, case.run, 0)
    assert found is not None
    assert (found.delta, found.ci_low, found.ci_high) == (0.0, 0.0, 0.0)
    assert "cannot be told whether" in found.sentence
    assert read_forgetting(case.run.round(0).path / "eval" / FORGETTING_FILE) == found


def test_a_damaged_model_is_seen_and_the_stored_figures_are_taken_again(
    make_case: Callable[..., Case],
) -> None:
    case = make_case(-1.0, 900)
    found = measure_forgetting(case.config, case.loaded, case.run, 0)
    assert found is not None and found.ci_low is not None and found.ci_low > 0
    assert found.delta == pytest.approx(found.tuned - found.base)
    assert "worse at plain text" in found.sentence
    fixed = make_case(1.0, 900)
    assert measure_forgetting(fixed.config, fixed.loaded, fixed.run, 0) == found
    other = make_case(1.0, 800)
    again = measure_forgetting(other.config, other.loaded, other.run, 0)
    assert again is not None and again.delta == 0.0


def test_one_window_has_a_loss_but_no_interval(make_case: Callable[..., Case]) -> None:
    case = make_case(-1.0, 20)
    found = measure_forgetting(case.config, case.loaded, case.run, 0)
    assert found is not None
    assert (found.windows, found.ci_low, found.ci_high) == (1, None, None)
    assert "too little text" in found.sentence


def test_without_held_out_text_nothing_is_measured(base: LoadedModel, tmp_path: Path) -> None:
    config = Config.model_validate(settings(tmp_path / "run", None))
    assert measure_forgetting(config, base, RunDirectory(config.output_dir), 0) is None
    assert not (tmp_path / "run").exists()


def test_rows_of_text_and_plain_text_are_read(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in ("one", " ", "two")))
    assert read_held_out(str(rows)).documents == ("one", "two")
    plain = tmp_path / "plain.txt"
    plain.write_text('{"text": 1}\n\nsecond\n')
    assert read_held_out(str(plain)).documents == ('{"text": 1}\nsecond',)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "line 2: has no 'text'"),
        ("a.jsonl", "{\n", "line 1: not JSON"),
        ("a.txt", " \n\n", "holds no text"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, name: str, content: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=f"{name}.*{fault}"):
        read_held_out(str(path))


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / FORGETTING_FILE
    path.write_text("{}")
    with pytest.raises(DataError, match="delete it and evaluate again"):
        read_forgetting(path)
