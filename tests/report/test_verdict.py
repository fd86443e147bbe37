from collections.abc import Callable

import pytest

from selfinstruct_train.evaluation.selection import Selection
from selfinstruct_train.records import Comparison, Halves, PairedComparison, SystemScore
from selfinstruct_train.report.facts import Result, SuiteFacts, read_facts
from selfinstruct_train.report.headline import judge_suite
from selfinstruct_train.run.directory import RunDirectory


def comparison(
    delta: float, low: float, high: float, *pairs: PairedComparison, **scores: float
) -> Comparison:
    return Comparison(
        suite="tasks",
        n=252,
        delta=delta,
        ci_low=low,
        ci_high=high,
        wins=1,
        ties=1,
        losses=1,
        confidence=0.95,
        scores=tuple(
            SystemScore(
                system=name.replace("_", "-"),
                n=252,
                rouge_l=value,
                exact_match=0,
                mean_words=1,
                empty=0,
            )
            for name, value in scores.items()
        ),
        pairs=pairs,
    )


def pair(
    a: str, delta: float, low: float, high: float, metric: str = "rouge_l"
) -> PairedComparison:
    return PairedComparison(
        a=a,
        b="tuned",
        metric=metric,
        group="overall",
        n=252,
        delta=delta,
        ci_low=low,
        ci_high=high,
        wins=1,
        ties=1,
        losses=1,
    )


def suite(*comparisons: Comparison, chooser: Selection | None = None) -> SuiteFacts:
    results = tuple(Result(i, c) for i, c in enumerate(comparisons))
    chooser = chooser or Selection("tasks", half=False)
    count = len(results)
    return SuiteFacts("tasks", "tasks", results, {}, chooser, best_round=0, candidates=count)


def test_an_interval_above_zero_says_that_tuning_helped() -> None:
    verdict = judge_suite(suite(comparison(41.2, 37.0, 45.1)))
    assert verdict.headline == (
        "Tuning helped: +41.2 ROUGE-L (95 % interval 37.0 to 45.1) over the stop-controlled "
        "base on 252 items of tasks."
    )


def test_an_interval_below_zero_says_that_tuning_hurt() -> None:
    verdict = judge_suite(suite(comparison(-4.0, -7.5, -0.5)))
    assert verdict.headline.startswith("Tuning hurt: −4.0 ROUGE-L (95 % interval −7.5 to −0.5)")


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 3.0), (-1.0, 0.0), (0.0, 0.0)])
def test_an_interval_that_touches_zero_claims_nothing(low: float, high: float) -> None:
    verdict = judge_suite(suite(comparison((low + high) / 2, low, high)))
    assert verdict.outcome == "unclear"
    assert "cannot be told apart" in verdict.headline
    assert "helped" not in verdict.headline and "hurt" not in verdict.headline


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(2.0, 9.0, "own data add +"), (-9.0, -2.0, "own data cost: −"), (-1.0, 1.5, "cannot be told")],
)
def test_own_data_get_no_more_credit_than_their_interval_gives(
    low: float, high: float, said: str
) -> None:
    row = pair("seeds-only", (low + high) / 2, low, high)
    details = judge_suite(suite(comparison(40.0, 30.0, 50.0, row))).details
    assert [said in detail for detail in details] == [True]


def test_without_a_seeds_only_model_the_own_data_get_no_credit() -> None:
    (detail,) = judge_suite(suite(comparison(40.0, 30.0, 50.0))).details
    assert "There is no model tuned on the seed tasks alone" in detail


def test_a_few_shot_base_is_set_beside_the_tuned_model() -> None:
    found = judge_suite(suite(comparison(40.0, 30.0, 50.0, base_few_shot=68.04, tuned=62.0)))
    assert (
        "scores 68.0 ROUGE-L; the tuned model, which is shown none, scores 62.0"
        in found.details[-1]
    )


def test_a_choice_on_the_same_items_is_confessed_and_no_other_is() -> None:
    three = comparison(5, 4, 6), comparison(9, 1, 17), comparison(4.5, 4, 5)
    flattered = "chosen on these same items"
    same = judge_suite(suite(*three)).details[-1]
    assert "the best of 3" in same and flattered in same
    other = judge_suite(suite(*three, chooser=Selection("words-dev", half=False))).details[-1]
    assert "on words-dev. tasks had no say in it." in other and flattered not in other
    assert flattered not in " ".join(judge_suite(suite(three[0])).details)


def test_where_one_half_chose_the_other_half_is_the_headline() -> None:
    halves = Halves(
        choosing=pair("base-stopped", 9.0, 8.0, 10.0),
        reported=pair("base-stopped", 1.0, -2.0, 4.0).model_copy(update={"n": 126}),
    )
    whole = comparison(5, 4, 6).model_copy(update={"halves": halves})
    chooser = Selection("tasks", half=True)
    found = judge_suite(suite(whole, comparison(1, 0, 2), chooser=chooser))
    assert found.outcome == "unclear"
    assert "+1.0 ROUGE-L (95 % interval −2.0 to 4.0) on the 126 items" in found.headline
    assert "The half that chose is flattered: +9.0 ROUGE-L (8.0 to 10.0)" in found.details[-1]
    # One round alone was not chosen, so the whole suite speaks.
    assert "on 252 items" in judge_suite(suite(whole, chooser=chooser)).headline


def test_the_verdict_of_a_run_is_that_of_its_files(make_run: Callable[..., RunDirectory]) -> None:
    (good,) = read_facts(make_run(skill=0.9, instructions=5)).suites
    assert judge_suite(good).outcome == "helped"
    assert [result.round for result in good.results] == [0, 1]
    assert set(good.answers) == {"base", "seeds-only", "tuned"}


def test_a_model_that_learned_nothing_is_not_called_better(
    make_run: Callable[..., RunDirectory],
) -> None:
    (same,) = read_facts(make_run(skill=0.05, seeds_only=False, instructions=5, rounds=1)).suites
    assert judge_suite(same).outcome == "unclear"


def test_what_is_right_is_said_beside_what_is_alike() -> None:
    rows = (
        pair("base-stopped", 20.0, 10.0, 30.0, "accuracy"),
        pair("seeds-only", 1.0, -4.0, 6.0, "accuracy"),
    )
    found = comparison(40.0, 30.0, 50.0, *rows, base_stopped=1.0, tuned=2.0)
    right = {"base-stopped": 30.0, "tuned": 50.0}
    scores = tuple(s.model_copy(update={"accuracy": right[s.system]}) for s in found.scores)
    said = judge_suite(suite(found.model_copy(update={"scores": scores}))).details
    assert (
        "By accepted answers and constraints: +20.0 points of accuracy (10.0 to 30.0) over the "
        "stop-controlled base, from 30.0 % right to 50.0 %." in said
    )
    assert any("cannot be told whether" in s and "+1.0 points of accuracy" in s for s in said)
