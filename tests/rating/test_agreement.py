import random

import pytest

from selfinstruct_train.rating.agreement import (
    cohen_kappa,
    describe,
    krippendorff_alpha,
    summarise_ratings,
)
from selfinstruct_train.rating.store import GRADES, Grade, Rating


def rating(rater: str, answer: str, grade: Grade, systems: tuple[str, ...] = ("tuned",)) -> Rating:
    return Rating(
        act="rate",
        rater=rater,
        suite="made",
        round=0,
        task_id=answer,
        question="q" + answer,
        answer=answer,
        systems=systems,
        grade=grade,
        at="2026-01-01T00:00:00+00:00",
    )


def two_raters(n: int, seed: int) -> list[Rating]:
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        first = rng.choices(GRADES, (5, 3, 2, 1))[0]
        second = first if rng.random() < 0.6 else rng.choice(GRADES)
        rows += [rating("ann", str(i), first), rating("ben", str(i), second)]
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learns_on_the_same_ratings(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rows = two_raters(60, seed)
    a, b = ([str(row.grade) for row in rows if row.rater == name] for name in ("ann", "ben"))
    (pair,) = summarise_ratings(rows).pairs
    assert pair.kappa == pytest.approx(metrics.cohen_kappa_score(a, b), abs=1e-12)
    good = [[label in "AB" for label in labels] for labels in (a, b)]
    assert pair.kappa_good == pytest.approx(metrics.cohen_kappa_score(*good), abs=1e-12)


def test_kappa_is_not_defined_where_chance_alone_agrees_fully() -> None:
    assert cohen_kappa("AAA", "AAA") is None
    assert cohen_kappa("", "") is None
    assert cohen_kappa("AABB", "AABB") == 1.0
    assert cohen_kappa("AAA", "ABA") == 0.0


def test_alpha_equals_krippendorffs_own_worked_example() -> None:
    raters = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[int(r[i]) for r in raters if r[i] != "."] for i in range(12)]
    assert krippendorff_alpha(units, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_alpha_leaves_out_what_one_rater_saw_and_is_not_defined_without_variety() -> None:
    assert krippendorff_alpha([[0, 0], [1, 1], [3]], "nominal") == 1.0
    assert krippendorff_alpha([[0, 0], [0, 0], [3]], "nominal") is None
    assert krippendorff_alpha([], "ordinal") is None


def test_a_second_rater_does_not_narrow_the_interval() -> None:
    one = [rating("ann", str(i), "A" if i % 2 else "C") for i in range(10)]
    two = [*one, *(row.model_copy(update={"rater": "ben"}) for row in one)]
    (alone,), (both,) = summarise_ratings(one).models, summarise_ratings(two).models
    assert (alone.answers, alone.grades, both.answers, both.grades) == (10, 10, 10, 20)
    assert alone.shares == both.shares


def test_an_answer_of_two_models_counts_for_each_and_once_for_agreement() -> None:
    rows = [rating(name, "x", "B", ("seeds-only", "tuned")) for name in ("ann", "ben")]
    summary = summarise_ratings(rows)
    assert [model.system for model in summary.models] == ["seeds-only", "tuned"]
    assert [share.share for share in summary.models[0].shares] == [0, 1, 0, 0, 1]
    assert summary.pairs[0].answers == 1


def test_alpha_is_told_of_three_raters_and_agreement_asked_for_with_one() -> None:
    three = [*two_raters(9, 0), *(rating("cy", str(i), "A") for i in range(9))]
    assert "all 3 raters: Krippendorff's alpha" in describe(summarise_ratings(three))
    assert "agreement needs two raters" in describe(summarise_ratings([rating("ann", "x", "A")]))
    assert "nobody has graded" in describe(summarise_ratings([]))
