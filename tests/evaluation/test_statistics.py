"""Intervals that keep their promise."""

import warnings

import numpy as np
import pytest
from scipy import stats

from selfinstruct_train.errors import DataError
from selfinstruct_train.statistics import (
    bootstrap_interval,
    comparison_rng,
    count_wins,
    effective_size,
    wilson_interval,
)

N = 252


def differences(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Like differences of ROUGE-L: mostly small, many ties, a long tail of gains; mean 4."""
    tied = rng.random(shape) < 0.3
    return np.where(tied, 0.0, rng.gamma(1.5, 12.0, shape) - 18.0 + 4.0 / 0.7)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_a_95_percent_interval_covers_the_truth_in_93_to_97_percent(kind: str) -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        d = rng.normal(4.0, 30.0, N) if kind == "normal" else differences(rng, (N,))
        interval = bootstrap_interval(d, rng, 600, 0.95)
        covered += interval.low <= 4.0 <= interval.high
    assert 930 <= covered <= 970


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_agrees_with_scipy(confidence: float) -> None:
    d = differences(np.random.default_rng(1), (N,))
    ours = bootstrap_interval(d, np.random.default_rng(2), 20_000, confidence)
    theirs = stats.bootstrap(
        (d,),
        np.mean,
        n_resamples=20_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    spread = d.std() / np.sqrt(N)
    assert ours.mean == pytest.approx(d.mean())
    # 20,000 resamples fix the ends of the interval to about 2 % of the standard error.
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * spread)


def test_pairing_removes_what_makes_a_task_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(50, 30, N)
    a, b = hardness + rng.normal(0, 2, N), hardness + 1 + rng.normal(0, 2, N)
    paired = bootstrap_interval(b - a, rng, 2000, 0.95)
    shuffled = bootstrap_interval(rng.permutation(b) - a, rng, 2000, 0.95)
    assert paired.low > 0 > shuffled.low


TASKS, INSTANCES = 119, 25


def by_task(rng: np.random.Generator, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Differences with mean 0 of tasks with many instances each, and each one's task."""
    tasks = np.repeat(np.arange(TASKS), INSTANCES)
    noise = rng.normal(0.0, 15.0, len(tasks))
    return rng.normal(0.0, effect, TASKS)[tasks] + noise, tasks


@pytest.mark.parametrize(("effect", "misses"), [(3.0, 0.16), (6.0, 0.36), (10.0, 0.54)])
def test_instances_of_one_task_count_as_one_look_at_it(effect: float, misses: float) -> None:
    rng = np.random.default_rng(7)
    runs, single, clustered = 400, 0, 0
    for _ in range(runs):
        d, tasks = by_task(rng, effect)
        by_instance = bootstrap_interval(d, rng, 150, 0.95)
        by_cluster = bootstrap_interval(d, rng, 600, 0.95, clusters=tasks)
        single += not by_instance.low <= 0.0 <= by_instance.high
        clustered += not by_cluster.low <= 0.0 <= by_cluster.high
    assert single / runs == pytest.approx(misses, abs=0.07)
    assert 0.03 <= clustered / runs <= 0.08


def test_weighted_instances_of_one_task_count_as_one_look_at_it() -> None:
    rng = np.random.default_rng(8)
    runs, missed = 400, 0
    for _ in range(runs):
        d, tasks = by_task(rng, 6.0)
        weights = rng.integers(1, 4, len(d)).astype(float)
        interval = bootstrap_interval(d, rng, 600, 0.95, weights=weights, clusters=tasks)
        missed += not interval.low <= 0.0 <= interval.high
    assert 0.03 <= missed / runs <= 0.08


def test_clusters_leave_the_mean_over_instances_and_are_known_by_equality_alone() -> None:
    d, weights = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 1.0, 2.0, 4.0])

    def interval(*clusters: int, weights: np.ndarray | None = None) -> tuple[float, ...]:
        rng = np.random.default_rng(0)
        return bootstrap_interval(d, rng, 400, 0.95, weights=weights, clusters=np.array(clusters))

    assert interval(0, 0, 0, 1)[0] == 4.0
    assert interval(0, 0, 0, 1, weights=weights)[0] == pytest.approx(49 / 8)
    assert interval(0, 0, 0, 1) == interval(3, 3, 3, 7)
    alone = bootstrap_interval(d, np.random.default_rng(0), 400, 0.95)
    assert interval(0, 1, 2, 3) == alone
    # The three instances of the first task are drawn together or not at all.
    assert interval(0, 0, 0, 1)[1:] == (2.0, 10.0)


def test_one_task_says_nothing_however_many_instances_it_has() -> None:
    rng = np.random.default_rng(0)
    found = bootstrap_interval(np.full(50, 7.0), rng, 100, 0.95, clusters=np.zeros(50, int))
    assert found == (7.0, -100.0, 100.0)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 10), (120, 252)])
def test_wilson_interval_equals_scipys(k: int, n: int) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    expected = k / n, theirs.low, theirs.high
    assert wilson_interval(k / n, n, 0.95) == pytest.approx(expected, abs=1e-9)


def test_the_same_generator_gives_the_same_interval_and_names_give_the_generator() -> None:
    d = differences(np.random.default_rng(1), (40,))

    def ends(*names: str, seed: int = 1) -> tuple[float, ...]:
        return bootstrap_interval(d, comparison_rng(seed, *names), 500, 0.95)

    assert ends("a", "b") == ends("a", "b")
    assert len({ends("a", "b"), ends("ab"), ends("b", "a"), ends("a", "b", seed=2)}) == 4


def test_resamples_in_several_parts_are_all_used() -> None:
    # 30,000 pairs exceed what is drawn at once for 200 resamples.
    d = np.random.default_rng(0).normal(1.0, 1.0, 30_000)
    interval = bootstrap_interval(d, np.random.default_rng(0), 200, 0.95)
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low == pytest.approx(3.92 * d.std() / np.sqrt(30_000), rel=0.2)


def test_one_pair_says_nothing_and_none_is_an_error() -> None:
    rng = np.random.default_rng(0)
    assert bootstrap_interval(np.array([7.0]), rng, 100, 0.95) == (7.0, -100.0, 100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="no pairs"):
            bootstrap_interval(np.array([]), rng, 100, 0.95)


def test_equal_systems_have_an_interval_of_zero() -> None:
    interval = bootstrap_interval(np.zeros(9), np.random.default_rng(0), 100, 0.95)
    assert interval == (0.0, 0.0, 0.0)


def test_wins_ties_and_losses_count_float_noise_as_a_tie() -> None:
    assert count_wins(np.array([3.0, 1e-12, 0.0, -2.0, 5.0])) == (2, 2, 1)


def test_a_share_of_clustered_values_is_covered_as_promised() -> None:
    """A true share of one half over 30 tasks of 8 pairs each, with an effect of the task."""
    rng = np.random.default_rng(5)
    tasks = np.repeat(np.arange(30), 8)
    runs, single, clustered = 600, 0, 0
    for _ in range(runs):
        chance = rng.beta(1.0, 1.0, 30)[tasks]
        values = (rng.random(240) < chance).astype(float)
        plain = wilson_interval(float(values.mean()), 240, 0.95)
        wide = wilson_interval(float(values.mean()), effective_size(values, tasks), 0.95)
        single += not plain.low <= 0.5 <= plain.high
        clustered += not wide.low <= 0.5 <= wide.high
    assert single / runs > 0.15
    assert 0.02 <= clustered / runs <= 0.08


def test_values_that_stand_alone_or_all_agree_count_as_they_are() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.5])
    assert effective_size(values, np.arange(4)) == 4
    assert effective_size(values, np.zeros(4, int)) == 1
    assert effective_size(np.ones(12), np.repeat(np.arange(3), 4)) == 3
    # Values that differ within a task and not between tasks are no fewer than they are.
    assert effective_size(np.array([0.0, 1.0] * 6), np.repeat(np.arange(6), 2)) == 12
