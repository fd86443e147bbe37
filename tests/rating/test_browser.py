import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfinstruct_train.rating.agreement import summarise_ratings
from selfinstruct_train.rating.store import read_ratings
from selfinstruct_train.run.directory import RunDirectory
from tests.helpers.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

HOSTILE = (
    " <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\"></textarea></style>"
    "[x](javascript:document.title='owned')\u202e"
)
MakeRun = Callable[..., RunDirectory]
Rows = Callable[[RunDirectory], list[dict[str, object]]]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def test_two_raters_grade_by_keys_reload_and_undo(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]], rows: Rows, browser: Browser
) -> None:
    run = make_run(questions=2)
    _, url = serve(run, "ann")
    browser.open(url)
    browser.place("ann: question 1 of 2, 0 graded in full")
    for key in "124":
        browser.key(key)
    browser.place("ann: question 1 of 2, 1 graded in full")
    assert [row["grade"] for row in rows(run)] == ["A", "B", "D"]

    # After the last grade the focus lies on "Next".
    browser.key("Enter")
    browser.place("ann: question 2 of 2, 1 graded in full")
    browser.key("3")
    browser.wait("document.getElementById('status').textContent === 'Saved: C'")
    browser.reload()
    browser.place("ann: question 2 of 2, 1 graded in full")
    assert browser.value("document.querySelector('.answer input:checked').value") == "C"

    browser.key("u")
    browser.wait("document.getElementById('status').textContent === 'Taken back.'")
    assert browser.value("document.querySelectorAll('.answer input:checked').length") == 0
    for key in "311":
        browser.key(key)
    browser.place("ann: question 2 of 2, 2 graded in full")

    browser.click("#change")
    browser.wait("document.activeElement.id === 'name'")
    browser.type("ben 2")
    browser.key("Enter")
    browser.place("ben 2: question 1 of 2, 0 graded in full")
    assert browser.value("document.querySelectorAll('.answer input:checked').length") == 0
    for key in "122":
        browser.key(key)
    browser.place("ben 2: question 1 of 2, 1 graded in full")

    found = read_ratings(run)
    assert [row.rater for row in found].count("ann") == 6
    (pair,) = summarise_ratings(found).pairs
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    by_rater = {
        name: {row.answer: row.grade for row in found if row.rater == name}
        for name in ("ann", "ben 2")
    }
    both = sorted(by_rater["ben 2"])
    a, b = ([grades[answer] for answer in both] for grades in by_rater.values())
    assert (pair.a, pair.b, pair.answers) == ("ann", "ben 2", 3)
    assert pair.kappa == pytest.approx(metrics.cohen_kappa_score(a, b), abs=1e-12)


def test_hostile_text_does_not_run_and_nothing_lies_outside_a_phone(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]], browser: Browser
) -> None:
    run = make_run(questions=1, extra=HOSTILE, tuned="x" * 300 + HOSTILE)
    _, url = serve(run, "<img src=x onerror=\"document.title='owned'\">")
    browser.open(url, width=390)
    browser.wait("document.querySelectorAll('.answer').length === 3")
    time.sleep(0.5)
    assert browser.value("document.title") == "Rate answers"
    assert browser.value("document.querySelectorAll('img, svg, main script, main a').length") == 0
    assert "⟨U+202E⟩" in str(browser.value("document.body.innerText"))
    assert "\u202e" not in str(browser.value("document.body.innerText"))
    assert browser.value("innerWidth") == 390
    assert browser.value("document.documentElement.scrollWidth") == 390
    # Even a script that got into the page would be refused.
    browser.value(
        "document.body.insertAdjacentHTML('beforeend', `<img src=x "
        "onerror=\"document.title='owned'\">`)"
    )
    time.sleep(0.5)
    assert browser.value("document.title") == "Rate answers"


def test_mouse_and_comment_work_and_every_control_has_a_name(
    make_run: MakeRun, serve: Callable[..., tuple[object, str]], rows: Rows, browser: Browser
) -> None:
    run = make_run(questions=1)
    _, url = serve(run)
    browser.open(url, width=1280)
    browser.wait("document.activeElement.id === 'name'")
    browser.type("ann")
    browser.click("#who button")
    browser.place("ann: question 1 of 1, 0 graded in full")
    browser.click(".answer:nth-child(2) input[value='C']")
    browser.wait("document.getElementById('status').textContent === 'Saved: C'")
    browser.click(".answer:nth-child(2) textarea")
    # Digits in a comment are no grades.
    for key in "1 u":
        browser.key(key)
    browser.click("#instruction")
    browser.wait("document.getElementById('status').textContent === 'Saved: C'")
    end = time.monotonic() + 30
    while len(rows(run)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert [(row["grade"], row["comment"]) for row in rows(run)] == [("C", ""), ("C", "1 u")]

    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    }
    assert ("radio", "A, correct and satisfying, answer 1") in named
    assert ("textbox", "Comment on answer 3") in named
    assert ("radiogroup", "Grade of answer 2") in named
    controls = {"radio", "textbox", "button", "radiogroup", "progressbar", "progressIndicator"}
    assert not [role for role, name in named if role in controls and not name]


def test_what_could_not_be_saved_is_said_and_not_shown_as_graded(
    make_run: MakeRun,
    serve: Callable[..., tuple["subprocess.Popen[str]", str]],
    browser: Browser,
) -> None:
    process, url = serve(make_run(questions=1), "ann")
    browser.open(url)
    browser.place("ann: question 1 of 1, 0 graded in full")
    process.kill()
    process.wait()
    browser.key("1")
    browser.wait("document.getElementById('alert').textContent.startsWith('Not saved')")
    assert browser.value("document.querySelectorAll('.answer input:checked').length") == 0
