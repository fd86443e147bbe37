import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.rating.sheet import read_questions
from selfinstruct_train.rating.store import RatingBook, rater_name, read_ratings
from selfinstruct_train.run.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


def test_order_is_each_raters_own_and_betrays_no_model(make_run: MakeRun) -> None:
    questions = read_questions(make_run(questions=12))
    orders = {
        name: [[c.systems for c in q.shuffled(name)] for q in questions] for name in ("ann", "ben")
    }
    assert orders["ann"] != orders["ben"]
    assert orders["ann"] == [[c.systems for c in q.shuffled("ann")] for q in questions]
    assert len({tuple(order) for order in orders["ann"]}) > 1


def test_the_base_is_cut_where_it_begins_another_example(make_run: MakeRun) -> None:
    texts = {c.systems: c.text for c in read_questions(make_run(questions=1))[0].candidates}
    assert set(texts) == {("base-stopped",), ("seeds-only",), ("tuned",)}
    assert texts[("base-stopped",)].strip() == "alpha no. 0"


def test_an_answer_that_two_models_gave_is_shown_once(make_run: MakeRun) -> None:
    (question,) = read_questions(make_run(questions=1, tuned="beta no. {}"))
    assert {c.systems for c in question.candidates} == {
        ("base-stopped",),
        ("seeds-only", "tuned"),
    }


def test_a_run_that_was_not_evaluated_is_told_so(make_run: MakeRun) -> None:
    run = make_run()
    (run.round(0).evaluation("made") / "comparison.json").unlink()
    with pytest.raises(RunError, match="selfinstruct evaluate"):
        read_questions(run)


def test_undo_brings_back_what_was_said_before_also_after_a_restart(make_run: MakeRun) -> None:
    run = make_run(questions=1)
    (question,) = read_questions(run)
    candidate = question.candidates[0]
    book = RatingBook(run)
    book.rate("ann", question, candidate, "A", "")
    book.rate("ben", question, candidate, "D", "")
    book.rate("ann", question, candidate, "C", "hm")
    book.undo("ann")
    assert [(r.rater, r.grade) for r in read_ratings(run)] == [("ann", "A"), ("ben", "D")]
    book = RatingBook(run)
    book.undo("ann")
    assert book.undo("ann") is None
    assert [(r.rater, r.grade) for r in read_ratings(run)] == [("ben", "D")]
    assert len(book.path.read_text("utf-8").splitlines()) == 5


def test_a_comment_alone_is_kept_and_is_no_grade(make_run: MakeRun) -> None:
    run = make_run(questions=1)
    (question,) = read_questions(run)
    RatingBook(run).rate("ann", question, question.candidates[0], None, "unsure")
    assert read_ratings(run) == ()
    (kept,) = RatingBook(run).standing().values()
    assert kept.comment == "unsure"


def test_half_a_line_left_by_a_full_disk_is_cut_before_the_next(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(questions=1)
    (question,) = read_questions(run)
    first, second, third = question.candidates
    book = RatingBook(run)
    book.rate("ann", question, first, "A", "")

    def full(path: Path, data: bytes, **options: bool) -> None:
        with path.open("ab") as file:
            file.write(data[:20])
        raise RunError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("selfinstruct_train.run.stores.append_bytes", full)
        with pytest.raises(RunError, match="full"):
            book.rate("ann", question, second, "B", "")
    book.rate("ann", question, third, "C", "")
    assert [row.grade for row in read_ratings(run)] == ["A", "C"]
    assert [row.grade for row in book.standing().values()] == ["A", "C"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\u202eb", "a\x00b"])
def test_a_name_that_cannot_be_seen_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="visible characters"):
        rater_name(name)


def test_blanks_make_no_second_rater() -> None:
    assert rater_name("  Ann \t Lee ") == "Ann Lee"


def test_two_servers_have_one_store_and_undo_takes_back_the_named_act(make_run: MakeRun) -> None:
    run = make_run(questions=2)
    one, other = read_questions(run)
    here, there = RatingBook(run), RatingBook(run)
    mine = here.rate("ann", one, one.candidates[0], "A", "")
    theirs = there.rate("ann", other, other.candidates[0], "B", "")
    assert len(here.standing()) == len(there.standing()) == 2
    # By name it is this act, though another one was the last.
    undone = here.undo("ann", mine.id)
    assert undone is not None and undone.question == one.id
    assert [r.question for r in read_ratings(run)] == [other.id]
    # Taken back once, it cannot be taken back again, here or there, nor by anybody else.
    assert here.undo("ann", mine.id) is None
    assert there.undo("ben", theirs.id) is None
    assert [r.question for r in read_ratings(run)] == [other.id]
    # Without a name it is the last that stands, whichever server wrote it.
    assert here.undo("ann") == theirs
    assert read_ratings(run) == ()


def test_many_acts_of_two_servers_at_once_are_all_kept(make_run: MakeRun) -> None:
    run = make_run(questions=6)
    questions = read_questions(run)

    def grade(rater: str) -> None:
        book = RatingBook(run)
        for question in questions:
            for candidate in question.candidates:
                book.rate(rater, question, candidate, "A", "x" * 4000)
                book.rate(rater, question, candidate, "B", "")
                book.undo(rater)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(grade, ("ann", "ben", "cy", "di")))
    rows = read_ratings(run)
    answers = sum(len(question.candidates) for question in questions)
    assert len(rows) == 4 * answers and {row.grade for row in rows} == {"A"}


def test_acts_without_names_of_an_earlier_version_are_undone_in_their_order(
    make_run: MakeRun,
) -> None:
    run = make_run(questions=1)
    (question,) = read_questions(run)
    book = RatingBook(run)
    for grade in ("A", "B"):
        book.rate("ann", question, question.candidates[0], grade, "")
    book.undo("ann")
    lines = book.path.read_text("utf-8").splitlines()
    nameless = [{k: v for k, v in json.loads(line).items() if k != "id"} for line in lines]
    book.path.write_text("".join(json.dumps(row) + "\n" for row in nameless), "utf-8")
    assert [row.grade for row in read_ratings(run)] == ["A"]
