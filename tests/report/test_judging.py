"""Judges of known bias: the page must name it, and must not invent one."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import DataError
from selfinstruct_train.evaluation.win_rate import (
    JUDGE_FOLDER,
    PAIRS_FILE,
    SUMMARY_FILE,
    judge_match,
    judge_round,
    make_judge,
    read_match,
)
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.judge_section import judge_section
from selfinstruct_train.report.page import write_report
from selfinstruct_train.run.directory import RunDirectory

from .conftest import with_judge

MakeRun = Callable[..., RunDirectory]
Decide = Callable[[str, str], str]
"""(first answer, second answer) -> what the judge writes."""


def engine(decide: Decide, name: str = "judge-7b") -> ScriptedEngine:
    pattern = re.compile(r"<<<Answer 1\n(.*?)\n>>>.*<<<Answer 2\n(.*?)\n>>>", re.DOTALL)

    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        match = pattern.search(request.prompt)
        assert match
        return ScriptedAnswer(decide(match[1], match[2]))

    found = ScriptedEngine(answer)
    found.model_id = name
    return found


def page_of(run: RunDirectory, decide: Decide, name: str = "judge-7b") -> str:
    """The page of a run after the judge has judged its first round."""
    config = with_judge(run.config(), tasks=("pairwise",))
    judge_round(config, make_judge(config, engine(decide, name)), run, 0, lambda update: None)
    return write_report(run).read_text("utf-8")


def longer(first: str, second: str) -> str:
    x, y = len(first.split()), len(second.split())
    return "Verdict: tie" if x == y else "Verdict: 1" if x > y else "Verdict: 2"


def by_content(first: str, second: str) -> str:
    """Knows nothing of place or length: wants the text that comes first in the alphabet."""
    return "tie" if first == second else "1" if first < second else "2"


@pytest.mark.parametrize(
    ("says", "place", "share"), [("1", "first", "100.0 %"), ("Verdict: 2", "second", "100.0 %")]
)
def test_the_page_names_a_judge_that_looks_at_the_place_alone(
    make_run: MakeRun, says: str, place: str, share: str
) -> None:
    page = page_of(make_run(rounds=1, tasks=30), lambda first, second: says)
    assert f"Position bias: the judge prefers the answer shown {place}. {share} (" in page
    assert "The judge cannot tell" in page
    assert "30 tied, 0 lost" in page
    assert "contradicts itself more often than not" in page


def test_the_page_names_a_judge_that_prefers_the_longer_answer(make_run: MakeRun) -> None:
    page = page_of(make_run(rounds=1, tasks=80, skill=0.5), longer)
    assert "Length bias: the judge prefers the longer answer." in page
    assert "so read the win rate at equal length" in page
    assert "so the preference may be no more than one for length" in page
    assert "No position bias can be told" in page


def test_a_judge_of_the_shorter_answer_is_named_too(make_run: MakeRun) -> None:
    def shorter(first: str, second: str) -> str:
        return longer(second, first)

    page = page_of(make_run(rounds=1, tasks=80, skill=0.5), shorter)
    assert "Length bias: the judge prefers the shorter answer." in page
    assert "The judge prefers the stop-controlled base&#39;s to the tuned model&#39;s" in page


def test_a_judge_without_either_bias_is_accused_of_none(make_run: MakeRun) -> None:
    page = page_of(make_run(rounds=1, tasks=80, skill=0.5), by_content)
    assert "No position bias can be told: of the verdicts that were for one side, 50.0 %" in page
    assert "Position bias:" not in page


def test_verdicts_that_cannot_be_read_stand_apart_with_what_was_said(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=20, skill=1.0)

    def mumbling(first: str, second: str) -> str:
        return "<b>Hard to say</b>" if first.endswith(" 7") else by_content(first, second)

    page = page_of(run, mumbling)
    assert "1 of 20 pairs are in no count above: 1 replies held no readable verdict." in page
    assert "&lt;b&gt;Hard to say&lt;/b&gt;" in page and "<b>" not in page


def test_a_judge_that_says_nothing_readable_yields_no_figure(make_run: MakeRun) -> None:
    page = page_of(make_run(rounds=1, tasks=6), lambda first, second: "hm")
    assert "None of the judge&#39;s verdicts could be read" in page
    assert "6 of 6 pairs are in no count above" in page


def test_a_model_that_judges_itself_is_called_so(make_run: MakeRun) -> None:
    assert "judged itself" in page_of(make_run(rounds=1, tasks=6), by_content, "embedded")
    page = page_of(make_run(rounds=1, tasks=6), by_content)
    assert "judged itself" not in page
    assert "judged by <bdi>judge-7b</bdi>" in page


def test_every_judged_round_has_a_row_and_the_best_round_the_word(make_run: MakeRun) -> None:
    run = make_run(rounds=2, judged=True)
    facts = read_facts(run)
    section = judge_section(facts.suites[0], facts.config, "key")
    assert section is not None
    assert [judged.round for judged in section.judged] == [0, 1]
    assert section.round == facts.suites[0].best.round
    assert [plot.key for plot in section.plots] == ["key-match", "key-grades"]
    assert any("at level A or B" in sentence for sentence in section.sentences)


def test_where_several_models_judged_each_row_names_its_own(make_run: MakeRun) -> None:
    run = make_run(rounds=2, tasks=6, instructions=5)
    for number, name in enumerate(("judge-7b", "judge-70b")):
        config = with_judge(run.config(), tasks=("pairwise",))
        judge_round(
            config, make_judge(config, engine(by_content, name)), run, number, lambda update: None
        )
    page = write_report(run).read_text("utf-8")
    assert page.count('<td class="left"><bdi>judge-7b</bdi></td>') == 1
    assert page.count('<td class="left"><bdi>judge-70b</bdi></td>') == 1


def test_a_run_that_nobody_judged_has_no_such_section(make_run: MakeRun) -> None:
    page = write_report(make_run(rounds=1, tasks=6, instructions=5)).read_text("utf-8")
    assert "What the judge says" not in page and 'href="#judge"' not in page


def test_a_damaged_summary_is_named_with_the_mend(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=6, instructions=5, judged=True)
    path = run.round(0).evaluation("made") / JUDGE_FOLDER / SUMMARY_FILE
    path.write_text("{}")
    with pytest.raises(DataError, match=r"judge/summary\.json: .*delete it and run"):
        write_report(run)


def test_a_run_and_a_file_are_judged_and_a_second_time_nothing_is_asked(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(rounds=1, tasks=12)
    config = run.config()
    (suite,) = config.evaluation.suites
    other = tmp_path / "other.jsonl"
    other.write_bytes((run.round(0).evaluation("made") / "base.jsonl").read_bytes())
    match = read_match(other, run.path, suite)
    assert match.folder_name == "judge-made-other-run"
    asked = engine(by_content)
    judge = make_judge(config, asked)
    first = judge_match(config, judge, match, tmp_path / "said", lambda update: None)
    assert first.pairwise is not None
    assert (first.pairwise.a, first.pairwise.b, first.pairwise.pairs) == ("other", "run", 12)
    assert len(asked.asked) == 24
    again = judge_match(config, judge, match, tmp_path / "said", lambda update: None)
    assert again == first
    assert len(asked.asked) == 24
    assert {p.name for p in (tmp_path / "said").iterdir()} == {PAIRS_FILE, SUMMARY_FILE}
