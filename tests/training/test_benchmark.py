"""Laws of benchmarks/training.py: both sides train on the same tokens, and ratios are of pairs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from selfinstruct_train.records import GeneratedInstance
from tests.training.test_dataset import GENERATED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEPS = 4


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training as benchmark

    return benchmark


def instance(number: int) -> GeneratedInstance:
    return GENERATED.model_copy(update={"id": f"row-{number}", "output": "y " * number})


def test_every_side_trains_on_the_tokens_of_the_rows_and_packing_pads_nothing(
    small: ModuleType, training: ModuleType, tmp_path: Path
) -> None:
    loaded, model = small.loaded_model(), tmp_path / "model"
    loaded.model.save_pretrained(model)
    loaded.tokenizer.save_pretrained(model)
    file = tmp_path / "instances.jsonl"
    rows = [instance(number) for number in range(1, 21)]
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    found = {
        side: training.measure(side, str(model), file, STEPS, training.BATCH)
        for side in ("ours", "packed", "trl", "trl-kept")
    }
    # Steps of 8, 8 and 4 rows and the first of another epoch: the same rows on each side.
    assert len({run.tokens for run in found.values()}) == 1
    assert found["packed"].computed == found["packed"].tokens
    assert found["ours"].computed == found["trl"].computed > found["ours"].tokens > 0
    assert all(run.cpu > 0 and run.wall > 0 for run in found.values())
    assert all(run.peak >= run.loaded > 0 for run in found.values())


def test_a_ratio_is_that_of_sides_that_took_turns(training: ModuleType) -> None:
    def run(cpu: float, peak: int) -> object:
        return training.Measured(90, 100, cpu, 2 * cpu, peak, 1)

    # The machine grew slower from turn to turn, for both alike.
    found = {"ours": [run(1.0, 10), run(3.0, 10)], "trl": [run(2.0, 20), run(6.0, 20)]}
    said = list(training.lines(found))
    assert "60 (30 to 90) useful tokens a CPU second, 30 (15 to 45) a second" in said[0]
    assert "padding 10%" in said[0]
    assert said[-1] == (
        "ours / trl: 2 (2 to 2) in CPU time, 2 (2 to 2) by the clock, 0.5 (0.5 to 0.5) in peak "
        "memory"
    )
