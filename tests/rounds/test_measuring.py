"""What is measured was trained, by its mark."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.errors import RunError
from selfinstruct_train.rounds.measuring import evaluate_training
from selfinstruct_train.run.directory import RunDirectory

QUICKSTART = Path(__file__).parent.parent.parent / "configs/quickstart.yaml"


@pytest.mark.parametrize("figures", [{}, {"steps": None}, {"steps": 0}])
def test_a_mark_without_steps_is_a_sentence(figures: dict[str, Any], tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.round(0).finish("train", 1.0, **figures)
    opened: Any = SimpleNamespace(run=run, suite_tasks=())
    with pytest.raises(RunError, match=r"done/train\.json: .* steps .*--redo train"):
        evaluate_training(opened, load_config(QUICKSTART, output_dir=tmp_path), 0)
