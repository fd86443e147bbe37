"""The page of all rows: nothing is missing, nothing runs, and what is marked can be pruned."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfinstruct_train.records import LeftOutRow
from selfinstruct_train.report import rows_page
from selfinstruct_train.report.page import page_environment
from selfinstruct_train.report.rows_page import write_rows
from selfinstruct_train.rounds.governor import Decision
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.pruning import prune, read_list
from selfinstruct_train.run.rows import LiveRows, Pruned
from selfinstruct_train.run.stores import RowStore, count_rows
from tests.helpers.browser import CHROMIUM, Browser

MakeRun = Callable[..., RunDirectory]

HOSTILE = (
    " <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\u202e\u2028 \\'); document.title='owned'; (' ${document.title='owned'} "
)


def chunks(run: RunDirectory) -> list[list[dict[str, object]]]:
    found = []
    for path in sorted((run.path / "rows").iterdir()):
        text = path.read_text("ascii")
        assert text.startswith("addRows(") and text.endswith(");\n")
        found.append(json.loads(json.loads(text[len("addRows(") : -len(");\n")])))
    return found


def test_every_row_is_there_once_and_old_chunks_are_gone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(until="instances", instructions=30)
    (run.path / "rows").mkdir()
    (run.path / "rows" / "0999.js").write_text("addRows('[{}]')")
    monkeypatch.setattr(rows_page, "_ROWS_A_CHUNK", 16)
    first = next(LiveRows(run).instances(1))
    prune(run, [Pruned(id=first.instruction_id, reason="bad")])
    page = write_rows(run, page_environment())
    found = chunks(run)
    assert {len(chunk) for chunk in found[:-1]} == {16}
    rows = [row for chunk in found for row in chunk]
    files = [
        path
        for directory in run.rounds()
        for path in (
            directory.instructions,
            directory.instances,
            directory.rejected("instructions"),
            directory.rejected("instances"),
        )
    ]
    assert len(rows) == sum(map(count_rows, files))
    assert f"All {len(rows)} rows" in page.read_text("utf-8")
    taken = [(row["id"], row["why"]) for row in rows if row["reason"] == "pruned"]
    assert taken == [(first.instruction_id, "bad"), (first.id, "bad")]
    for row in rows:
        assert (row["id"] != "") == (row["reason"] in ("kept", "pruned"))


def test_rows_that_count_no_more_are_not_called_kept(make_run: MakeRun) -> None:
    run = make_run(rounds=2, until="instances", instructions=10)
    decision = Decision(action="go_on", reason="no sure gain", rolled_back=True)
    run.round(0).decision.write_text(decision.model_dump_json())
    gone, left_out, *others = LiveRows(run).instances_of(run.round(1))
    prune(run, [Pruned(id=gone.id, reason="bad")])
    store = RowStore(run.round(1).selection, LeftOutRow)
    store.emit([LeftOutRow(id=left_out.id, reason="over_budget", score=-1.5)])
    write_rows(run, page_environment())
    rows = [row for chunk in chunks(run) for row in chunk if row["id"]]
    fates = {row["id"]: (row["reason"], row["why"]) for row in rows}
    assert {fates[row["id"]] for row in rows if row["round"] == 0} == {
        ("rolled_back", "no sure gain")
    }
    assert fates[gone.id] == ("pruned", "bad")
    assert fates[left_out.id] == ("left_out", "over budget, weighed score -1.500")
    live = {row.id for row in LiveRows(run).instances(2)}
    assert live == {row.id for row in others}
    kept = {r["id"] for r in rows if r["stage"] == "instance" and r["reason"] == "kept"}
    assert kept == live


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_rows_are_searched_filtered_and_marked_from_the_disk_and_none_of_them_runs(
    make_run: MakeRun, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_page, "_ROWS_A_CHUNK", 20)
    run = make_run(rounds=1, until="instances", instructions=40, hostile=HOSTILE)
    page = write_rows(run, page_environment())
    total = sum(len(chunk) for chunk in chunks(run))
    browser.open(page.as_uri())
    browser.wait("!document.getElementById('browser').hidden")

    def count(setting: str) -> str:
        browser.value(f"{setting}; filter()")
        said = browser.value("document.getElementById('count').textContent")
        assert isinstance(said, str)
        return said

    assert count("0") == f"50 shown of {total} that fit, {total} in all"
    browser.value("document.getElementById('more').click()")
    shown = browser.value("document.getElementById('rows').innerText")
    assert isinstance(shown, str) and "<script>document.title='owned'</script>" in shown
    assert "⟨U+202E⟩" in shown
    assert browser.value("document.title") == "run · all rows"
    assert browser.value("document.querySelectorAll('#rows script, #rows img').length") == 0
    assert browser.value(
        "[...document.body.querySelectorAll('*')].every((e) => e.closest('pre, .skip')"
        " || e.getBoundingClientRect().right <= innerWidth + 1)"
    )
    some = next(LiveRows(run).instances(1))
    assert " of 1 that fit" in count(f"document.getElementById('needle').value = '{some.id}'")
    browser.value("document.querySelector('#rows input').click()")
    count("document.getElementById('needle').value = ''")
    dropped = count_rows(run.round(0).rejected("instances"))
    reason = "document.getElementById('reason').value = 'conflicting_outputs'"
    assert f" of {dropped} that fit" in count(reason)
    assert browser.value("document.querySelectorAll('#rows input').length") == 0
    count("document.getElementById('reason').value = ''")
    high = count("document.getElementById('low').value = '0.71'")
    assert f" of {sum(1 for c in chunks(run) for r in c if (r['score'] or 0) >= 0.71)} that" in high

    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.value("document.getElementById('save').click()")
    saved = tmp_path / "bad-rows.jsonl"
    for _ in range(100):
        if saved.exists():
            break
        time.sleep(0.1)
    rows = read_list(saved, "")
    assert rows == [Pruned(id=some.id, reason="marked on rows.html")]
    assert prune(run, rows).instances == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_fifty_thousand_rows_are_searched_in_seconds_and_a_few_megabytes(
    make_run: MakeRun, browser: Browser
) -> None:
    run = make_run(rounds=1, until="instances", instructions=100)
    path = run.round(0).instances
    few = list(LiveRows(run).instances(1))
    with path.open("a", encoding="utf-8") as file:
        for number in range(50_000):
            row = few[number % len(few)].model_copy(update={"id": f"r0-more-{number}"})
            file.write(row.model_dump_json() + "\n")
    page = write_rows(run, page_environment())
    total = sum(map(len, chunks(run)))
    assert total >= 50_000
    began = time.monotonic()
    browser.open(page.as_uri(), width=1280)
    browser.wait("!document.getElementById('browser').hidden")
    assert time.monotonic() - began < 30
    last = list(LiveRows(run).instances(1))[-1]
    began = time.monotonic()
    browser.value(f"document.getElementById('needle').value = '{last.id}'; filter()")
    said = browser.value("document.getElementById('count').textContent")
    assert time.monotonic() - began < 5
    assert said == f"1 shown of 1 that fit, {total} in all"
    browser.send("HeapProfiler.collectGarbage")
    heap = browser.value("performance.memory.usedJSHeapSize")
    assert isinstance(heap, int) and heap < 100_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_page_without_its_rows_says_so(make_run: MakeRun, browser: Browser) -> None:
    run = make_run(rounds=1, until="instances", instructions=5)
    page = write_rows(run, page_environment())
    (run.path / "rows" / "0000.js").unlink()
    browser.open(page.as_uri())
    browser.wait("document.getElementById('loading').textContent.includes('cannot be read')")
