"""Figures: those of the published files, and what each counts."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.compare import System
from selfinstruct_train.evaluation.metrics import (
    exact_match,
    rouge_l,
    score_answers,
    score_predictions,
)
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.records import Prediction


def answered(suite: Suite, response: str, **known: object) -> list[Prediction]:
    return [
        Prediction(
            task_id=item.task_id,
            instruction=item.instruction,
            input=item.input,
            response=response.format(target=item.target),
            target=item.target,
            **known,  # type: ignore[arg-type]
        )
        for item in suite.items
    ]


@pytest.mark.parametrize(
    ("name", "figure"),
    [("davinci", 2.83), ("davinci-self-instruct", 28.13), ("text-davinci-001", 29.00)],
)
def test_the_published_answers_score_what_is_known(
    published: dict[str, System], name: str, figure: float
) -> None:
    score = published[name].summary
    assert score.n == 252
    assert score.rouge_l == pytest.approx(figure, abs=0.01)
    assert score.oracle_accuracy is None and score.ended is None


@pytest.mark.parametrize(
    ("answer", "target"),
    [("The cats are running", "the cat runs"), ("", "a"), ("b a", "a b"), ("ünïcode", "a")],
)
def test_rouge_l_is_the_f1_of_rouge_score_with_its_stemmer(answer: str, target: str) -> None:
    reference = RougeScorer(["rougeL"], use_stemmer=True).score(target, answer)["rougeL"]
    assert rouge_l(answer, target) == reference.fmeasure * 100


@pytest.mark.parametrize(
    ("answer", "target", "same"),
    [
        (" Yes.\n", "yes", True),
        ("two  words", "Two words!", True),
        ("the cat", "cat", False),
        ("", "cat", False),
        ("don't", "dont", True),
    ],
)
def test_exact_match_folds_case_punctuation_and_space_and_keeps_articles(
    answer: str, target: str, same: bool
) -> None:
    assert exact_match(answer, target) is same


def test_a_system_is_described_by_its_means(suite: Suite) -> None:
    rows = answered(suite, "{target}", finish_reason="eos")
    rows[0] = rows[0].model_copy(update={"response": " \n", "finish_reason": "length"})
    rows[1] = rows[1].model_copy(update={"finish_reason": "length"})
    score = score_predictions("mine", rows, suite)
    assert score.rouge_l == score.exact_match == pytest.approx(700 / 8)
    assert score.empty == pytest.approx(100 / 8)
    assert score.mean_words == pytest.approx(21 / 8)
    assert score.ended == pytest.approx(600 / 8)


def test_whether_a_model_ends_answers_that_a_stop_string_cuts_is_unknown(suite: Suite) -> None:
    rows = answered(suite, "{target}", finish_reason="eos")
    rows[1] = rows[1].model_copy(update={"finish_reason": "stop"})
    assert score_predictions("few-shot", rows, suite).ended is None


def test_unknown_endings_and_suites_without_an_oracle_give_none_not_zero(suite: Suite) -> None:
    score = score_predictions("mine", answered(suite, "x"), suite)
    assert score.ended is None and score.oracle_accuracy is None
    assert score.rouge_l == 0.0


def test_nothing_to_score_is_an_error_not_a_zero(suite: Suite) -> None:
    with pytest.raises(DataError, match="no answers"):
        score_predictions("mine", [], suite)


@pytest.mark.parametrize(("response", "accuracy"), [(" {target}\n", 100.0), ("gnorf", 0.0)])
def test_the_oracle_judges_the_microworld(response: str, accuracy: float) -> None:
    suite = load_suite("microworld-dev")
    assert score_predictions("x", answered(suite, response), suite).oracle_accuracy == accuracy


def test_what_the_oracle_cannot_judge_is_left_out_of_its_accuracy(suite: Suite) -> None:
    mixed = Suite("mixed", (*suite.tasks, *load_suite("microworld-dev").tasks[:2]), True)
    rows = answered(mixed, "{target}")
    rows[-1] = rows[-1].model_copy(update={"response": "gnorf"})
    judged = score_answers(rows, mixed).oracle_accuracy
    assert judged is not None and [math.isnan(x) for x in judged] == [True] * 8 + [False] * 2
    assert score_predictions("x", rows, mixed).oracle_accuracy == 50.0
    alien = Suite("alien", suite.tasks, True)
    assert score_predictions("x", answered(alien, "y"), alien).oracle_accuracy is None


def test_other_schemas_give_the_same_figures(
    suite: Suite,
    answer_file: Callable[[str, Callable[[str], str]], Path],
    published_file: Callable[[Callable[[str], str]], Path],
) -> None:
    scores = [
        score_predictions("x", read_predictions(path, suite), suite)
        for path in (answer_file("own.jsonl", str.title), published_file(str.title))
    ]
    assert scores[0] == scores[1]
