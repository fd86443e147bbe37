"""Laws of the last check: a model that training has destroyed is never handed out."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from selfinstruct_train.distributed import ALONE
from selfinstruct_train.errors import TrainingError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.training import sft
from selfinstruct_train.training.alive_check import check_alive

VARIED = torch.randn(6, 100, generator=torch.Generator().manual_seed(0))


def step(number: int, loss: float, gradient_norm: float | None = 1.0) -> TrainingStep:
    return TrainingStep(
        step=number,
        epoch=1.0,
        loss=loss,
        learning_rate=1e-3,
        gradient_norm=gradient_norm,
        tokens=1,
        seconds=0.0,
    )


@pytest.mark.parametrize(
    ("loss", "gradient_norm", "logits", "says"),
    [
        (4.6, 0.0, torch.zeros(6, 100), "equally likely"),
        (4.6, 1.0, torch.full((6, 100), 7e4), "equally likely"),
        (4.6, 1.0, VARIED.clone().fill_(float("nan")), "not finite"),
        (4.6, 1.0, VARIED / 0.0, "not finite"),
        (3.0, 1.0, VARIED[:1].expand(6, 100), "the same whatever it reads"),
        (3.0, 0.0, VARIED, "gradient is zero at a loss of 3.00"),
        (9.0, 1.0, VARIED, "from 2.00 to 9.00, and a uniform guess has 4.61"),
    ],
)
def test_a_dead_model_is_named_with_the_fix(
    loss: float, gradient_norm: float, logits: torch.Tensor, says: str
) -> None:
    with pytest.raises(TrainingError, match=says) as caught:
        check_alive([step(1, 2.0), step(9, loss, gradient_norm)], [logits], 1e6)
    assert "lower training.learning_rate (now 1e+06) and add --redo train" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (step(1, 2.0), step(9, 0.5)),
        (step(1, 2.0), step(9, 0.0, 0.0)),
        (step(1, 2.0), step(9, 2.5)),
        (step(1, 6.0), step(2, 6.1)),
        (step(1, 2.0, None), step(9, 1.0, None)),
    ],
)
def test_a_model_that_learns_or_has_learned_all_passes(
    first: TrainingStep, last: TrainingStep
) -> None:
    check_alive([first, last], [VARIED], 1e-3)


def test_a_learning_rate_that_kills_leaves_no_adapter(small: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"lower training.learning_rate \(now 1e\+06\)"):
        sft.train(
            small.loaded_model(),
            small.rows(4),
            small.settings(learning_rate=1e6, max_steps=4),
            RoundDirectory(tmp_path),
            answers=load_answers("en"),
            seed=1,
            world=ALONE,
        )
    assert not (tmp_path / "adapter").exists()
