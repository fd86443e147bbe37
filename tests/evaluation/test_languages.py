"""Answers in the languages of the built-in packs are scored by their own words."""

import json
from pathlib import Path

import pytest

from selfinstruct_train.evaluation.metrics import score_predictions
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.records import Prediction
from selfinstruct_train.sources.fetch import resolve
from selfinstruct_train.sources.reader import read_seed_tasks


@pytest.mark.parametrize("name", ["zh-seeds", "pt-seeds"])
def test_a_reference_scores_full_half_of_it_less_and_silence_nothing(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.jsonl"
    rows = [
        {
            "id": task.id,
            "instruction": task.instruction,
            "instances": [task.instances[0].model_dump()],
        }
        for task in read_seed_tasks(resolve(name))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = load_suite(str(path))

    def scored(share: float) -> tuple[float, float, int]:
        answers = [
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response=item.target[: round(len(item.target) * share)],
                target=item.target,
            )
            for item in suite.items
        ]
        found = score_predictions("system", answers, suite)
        return found.rouge_l, found.exact_match, found.unscored

    assert scored(1.0) == (pytest.approx(100.0), 100.0, 0)
    assert 40 < scored(0.5)[0] < 80
    assert scored(0.0) == (0.0, 0.0, 0)
