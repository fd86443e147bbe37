from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_train.records import Rejection
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.figures import yield_plot
from selfinstruct_train.report.tables import (
    acceptance,
    instance_yield,
    instruction_yield,
    paper_statistics,
)
from selfinstruct_train.report.treemap import Box, squarify
from selfinstruct_train.report.wording import (
    clip,
    duration,
    number,
    share,
    shorten,
    signed,
    spread,
    visible,
)
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore

MakeRun = Callable[..., RunDirectory]


def test_every_candidate_is_counted_once(make_run: MakeRun) -> None:
    facts = read_facts(make_run(until="instances", instructions=60))
    rows = [row for r in facts.rounds for row in (*r.instructions, *r.instances)]
    rejections = [row for r in facts.rounds for row in r.rejections]
    found = (*instruction_yield(facts.rounds), *instance_yield(facts.rounds))
    assert sum(row.rows for row in found) == len(rows) + len(rejections)
    assert [row.fate for row in found if row.fate == "kept"] == ["kept", "kept"]
    assert sum(row.percent for row in instruction_yield(facts.rounds)) == pytest.approx(100)


def test_what_is_over_a_cap_is_no_fault(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="instances", instructions=30)
    directory = run.round(0)
    store = RowStore(directory.rejected("instances"), Rejection)
    (first, *_) = store.read()
    store.append([first.model_copy(update={"reason": "too_many"})] * 50)
    rows = instance_yield(read_facts(run).rounds)
    assert {row.fate: row.is_fault for row in rows} == {
        "kept": False,
        "over the cap, no fault": False,
        "conflicting outputs": True,
    }
    plot = yield_plot(rows, "instances", "yield")
    assert plot is not None
    assert "what was at fault fell to “conflicting outputs”" in plot.caption
    assert "50 were sound but over the cap for one instruction" in plot.caption


def test_acceptance_stretches_add_up_to_the_round(make_run: MakeRun) -> None:
    (facts,) = read_facts(make_run(rounds=1, until="instructions", instructions=120)).rounds
    points = acceptance(facts, points=4, fewest=1)
    total = len(facts.instructions) + len(facts.rejections)
    assert 3 <= len(points) <= 5
    assert points[-1].candidates <= total
    ends = [0, *(point.candidates for point in points)]
    kept = sum(
        point.percent / 100 * (end - start)
        for point, start, end in zip(points, ends, ends[1:], strict=False)
    )
    left = total - points[-1].candidates
    assert len(facts.instructions) - left - 1e-6 <= kept <= len(facts.instructions) + 1e-6


def test_a_stretch_too_short_to_mean_anything_is_no_point(make_run: MakeRun) -> None:
    (facts,) = read_facts(make_run(rounds=1, until="instructions", instructions=5)).rounds
    assert acceptance(facts, fewest=100) == ()


def test_statistics_of_the_run_stand_beside_the_papers(make_run: MakeRun) -> None:
    facts = read_facts(make_run(until="instances", instructions=40))
    rows = {row.name: row for row in paper_statistics(facts)}
    assert (rows["Instructions"].run, rows["Instructions"].paper) == ("80", "52,445")
    assert rows["… classification"].run == "20"
    assert rows["… classification"].run_share == "25.0 %"
    assert rows["… classification"].paper_share == "22.1 %"
    inputs = [row.input for r in facts.rounds for row in r.instances]
    assert rows["… with empty input"].run == str(inputs.count(""))
    words = [len(text.split()) for text in inputs if text]
    mean = rows["Words of an input that is not empty, mean"]
    assert (mean.run, mean.paper) == (f"{sum(words) / len(words):.1f}", "12.7")


def test_statistics_that_are_not_there_are_dashes_not_zeros(make_run: MakeRun) -> None:
    facts = read_facts(make_run(rounds=1, until="instructions", instructions=5))
    rows = {row.name: row for row in paper_statistics(facts)}
    assert rows["… classification"].run == "–"
    assert rows["Words of an output, mean"].run == "–"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=25))
def test_a_treemap_gives_each_part_its_share_and_lets_none_overlap(sizes: list[int]) -> None:
    sizes.sort(reverse=True)
    boxes = squarify(sizes, Box(0, 0, 480, 420))
    assert len(boxes) == len(sizes)
    for size, box in zip(sizes, boxes, strict=True):
        assert box.width * box.height == pytest.approx(480 * 420 * size / sum(sizes), rel=1e-6)
        assert box.x >= -1e-6 and box.x + box.width <= 480 + 1e-6
        assert box.y >= -1e-6 and box.y + box.height <= 420 + 1e-6
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert min(wide, high) < 1e-6


def test_numbers_are_put_as_a_reader_expects() -> None:
    assert number(1234567) == "1,234,567"
    assert number(-0.5) == "−0.5"
    assert number(-0.04) == "0.0"
    assert number(None) == "–"
    assert (signed(1.25, 2), signed(-3.0), signed(0.0), signed(0.04)) == (
        "+1.25",
        "−3.0",
        "0.0",
        "0.0",
    )
    assert (share(1, 8), share(0, 0)) == ("12.5 %", "–")
    assert (duration(12.34), duration(61), duration(7260)) == ("12.3 s", "1 min 1 s", "2 h 1 min")
    assert (shorten("abcdef", 6), shorten("ab cdefg", 4)) == ("abcdef", "ab…")
    assert (clip("abcdef", 6), clip("abcdefg", 6)) == ("abcdef", "abcdef … (1 more characters)")


def test_a_sample_is_spread_from_the_first_to_the_last() -> None:
    assert spread(range(10), 4) == (0, 3, 6, 9)
    assert spread(range(3), 4) == (0, 1, 2)
    assert spread(range(5), 1) == (0,)


def test_marks_are_spelled_out_and_letters_left_alone() -> None:
    assert visible("a\u202eb\u200b\n\tc") == "a⟨U+202E⟩b⟨U+200B⟩\n\tc"
    for honest in ("naïve — “quotes” 漢字 العربية", "👩\u200d🚀", "می\u200cخواهم"):
        assert visible(honest) == honest
