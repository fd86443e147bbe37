from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.config import EvaluationConfig
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import System
from selfinstruct_train.evaluation.published import compare_with_published, published_files
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.packs.pack import load_answers

EN = load_answers("en")

Answer = Callable[[str], str]
AnswerFile = Callable[[str, Answer], Path]


@pytest.fixture
def settings() -> EvaluationConfig:
    return EvaluationConfig(suites=("words",), bootstrap_samples=400)


def test_stop_control_is_the_same_for_the_run_and_for_published_models(
    suite: Suite, answer_file: AnswerFile, settings: EvaluationConfig
) -> None:
    endless = answer_file("endless_predictions.jsonl", lambda t: f"{t}\nInput: another\nOutput: x")
    own = {"tuned": read_predictions(answer_file("own.jsonl", lambda t: f"{t}\nInput: z"), suite)}
    found = compare_with_published(own, [endless], suite, settings, 0, EN)
    assert {s.name: s.is_published for s in found.systems} == {"endless": True, "tuned": False}
    for standing in found.systems:
        assert standing.stopped.rouge_l == 100.0 > standing.raw.rouge_l
        assert standing.stopped.mean_words < standing.raw.mean_words
    (pair,) = found.pairs
    assert (pair.delta, pair.ci_low, pair.ci_high, pair.ties) == (0.0, 0.0, 0.0, len(suite.items))


def test_every_two_systems_are_compared_once_and_the_better_is_b(
    suite: Suite, answer_file: AnswerFile, settings: EvaluationConfig
) -> None:
    files = [
        answer_file("mute_predictions.jsonl", lambda t: ""),
        answer_file("right_predictions.jsonl", lambda t: t),
        answer_file("half_predictions.jsonl", lambda t: t if "1" in t else "no"),
    ]
    found = compare_with_published({}, files, suite, settings, 0, EN)
    assert [s.name for s in found.systems] == ["right", "half", "mute"]
    assert [s.raw.empty for s in found.systems] == [0.0, 0.0, 100.0]
    assert [(p.b, p.a) for p in found.pairs] == [
        ("right", "half"),
        ("right", "mute"),
        ("half", "mute"),
    ]
    assert found.pair("mute", "right").delta == 100.0
    with pytest.raises(KeyError):
        found.pair("mute", "mute")


def test_two_systems_of_one_name_are_refused(
    suite: Suite, answer_file: AnswerFile, settings: EvaluationConfig
) -> None:
    file = answer_file("tuned_predictions.jsonl", lambda t: t)
    own = {"tuned": read_predictions(file, suite)}
    with pytest.raises(DataError, match="'tuned' is already the name"):
        compare_with_published(own, [file], suite, settings, 0, EN)


def test_published_files_are_the_configured_or_the_pulled_or_none(tmp_path: Path) -> None:
    assert published_files(None, cache=tmp_path) == ()
    folder = tmp_path / "published-predictions"
    folder.mkdir()
    names = ["text-davinci-001_predictions.jsonl", "davinci_predictions.jsonl"]
    for name in (*names, "another.jsonl"):
        (folder / name).write_text("")
    pulled = [path.name for path in published_files(None, cache=tmp_path)]
    assert pulled == names[::-1]
    configured = [path.name for path in published_files(str(folder))]
    assert configured == [*names[::-1], "another.jsonl"]
    with pytest.raises(DataError, match="evaluation.published: .*nowhere"):
        published_files(str(tmp_path / "nowhere"))


def test_published_self_instruct_and_001_cannot_be_told_apart(
    official: Path, published: dict[str, System]
) -> None:
    suite = load_suite(str(official / "user_oriented_instructions.jsonl"))
    files = [
        official / "predictions" / f"{name}_predictions.jsonl"
        for name in ("davinci-self-instruct", "text-davinci-001")
    ]
    settings = EvaluationConfig(suites=("user-oriented-252",), bootstrap_samples=2000)
    found = compare_with_published(
        {"base": published["davinci"].predictions}, files, suite, settings, 0, EN
    )
    base = next(s for s in found.systems if s.name == "base")
    assert round(base.raw.rouge_l, 2) == 2.83
    assert round(base.stopped.rouge_l, 2) == 14.20
    pair = found.pair("davinci-self-instruct", "text-davinci-001")
    assert pair.ci_low < 0 < pair.ci_high
    assert found.pair("base", "text-davinci-001").ci_low > 0
