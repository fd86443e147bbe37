import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.rating.sheet import read_questions
from selfinstruct_train.rating.store import Grade, RatingBook
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.page import write_report
from selfinstruct_train.report.people import PeopleSection, grade_share, people_section
from selfinstruct_train.run.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
HOSTILE = (
    " <script>document.title='owned'</script><img src=x onerror=alert(1)></textarea>"
    "[x](javascript:alert(2))\u202e\u2066"
)


def grade(
    run: RunDirectory, rater: str, choose: Callable[[int, bool], Grade], comment: str = ""
) -> None:
    """Grade every answer by the place of its question and whether the tuned model gave it."""
    book = RatingBook(run)
    for i, question in enumerate(read_questions(run)):
        for candidate in question.candidates:
            book.rate(rater, question, candidate, choose(i, "tuned" in candidate.systems), comment)


def section(run: RunDirectory) -> PeopleSection:
    found = people_section(read_facts(run))
    assert found is not None
    return found


def test_grades_of_each_model_and_the_agreement_are_on_the_page(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=20)
    grade(run, "ann", lambda i, tuned: "A" if tuned else "D")
    grade(run, "bob", lambda i, tuned: "B" if tuned else "D")
    found = section(run)
    assert found.sentences[0] == "2 people graded: ann, bob."
    assert found.sentences[1].startswith("On made, round 0: 100.0 % (")
    assert found.sentences[1].endswith("the tuned model is clearly the better.")
    assert "1.00 (almost perfect) on A or B against C or D" in found.sentences[-1]
    (grades,) = found.grades
    assert [model.system for model in grades.models][0] == "base-stopped"
    tuned = next(model for model in grades.models if model.system == "tuned")
    assert grade_share(tuned, "A").share == grade_share(tuned, "B").share == 0.5
    page = write_report(run).read_text("utf-8")
    assert "What people say" in page and "31 % of the answers at level A" in page


def test_grades_that_overlap_claim_no_difference(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=8, instructions=5)
    grade(run, "ann", lambda i, tuned: "AD"[i % 2])
    said = section(run).sentences
    assert "the two intervals overlap" in said[1]
    assert "needs two who graded the same answers" in said[-1]


def test_three_raters_get_an_alpha_and_every_pair_a_row(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=12, instructions=5)
    for rater, places in (("ann", 12), ("bob", 12), ("cy", 6)):
        grade(run, rater, lambda i, tuned, n=places: "ABCD"[i % 4] if i < n else "D")
    found = section(run)
    assert "Krippendorff's alpha over all raters: " in found.sentences[-1]
    assert "1.00 (almost perfect) for ann and bob on the four levels" in found.sentences[-2]
    assert len(found.summary.pairs) == 3
    page = write_report(run).read_text("utf-8")
    assert "Every two raters" in page


def test_what_raters_wrote_is_shown_as_text(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=4, instructions=5)
    grade(run, "eve" + HOSTILE, lambda i, tuned: "C", comment="No." + HOSTILE)
    page = write_report(run).read_text("utf-8")
    assert "No. &lt;script&gt;" in page and "eve &lt;script&gt;" in page
    assert "⟨U+202E⟩" in page and "\u202e" not in page and "\u2066" not in page
    assert page.count("<script") == 1 and "<img" not in page
    assert 'href="javascript' not in page and "</textarea>" not in page


def test_comments_alone_are_shown_and_count_as_no_grade(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=4, instructions=5)
    book = RatingBook(run)
    question = read_questions(run)[0]
    book.rate("ann", question, question.candidates[0], None, "unsure")
    found = section(run)
    assert found.sentences == ("Nobody has graded an answer yet; there are comments alone.",)
    assert (found.grades, found.commented) == ((), 1)
    assert "unsure" in write_report(run).read_text("utf-8")


def test_a_run_that_nobody_rated_has_no_such_section(make_run: MakeRun) -> None:
    run = make_run(rounds=1, tasks=4, instructions=5)
    assert people_section(read_facts(run)) is None
    assert "What people say" not in write_report(run).read_text("utf-8")


@pytest.mark.parametrize("has_report", [True, False])
def test_the_ratings_command_renews_a_report_and_makes_none(
    make_run: MakeRun, has_report: bool
) -> None:
    run = make_run(rounds=1, tasks=4, instructions=5)
    if has_report:
        write_report(run)
    grade(run, "ann", lambda i, tuned: "B")
    done = CliRunner().invoke(app, ["ratings", str(run.path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["raters"] == ["ann"]
    assert run.report.exists() is has_report
    if has_report:
        assert "1 person graded: ann." in run.report.read_text("utf-8")
