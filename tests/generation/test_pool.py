import random

import pytest

from selfinstruct_train.generation import pool as pools
from selfinstruct_train.generation.pool import Admission, Candidate, Pool, is_scored
from selfinstruct_train.records import Instance, Neighbour, SeedTask
from selfinstruct_train.text.novelty import NoveltyIndex

SEEDS = [
    SeedTask(
        id=f"s{i}",
        name="seed",
        instruction=text,
        instances=(Instance(output="x"),),
        is_classification=False,
    )
    for i, text in enumerate(("sort the list of numbers", "write a poem about the sea"))
]


def stream(size: int) -> list[Candidate]:
    rng = random.Random(7)
    words = [
        "sort",
        "the",
        "list",
        "of",
        "numbers",
        "write",
        "a",
        "poem",
        "about",
        "sea",
        "cat",
        "dog",
        "name",
        "count",
        "story",
    ]
    return [
        Candidate(f"c{i}", " ".join(rng.choice(words) for _ in range(rng.randint(3, 12))))
        for i in range(size)
    ]


def admitted(candidates: list[Candidate], batch: int) -> list[Admission]:
    pool = Pool(SEEDS, "rouge", 0.7)
    return [
        admission
        for start in range(0, len(candidates), batch)
        for admission in pool.admit(candidates[start : start + batch])
    ]


def test_a_pool_decides_and_scores_as_a_comparison_with_every_entry() -> None:
    candidates = stream(400)
    pairs = [(candidate.id, candidate.instruction) for candidate in candidates]
    texts = {task.id: task.instruction for task in SEEDS} | dict(pairs)
    index, seeds = NoveltyIndex(), NoveltyIndex()
    for each in (index, seeds):
        each.extend((task.id, task.instruction) for task in SEEDS)
    expected = []
    for verdict in index.admit(pairs):
        assert verdict.nearest_id is not None
        near = Neighbour(
            id=verdict.nearest_id,
            instruction=texts[verdict.nearest_id],
            score=round(verdict.score, 6),
        )
        (seed,) = seeds.search([texts[verdict.id]])[0].nearest
        by_seed = Neighbour(id=seed.id, instruction=texts[seed.id], score=round(seed.score, 6))
        expected.append(
            Admission(True, near, verdict.mean, by_seed)
            if verdict.accepted
            else Admission(False, near, None, None)
        )
    assert admitted(candidates, 64) == expected
    assert {row.accepted for row in expected} == {True, False}


def test_in_a_large_pool_only_a_fixed_sample_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = stream(400)
    whole = admitted(candidates, 64)
    monkeypatch.setattr(pools, "_ALL_SCORED", 40)
    monkeypatch.setattr(pools, "_COST_OF_SCORES", 10)
    sampled = admitted(candidates, 64)
    assert sampled == admitted(candidates, 7), "whatever the batches"
    accepted = [pair for pair in zip(whole, sampled, strict=True) if pair[0].accepted]
    for entries, (full, part) in enumerate(accepted, len(SEEDS)):
        if is_scored(entries):
            assert part == full
        else:
            assert part == full._replace(nearest=None, mean_similarity=None)
    assert [a for a in whole if not a.accepted] == [a for a in sampled if not a.accepted]
    assert 40 < sum(row.mean_similarity is not None for row in sampled) < len(accepted) / 2


def test_the_cost_of_scores_does_not_grow_with_the_pool() -> None:
    for entries in (10_000, 100_000, 1_000_000):
        compared = sum(n for n in range(entries, 2 * entries) if is_scored(n))
        assert compared < 1_600 * entries
    assert all(is_scored(n) for n in range(10_000))
