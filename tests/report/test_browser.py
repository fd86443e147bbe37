import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path

import pytest

from selfinstruct_train.report.page import write_report
from selfinstruct_train.run.directory import RunDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

HOSTILE = (
    " <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\"></textarea></style></script>"
    "<script>document.title='owned'</script>\u202e"
)
# Runs in a copy of the page that allows it: measures what lies outside the window, then searches.
PROBE = """
const outside = [...document.body.querySelectorAll("*")]
  .filter((e) => !e.closest(".scroll, pre, .skip"))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 80));
const seen = (e) => e.getBoundingClientRect().right <= innerWidth && e.checkVisibility();
const cells = (label) => [...document.querySelectorAll(`td[data-label="${label}"]`)];
const section = document.querySelector(".answers");
const visible = () => [...section.querySelectorAll(".question")].filter((q) => !q.hidden).length;
const found = { width: innerWidth, outside, first: visible() };
found.outputs = cells("Output").length > 5 && cells("Output").every(seen);
found.named = getComputedStyle(cells("Output")[0], "::before").content;
found.right = [...document.querySelectorAll("table.scores tr.tuned td:first-of-type")].every(seen);
found.cue = [...document.querySelectorAll(".scroll")]
  .filter((e) => e.scrollWidth > e.clientWidth)
  .every((e) => getComputedStyle(e).backgroundAttachment.includes("local"));
const more = section.querySelector(".more");
more.click();
found.more = visible();
found.focus = [...section.querySelectorAll(".question")].indexOf(document.activeElement);
found.done = more.hidden;
const needle = section.querySelector(".needle");
needle.value = "NO. 17.";
needle.dispatchEvent(new Event("input"));
found.searched = visible();
needle.value = "";
const application = section.querySelector(".application");
application.value = [...application.options].find((o) => o.value.startsWith("facts")).value;
application.dispatchEvent(new Event("change"));
found.facts = visible();
found.count = section.querySelector(".count").textContent;
parent.document.body.dataset.found = JSON.stringify(found);
"""


def browse(page: Path, profile: Path) -> str:
    """The page's elements after its script has run, as text."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_hostile_answers_do_not_run_and_the_pages_own_script_does(
    make_run: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    run = make_run(
        rounds=1, hostile=HOSTILE, tasks=12, instructions=10, judged=True, raters=("ann", "bob")
    )
    shown = browse(write_report(run), tmp_path / "profile")
    assert "<title>run · self-instruct report</title>" in shown
    assert "12 shown of 12 that fit, 12 in all" in shown
    assert len(re.findall(r"<script", shown)) == 1
    assert "<img" not in shown


def test_search_filter_and_layout_hold_on_a_phone(
    make_run: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    text = write_report(
        make_run(
            rounds=1,
            tasks=36,
            instructions=10,
            hostile=" " + "W" * 90,
            judged=True,
            raters=("ann", "bob"),
        )
    ).read_text("utf-8")
    probed = tmp_path / "probed.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    inside = escape(text.replace("</body>", f"<script>{PROBE}</script></body>"))
    # A headless window is at least 500 pixels wide; a frame may be as narrow as a phone.
    frame = f'<iframe style="width: 390px; border: 0" srcdoc="{inside}"></iframe>'
    probed.write_text(f"<!doctype html><meta charset=utf-8><body>{frame}", "utf-8")
    shown = browse(probed, tmp_path / "profile")
    match = re.search(r'data-found="([^"]*)"', shown)
    assert match is not None
    found = json.loads(unescape(match.group(1)))
    assert found == {
        "width": 390,
        "outside": [],
        "first": 20,
        "outputs": True,
        "named": '"Output"',
        "right": True,
        "cue": True,
        "more": 36,
        "focus": 20,
        "done": True,
        "searched": 1,
        "facts": 9,
        "count": "9 shown of 9 that fit, 36 in all",
    }
