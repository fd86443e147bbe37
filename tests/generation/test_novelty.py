import gzip
import os
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.text import novelty, rouge
from selfinstruct_train.text import prefix_filter as overlap
from selfinstruct_train.text.novelty import NoveltyIndex, NoveltyResult
from selfinstruct_train.text.words import words

MATERIAL = Path(
    os.environ.get("SELFINSTRUCT_MATERIAL", Path(__file__).parents[2].parent / "shared")
)
SCORER = RougeScorer(["rougeL"], use_stemmer=False)

few_words = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=14).map(" ".join)
kinds = ["Tell", "tell", "a", "A", "the", "of", "3", "é", "naïve", "诗", "--", "İ"]
few_kinds = st.lists(st.sampled_from(kinds)).map(" ".join)
any_text = st.text(max_size=40)
long_text = st.lists(st.sampled_from(["a", "b", "c"]), min_size=60, max_size=150).map(" ".join)
texts = st.one_of(few_words, few_words, few_kinds, any_text, long_text)
thresholds = st.one_of(st.sampled_from([0.0, 0.5, 0.7, 1.0]), st.floats(0, 1))


def fmeasure(candidate: str, entry: str) -> float:
    return SCORER.score(candidate, entry)["rougeL"].fmeasure


def naive(pool: list[str], candidates: list[str], threshold: float) -> list[NoveltyResult]:
    """The loop of the paper's scripts, one candidate and one pool entry at a time."""
    pool, verdicts = list(pool), []
    for number, text in enumerate(candidates):
        scores = [fmeasure(text, entry) for entry in pool]
        accepted = not scores or not max(scores) > threshold
        score = max(scores, default=0.0)
        nearest = pool[scores.index(score)] if scores else None
        verdicts.append(
            NoveltyResult(str(number), accepted, score, nearest, float(np.mean(scores or [0.0])))
        )
        if accepted:
            pool.append(text)
    return verdicts


def admitted(
    pool: list[str], candidates: list[str], threshold: float, batch: int = 10**9
) -> list[NoveltyResult]:
    """What the index says, with the texts themselves as ids."""
    index = NoveltyIndex(threshold=threshold)
    index.extend((text, text) for text in pool)
    verdicts = []
    for start in range(0, len(candidates), batch):
        rows = [(text, text) for text in candidates[start : start + batch]]
        verdicts += index.admit(rows)
    return [row._replace(id=str(number)) for number, row in enumerate(verdicts)]


@given(st.text())
def test_rouge_words_are_those_of_rouge_score(text: str) -> None:
    assert words(text, "rouge") == tokenize.tokenize(text, None)


@settings(deadline=None)
@given(st.lists(texts, max_size=8), st.lists(texts, max_size=8), thresholds)
def test_admission_is_the_naive_loop_to_the_last_bit(
    pool: list[str], candidates: list[str], threshold: float
) -> None:
    assert admitted(pool, candidates, threshold) == naive(pool, candidates, threshold)


@settings(deadline=None)
@given(st.lists(texts, max_size=5), st.lists(texts, max_size=20), st.integers(1, 20))
def test_batch_size_does_not_matter(pool: list[str], candidates: list[str], size: int) -> None:
    assert admitted(pool, candidates, 0.7, batch=size) == admitted(pool, candidates, 0.7)


@settings(deadline=None)
@given(st.lists(texts, max_size=20))
def test_block_size_does_not_matter(candidates: list[str]) -> None:
    whole = admitted([], candidates, 0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "_BLOCK_CELLS", 8)
        patch.setattr(novelty, "_BLOCK_ROWS", 3)
        assert admitted([], candidates, 0.7) == whole


def ties_at_seven_tenths() -> list[tuple[int, int, int]]:
    """(common, candidate, entry) lengths whose F1 is exactly 7/10."""
    return [
        (common, target, entry)
        for target in range(1, 61)
        for entry in range(1, 61)
        for common in range(1, min(target, entry) + 1)
        if Fraction(2 * common, target + entry) == Fraction(7, 10)
    ]


def test_at_exactly_seven_tenths_the_float_decides_as_in_rouge_score() -> None:
    rejected = 0
    ties = ties_at_seven_tenths()
    for common, target, entry in ties:
        shared = [f"s{i}" for i in range(common)]
        text = " ".join([*shared, *(f"c{i}" for i in range(target - common))])
        known = " ".join([*shared, *(f"p{i}" for i in range(entry - common))])
        index = NoveltyIndex(threshold=0.7)
        index.add("known", known)
        score = index.search([text])[0].score
        assert score == fmeasure(text, known)
        decision = index.decide([("new", text)])[0]
        assert decision.accepted == (not score > 0.7)
        rejected += not decision.accepted
    assert 0 < rejected < len(ties)


@settings(deadline=None)
@given(st.lists(texts, max_size=10), st.lists(texts, max_size=30), thresholds)
def test_decisions_alone_are_those_of_admission(
    pool: list[str], candidates: list[str], threshold: float
) -> None:
    index = NoveltyIndex(threshold=threshold)
    index.extend((text, text) for text in pool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_FIRST_ORDER", 4)
        decisions = index.decide([(text, text) for text in candidates])
    for verdict, decision in zip(admitted(pool, candidates, threshold), decisions, strict=True):
        assert decision.accepted == verdict.accepted
        if not verdict.accepted:
            assert decision.nearest == (verdict.nearest_id, verdict.score)
        else:
            assert decision.nearest is None


def test_decisions_alone_hold_on_a_larger_stream_of_near_copies() -> None:
    rng = random.Random(5)
    vocabulary = [f"w{i}" for i in range(300)]
    stream: list[str] = []
    for _ in range(2500):
        fresh = [rng.choice(vocabulary) for _ in range(rng.randint(1, 90))]
        base = rng.choice(stream).split() if stream and rng.random() < 0.6 else fresh
        stream.append(" ".join(w if rng.random() < 0.8 else rng.choice(vocabulary) for w in base))
    verdicts = admitted([], stream, 0.7)
    decisions = NoveltyIndex().decide([("", text) for text in stream])
    assert [d.accepted for d in decisions] == [v.accepted for v in verdicts]
    assert 100 < sum(v.accepted for v in verdicts) < len(stream) - 100


@settings(deadline=None)
@given(st.lists(texts, max_size=10), st.lists(texts, max_size=30), thresholds)
def test_looking_back_finds_what_admission_saw(
    pool: list[str], candidates: list[str], threshold: float
) -> None:
    index = NoveltyIndex(threshold=threshold)
    index.extend((text, text) for text in pool)
    index.decide([(text, text) for text in candidates])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "_BLOCK_ROWS", 3)
        results = index.look_back(range(len(pool), len(index)))
    joined = [v for v in admitted(pool, candidates, threshold) if v.accepted]
    assert [(r.score, r.nearest[0].id if r.nearest else None, r.mean) for r in results] == [
        (v.score, v.nearest_id, v.mean) for v in joined
    ]


def test_decisions_alone_take_entries_longer_than_any_before() -> None:
    index = NoveltyIndex()
    short, long = "a b c", " ".join(["a", *(f"w{i}" for i in range(200))])
    rows = index.decide([("", text) for text in (short, short, long, short, long)])
    assert [row.accepted for row in rows] == [True, False, True, False, False]


def test_decisions_and_admissions_share_one_pool() -> None:
    index = NoveltyIndex()
    assert index.decide([("a", "tell a story of a cat")])[0].accepted
    assert not index.admit([("b", "tell a story of a dog")])[0].accepted
    assert index.admit([("c", "sort the list of numbers")])[0].accepted
    assert index.decide([("d", "sort the list of numbers now")])[0].nearest == ("c", 10 / 11)
    assert len(index) == 2


def test_of_near_copies_in_one_batch_the_first_joins() -> None:
    one, two = "write a poem about the sea", "write a poem about the lake"
    for order in ([one, two], [two, one]):
        assert [v.accepted for v in admitted([], order, 0.7)] == [True, False]


def test_a_rejected_candidate_bars_nobody() -> None:
    chain = ["a b c d e f g h", "a b c d e f x y", "a b c d x y z x"]
    first, second, third = admitted([], chain, 0.7)
    assert (first.accepted, second.accepted, third.accepted) == (True, False, True)
    assert third.nearest_id == chain[0]


def test_texts_without_words_score_zero_and_join() -> None:
    verdicts = admitted(["tell a story"], ["", "?!", "", "诗"], 0.0)
    assert all(v.accepted and v.score == 0.0 and v.nearest_id == "tell a story" for v in verdicts)


def test_in_an_empty_pool_nothing_is_near() -> None:
    result = NoveltyIndex().search(["tell a story"], k=3)[0]
    assert result == (0.0, (), 0.0)
    assert NoveltyIndex().admit([("a", "tell a story")])[0] == ("a", True, 0.0, None, 0.0)


@settings(deadline=None)
@given(st.lists(few_words, min_size=1, max_size=15), few_words, st.integers(0, 20))
def test_the_k_nearest_are_the_highest_and_of_equals_the_earliest(
    pool: list[str], text: str, k: int
) -> None:
    index = NoveltyIndex()
    index.extend((str(i), entry) for i, entry in enumerate(pool))
    scores = [fmeasure(text, entry) for entry in pool]
    order = sorted(range(len(pool)), key=lambda i: (-scores[i], i))[:k]
    assert index.search([text], k=k)[0].nearest == tuple((str(i), scores[i]) for i in order)


def test_more_words_than_characters_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = [
        " ".join(f"w{random.Random(i).randint(i // 2, i + 9)}" for i in range(j, j + 7))
        for j in range(60)
    ]
    plain = admitted([], stream, 0.5), NoveltyIndex(threshold=0.5).decide([("", t) for t in stream])
    monkeypatch.setattr(rouge, "_LAST_CHARACTER", 20)
    coded = admitted([], stream, 0.5), NoveltyIndex(threshold=0.5).decide([("", t) for t in stream])
    assert coded == plain
    assert {v.accepted for v in plain[0]} == {True, False}


def test_word_numbers_skip_the_surrogates() -> None:
    vocabulary = rouge.Vocabulary("rouge")
    code = vocabulary.encode(" ".join(f"w{i}" for i in range(0xD800 + 10)))
    assert isinstance(code, str)
    assert code.encode("utf-8")
    assert len(set(code)) == 0xD800 + 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("写一首诗。Write 3行", ["写", "一", "首", "诗", "write", "3", "行"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("e\u0301te\u0301 ÉTÉ", ["été", "été"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("카드를 써 줘", ["카드를", "써", "줘"]),
        ("がか\u3099", ["が", "が"]),
        ("don't 😀 x_y", ["don", "t", "x", "y"]),
    ],
)
def test_unicode_words(text: str, expected: list[str]) -> None:
    assert words(text, "unicode") == expected


@given(st.lists(st.sampled_from(["tell", "A", "story", "2", "of", "Cats"])).map(" ".join))
def test_on_plain_english_both_tokenizers_agree(text: str) -> None:
    assert words(text, "unicode") == words(text, "rouge")


def test_unicode_tokenizer_rejects_a_chinese_near_copy_that_rouge_cannot_see() -> None:
    pair = [("a", "写一首关于春天的诗"), ("b", "写一首关于冬天的诗")]
    assert [v.accepted for v in NoveltyIndex(tokenizer="unicode").admit(pair)] == [True, False]
    assert [v.accepted for v in NoveltyIndex(tokenizer="rouge").admit(pair)] == [True, True]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_zero_to_one_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        NoveltyIndex(threshold=threshold)


def test_real_instructions_score_as_rouge_score_scores_them() -> None:
    path = MATERIAL / "bench" / "instructions_en_52k.txt.gz"
    if not path.exists():
        pytest.skip(f"no {path}; set SELFINSTRUCT_MATERIAL to the folder that holds bench/")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = random.Random(3).sample([line.rstrip("\n") for line in lines], 240)
    rows += [" ".join(row.split()[1:] + ["please"]) for row in rows[::6]]
    assert admitted(rows[:100], rows[100:], 0.7) == naive(rows[:100], rows[100:], 0.7)
