"""How many rows of each kind a training is given."""

import pytest

from selfinstruct_train.config import Config, MixConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.records import TrainingRow
from selfinstruct_train.training.mix import mix_rows, replay_count, too_many_short


def rows(**counts: int) -> list[TrainingRow]:
    return [
        TrainingRow(
            id=f"{kind}-{n}",
            source=kind,
            instruction="Say it.",
            input=str(n),
            output=str(n),
            is_classification=False,
        )
        for kind, count in counts.items()
        for n in range(count)
    ]


def count(found: list[TrainingRow]) -> dict[str, int]:
    return {kind: sum(r.source == kind for r in found) for kind in ("own", "seed", "generated")}


def test_the_ratio_is_met_with_as_many_rows_as_there_are() -> None:
    given = rows(own=40, seed=10, generated=90)
    found = mix_rows(given, MixConfig(own=1, seeds=1, generated=3), 0)
    assert count(found) == {"own": 10, "seed": 10, "generated": 30}
    assert found == [row for row in given if row in found]
    assert found == mix_rows(given, MixConfig(own=1, seeds=1, generated=3), 0)
    assert found != mix_rows(given, MixConfig(own=1, seeds=1, generated=3), 1)
    assert mix_rows(given, None, 0) == given


def test_replay_is_so_many_rows_beside_the_others_and_cuts_none_of_them() -> None:
    given = rows(own=40, seed=10, generated=90)
    mix = MixConfig(own=1, seeds=1, generated=3, replay=2.5)
    found = mix_rows(given, mix, 0)
    assert found == mix_rows(given, mix.model_copy(update={"replay": 0.0}), 0)
    assert replay_count(given, mix) == replay_count(found, mix) == 25
    assert replay_count(given, MixConfig()) == replay_count(given, None) == 0
    assert replay_count(given, MixConfig(own=0, seeds=1, generated=0, replay=0.01)) == 1


def test_a_kind_of_weight_nothing_is_left_out_and_one_without_rows_is_named() -> None:
    given = rows(own=5, seed=10)
    assert count(mix_rows(given, MixConfig(seeds=0, generated=0), 0))["seed"] == 0
    with pytest.raises(DataError, match=r"training\.mix\.generated is 1, .* set it to 0"):
        mix_rows(given, MixConfig(), 0)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"training": {"mix": {"own": 0, "seeds": 0, "generated": 0}}}, "leaves out everything"),
        ({"training": {"mix": {"seeds": 0, "generated": 0}}}, "name a file in 'data'"),
        ({"training": {"mix": {"generated": 0}}, "rounds": 2}, "set rounds to 1"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(changed: dict, fault: str) -> None:
    config = {
        "model": {"name_or_path": "embedded"},
        "seeds": {"path": "microworld-seeds"},
        "evaluation": {"suites": ["microworld-dev"]},
        "output_dir": "runs/x",
    }
    with pytest.raises(ValueError, match=fault):
        Config.model_validate(config | changed)


def test_answers_of_one_word_get_the_share_that_is_left_to_them() -> None:
    short = rows(seed=30)
    given = short + [
        row.model_copy(update={"output": "a longer answer"}) for row in rows(generated=20)
    ]
    for share, kept in ((1.0, 30), (0.6, 30), (0.5, 20), (0.2, 5), (0.01, 0), (0.0, 0)):
        left_out = too_many_short(given, share, 0)
        assert len(short) - len(left_out) == kept
        assert all(given[place].output.isdigit() for place in left_out)
        assert kept <= share * (len(given) - len(left_out))
    assert too_many_short(given, 0.2, 0) == too_many_short(iter(given), 0.2, 0)
    assert too_many_short(given, 0.2, 0) != too_many_short(given, 0.2, 1)
    with pytest.raises(DataError, match=r"training\.short_answers is 0\.5.*set it to 1"):
        too_many_short(short, 0.5, 0)
