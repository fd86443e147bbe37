from collections.abc import Callable

import pytest

from selfinstruct_train.evaluation.selection import Selection
from selfinstruct_train.records import Comparison, Halves, PairedComparison, SystemScore
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.headline import closing_lines, judge_suite
from selfinstruct_train.report.suite_facts import Result, SuiteFacts
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


def test_without_a_rival_the_headline_is_tuning_against_the_stop_controlled_base() -> None:
    verdict = judge_suite(suite(comparison(41.2, 37.0, 45.1)))
    assert verdict.outcome == "helped"
    assert verdict.headline == (
        "Tuning helped: +41.2 ROUGE-L (95 % interval 37.0 to 45.1) over the base as it is asked "
        "without examples, cut where it begins another one (stop-controlled). Measured on 252 "
        "items of tasks."
    )
    hurt = judge_suite(suite(comparison(-4.0, -7.5, -0.5)))
    assert hurt.outcome == "hurt"
    assert hurt.headline.startswith("Tuning hurt: −4.0 ROUGE-L (95 % interval −7.5 to −0.5)")
    (detail,) = hurt.details
    assert "There is no model tuned on the seed tasks alone" in detail


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 3.0), (-1.0, 0.0), (0.0, 0.0)])
def test_an_interval_that_touches_zero_claims_nothing(low: float, high: float) -> None:
    middle = (low + high) / 2
    rivals = pair("seeds-only", middle, low, high), pair("base-few-shot", middle, low, high)
    for rows in ((), rivals):
        verdict = judge_suite(suite(comparison(middle, low, high, *rows)))
        assert verdict.outcome == "unclear"
        said = verdict.headline.replace("whether the model's own data helped", "")
        assert "cannot be told" in verdict.headline
        assert not any(word in said for word in ("helped", "hurt", "better", "worse"))


OWN = {
    "helped": (5.0, 2.0, 9.0, "The model's own data helped: +5.0 points of oracle accuracy (95 % "
               "interval 2.0 to 9.0) over tuning on the seed tasks alone."),
    "hurt": (-5.0, -9.0, -2.0, "The model's own data hurt: −5.0 points of oracle accuracy (95 % "
             "interval −9.0 to −2.0) against tuning on the seed tasks alone."),
    "unclear": (1.0, -1.0, 3.0, "It cannot be told whether the model's own data helped: +1.0 "
                "points of oracle accuracy (95 % interval −1.0 to 3.0) over tuning on the seed "
                "tasks alone."),
}  # fmt: skip
FEW = {
    "helped": (5.0, 2.0, 9.0, "The tuned model is better than the untuned base that is shown "
               "worked examples (few-shot): +5.0 points of oracle accuracy (95 % interval 2.0"),
    "hurt": (-7.1, -13.9, -0.4, "The tuned model is worse than the untuned base that is shown "
             "worked examples (few-shot): −7.1 points of oracle accuracy (95 % interval −13.9"),
    "unclear": (0.0, -2.0, 2.0, "The tuned model cannot be told apart from the untuned base that "
                "is shown worked examples (few-shot): 0.0 points of oracle accuracy (95 %"),
}  # fmt: skip


@pytest.mark.parametrize("few", FEW)
@pytest.mark.parametrize("own", OWN)
def test_the_headline_is_own_data_and_few_shot_in_one_figure_and_a_loss_is_as_plain_as_a_gain(
    own: str, few: str
) -> None:
    oracle = "oracle_accuracy"
    rows = (
        pair("base-stopped", 60.0, 50.0, 70.0, oracle),
        # The other figure is not what the headline is in.
        pair("seeds-only", 40.0, 30.0, 50.0),
        pair("seeds-only", *OWN[own][:3], oracle),
        pair("base-few-shot", -40.0, -50.0, -30.0),
        pair("base-few-shot", *FEW[few][:3], oracle),
    )
    found = judge_suite(suite(comparison(70.0, 60.0, 80.0, *rows)))
    assert found.headline.startswith(OWN[own][3] + " " + FEW[few][3])
    assert found.headline.endswith("Measured on 252 items of tasks.")
    assert "70.0" not in found.headline and "60.0" not in found.headline
    outcomes = {own, few}
    assert found.outcome == (
        "unclear" if outcomes >= {"helped", "hurt"} or outcomes == {"unclear"}
        else "hurt" if "hurt" in outcomes else "helped"
    )  # fmt: skip
    # What tuning gained over the base comes after, and so does the other figure.
    assert found.details[0].startswith("Tuning helped: +60.0 points of oracle accuracy")
    assert found.details[1] == (
        "The same in ROUGE-L: +40.0 (30.0 to 50.0) against tuning on the seed tasks alone, −40.0 "
        "(−50.0 to −30.0) against the few-shot base, +70.0 (60.0 to 80.0) against the "
        "stop-controlled base."
    )


def test_a_figure_that_few_items_have_does_not_lead() -> None:
    rows = (
        pair("base-stopped", 60.0, 50.0, 70.0, "accuracy").model_copy(update={"n": 125}),
        pair("seeds-only", 3.0, 1.0, 5.0),
        pair("seeds-only", 9.0, 8.0, 10.0, "accuracy").model_copy(update={"n": 125}),
    )
    assert "+3.0 ROUGE-L" in judge_suite(suite(comparison(70.0, 60.0, 80.0, *rows))).headline


@pytest.mark.parametrize(("items", "warns"), [(1, True), (29, True), (30, False)])
def test_below_thirty_items_the_headline_warns(items: int, warns: bool) -> None:
    found = comparison(4.0, 1.0, 7.0).model_copy(update={"n": items})
    headline = judge_suite(suite(found)).headline
    assert (f"Warning: {items} items are too few to rely on" in headline) is warns


def test_where_one_half_chose_rivals_too_are_compared_on_the_other_half() -> None:
    half = (
        pair("base-stopped", 1.0, -2.0, 4.0).model_copy(update={"n": 28}),
        pair("seeds-only", -3.0, -5.0, -1.0).model_copy(update={"n": 28}),
    )
    halves = Halves(choosing=pair("base-stopped", 9.0, 8.0, 10.0), reported=half[0], pairs=half)
    whole = comparison(5, 4, 6, pair("seeds-only", 9.0, 8.0, 10.0))
    whole = whole.model_copy(update={"halves": halves})
    chooser = Selection("tasks", half=True)
    found = judge_suite(suite(whole, comparison(1, 0, 2), chooser=chooser))
    assert "own data hurt: −3.0" in found.headline and "28 items of tasks that" in found.headline
    assert "28 items are too few" in found.headline


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
    assert "+1.0 ROUGE-L (95 % interval −2.0 to 4.0)" in found.headline
    assert "on the 126 items" in found.headline
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
        "Tuning helped: +20.0 points of accuracy (95 % interval 10.0 to 30.0) over the base as it "
        "is asked without examples, cut where it begins another one (stop-controlled), from 30.0 % "
        "right to 50.0 %." in said
    )
    assert any(line.startswith("The same in ROUGE-L: +40.0") for line in said)


def test_a_run_ends_with_the_headline_of_each_suite(make_run: Callable[..., RunDirectory]) -> None:
    facts = read_facts(make_run(skill=0.9, instructions=5))
    lines = list(closing_lines(facts))
    found = judge_suite(facts.suites[0])
    assert lines[1] == f"  {found.headline}" and found.headline.startswith("The model's own data")
    assert lines[0] == f"made, round {facts.suites[0].best_round}:"
    assert [line.strip() for line in lines[2:]] == list(found.details)
    nothing = read_facts(make_run(rounds=1, until="train", instructions=5))
    assert list(closing_lines(nothing)) == ["no round has been evaluated"]
