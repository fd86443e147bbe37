import base64
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from selfinstruct_train.config import dump_config
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.planning.measured import Forecast, measured, measured_rounds
from selfinstruct_train.records import TrainingStep
from selfinstruct_train.report import facts as facts_module
from selfinstruct_train.report import page, tables
from selfinstruct_train.report.answers import MOST_QUESTIONS, side_by_side
from selfinstruct_train.report.facts import STAGES, read_facts
from selfinstruct_train.report.figures import training_plot
from selfinstruct_train.report.page import render_page, write_report
from selfinstruct_train.rounds.governor import Decision
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.lock import RUN_LOCK

MakeRun = Callable[..., RunDirectory]

HOSTILE = (
    " <script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    '</textarea></style></svg>--><a href="javascript:alert(1)">x</a> [x](javascript:alert(2)) '
    "\u202egnp.exe\u2066\u200f\u2028\u0085\ufeff\x00\x1b[31m "
    "$\\frac{ $x$ {{ 7 * 7 }} {% raw %} &lt; \"'"
)

SAID = {"judged": True, "raters": ("ann", "bob", "cy")}
"""A model has judged and people have rated: what they wrote stands on the page too."""


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.text = ""


class Reader(HTMLParser):
    """Elements in order, each with the text directly inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in ("meta", "br", "input"):
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> closes {self._open[-1].tag}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]


@pytest.fixture(scope="module")
def shared_pages() -> dict[str, str]:
    return {}


@pytest.fixture
def plain(make_run: MakeRun, shared_pages: dict[str, str]) -> str:
    if "plain" not in shared_pages:
        shared_pages["plain"] = write_report(make_run(**SAID)).read_text("utf-8")
    return shared_pages["plain"]


@pytest.fixture
def hostile(make_run: MakeRun, shared_pages: dict[str, str]) -> str:
    if "hostile" not in shared_pages:
        run = make_run(hostile=HOSTILE, tasks=12, **SAID)
        shared_pages["hostile"] = write_report(run).read_text("utf-8")
    return shared_pages["hostile"]


def test_the_page_has_the_same_elements_whatever_the_model_wrote(
    hostile: str, make_run: MakeRun
) -> None:
    tame = write_report(make_run(hostile=" tame", tasks=12, **SAID)).read_text("utf-8")
    drawn = ("path", "g", "use", "text", "defs", "clippath", "rect", "tspan", "title")
    one, other = (
        Counter(e.tag for e in Reader(text).elements if e.tag not in drawn)
        for text in (hostile, tame)
    )
    assert one == other


def test_nothing_that_a_model_wrote_can_run(hostile: str) -> None:
    reader = Reader(hostile)
    (script,) = reader.all("script")
    assert script.text == (Path(page.__file__).parent / "page.js").read_text("utf-8")
    assert not reader.all("img", "iframe", "object", "embed", "form", "link", "base", "image")
    for element in reader.elements:
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("href", "xlink:href", "src"):
            link = element.attributes.get(name) or "#"
            assert link.startswith("#") or link == "rows.html"


def test_no_control_or_direction_mark_reaches_the_page(hostile: str) -> None:
    unseen = {c for c in hostile if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert unseen == {"\n"}
    for code in ("U+202E", "U+2066", "U+200F", "U+2028", "U+0085", "U+FEFF", "U+0000", "U+001B"):
        assert f"⟨{code}⟩" in hostile


def test_hostile_text_is_shown_as_it_was_written(hostile: str) -> None:
    headings = [e.text for e in Reader(hostile).all("h4")]
    assert len(headings) == 12
    for text in headings:
        assert "<script>document.title='owned'</script><img src=x onerror=" in text
        assert "$\\frac{ $x$ {{ 7 * 7 }} {% raw %} &lt; \"'" in text


def test_the_policy_allows_no_network_and_this_script_alone(plain: str) -> None:
    reader = Reader(plain)
    (policy,) = (
        e.attributes["content"]
        for e in reader.all("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    (script,) = reader.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not script.attributes
    assert "@import" not in plain and "url(http" not in plain
    values = (value or "" for e in reader.elements for value in e.attributes.values())
    assert {value for value in values if "//" in value} <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_ids_are_unique_and_every_reference_finds_its_target(plain: str) -> None:
    elements = Reader(plain).elements
    ids = [e.attributes["id"] for e in elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]*)\)", plain))
    for element in elements:
        wanted |= set((element.attributes.get("aria-labelledby") or "").split())
        for name in ("href", "xlink:href"):
            if (link := element.attributes.get(name)) and link != "rows.html":
                wanted.add(link[1:])
    assert wanted <= set(ids)


def test_tables_have_captions_and_scopes_and_headings_skip_no_level(plain: str) -> None:
    reader = Reader(plain)
    assert len(reader.all("table")) == len(reader.all("caption"))
    assert all(e.attributes.get("scope") for e in reader.all("th"))
    levels = [int(e.tag[1]) for e in reader.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_figures_take_their_colours_from_the_page(plain: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", plain, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", drawing)
        assert "<style" not in drawing
    defined = set(re.findall(r"(--[\w-]+):", plain))
    assert set(re.findall(r"var\((--[\w-]+)\)", plain)) <= defined


def test_every_figure_has_a_caption_and_a_name(plain: str) -> None:
    reader = Reader(plain)
    figures = reader.all("figure")
    assert len(figures) == len(reader.all("figcaption")) == len(reader.all("svg"))
    assert all(len(e.text) > 40 for e in reader.all("figcaption"))


def test_a_page_that_is_written_twice_is_the_same(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="classification", instructions=10)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.path.glob("*.partial"))


def test_reporting_changes_nothing_but_the_pages(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="instances", instructions=10)
    torn = run.round(0).instances
    torn.write_bytes(torn.read_bytes()[:-5])

    def contents() -> dict[Path, bytes]:
        # The lock of the run, open in this process, shows its heartbeat.
        files = (p for p in run.path.rglob("*") if p.is_file() and p.name != RUN_LOCK)
        return {p: p.read_bytes() for p in files}

    before = contents()
    assert write_report(run) == run.report
    after = contents()
    written = {run.report, run.path / "rows.html", run.path / "rows" / "0000.js"}
    assert written <= after.keys()
    assert {p: text for p, text in after.items() if p not in written} == before


@pytest.mark.parametrize("until", ["instructions", "classification", "instances", "train"])
def test_an_unfinished_run_says_what_is_missing(make_run: MakeRun, until: str) -> None:
    facts = read_facts(make_run(rounds=1, until=until, instructions=10))
    undone = STAGES[STAGES.index(until) + 1 :]
    assert facts.missing == (f"Round 0: not finished: {', '.join(undone)}.",)


def test_what_was_forecast_stands_beside_what_was_taken_and_is_left_out_where_nothing_was(
    make_run: MakeRun, plain: str
) -> None:
    assert "Forecast and use" not in plain
    run = make_run(rounds=1, instructions=10)
    taken = measured(run, measured_rounds(run))
    figures = {"step 1: requests": 3.0 * taken["step 1: requests"], "steps of training": 1234.0}
    run.forecast.write_text(Forecast(basis="a test", figures=figures).model_dump_json())
    page = write_report(run).read_text("utf-8")
    rows = dict(re.findall(r'<th scope="row">(step[^<]+)</th>((?:<td>[^<]*</td>)+)', page))
    assert rows.keys() == figures.keys()
    assert re.findall(r"<td>([^<]*)</td>", rows["step 1: requests"])[2] == "3.00"
    assert "<td>1,234</td>" in rows["steps of training"]


def test_a_damaged_forecast_is_named(make_run: MakeRun) -> None:
    run = make_run(rounds=1, instructions=10)
    run.forecast.write_text("{")
    with pytest.raises(DataError, match=r"forecast\.json.*delete it"):
        write_report(run)


def test_an_unfinished_run_makes_no_claim(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="instructions", instructions=10)
    text = write_report(run).read_text("utf-8")
    assert "it cannot be said whether tuning helped" in text
    assert "Nothing has been trained yet." in text
    assert "classification, instances, train, evaluate." in text


def test_rounds_that_were_not_begun_are_missing(make_run: MakeRun) -> None:
    run = make_run(rounds=1, instructions=10, tasks=6)
    run.config_file.write_text(dump_config(run.config().model_copy(update={"rounds": 3})), "utf-8")
    assert read_facts(run).missing == ("2 of 3 rounds not begun.",)
    decision = Decision(action="stop", reason="no sure gain: +0.1 ROUGE-L", rolled_back=True)
    run.round(0).decision.write_text(decision.model_dump_json())
    said = "2 of 3 rounds not begun: the run stopped after round 0, no sure gain: +0.1 ROUGE-L."
    assert read_facts(run).missing == (said,)
    assert said in write_report(run).read_text("utf-8")


def test_a_finished_run_lacks_nothing(plain: str) -> None:
    assert "This run is not complete" not in plain


def test_a_suite_or_manifest_that_is_gone_is_no_obstacle(make_run: MakeRun) -> None:
    run = make_run(rounds=1, instructions=10, tasks=6)
    (run.path.parent / "made.jsonl").unlink()
    run.manifest.unlink()
    facts = read_facts(run)
    assert facts.missing == ("manifest.json, which names the command and the machine.",)
    shown = side_by_side(facts.suites[0], load_answers("en"))
    assert len(shown.questions) == shown.total == 6
    assert shown.groups == ()


def test_a_base_answer_is_cut_where_it_begins_another_example(make_run: MakeRun) -> None:
    (suite,) = read_facts(make_run(rounds=1, instructions=5, tasks=6)).suites
    for question in side_by_side(suite, load_answers("en")).questions:
        base = question.answers[0]
        assert (base.label, base.rest) == ("Base, stop-controlled", "### Input:\nmore")
        assert "###" not in base.text
        assert question.gain == question.answers[-1].rouge_l - base.rouge_l


def test_a_large_suite_is_shown_by_an_even_sample(make_run: MakeRun) -> None:
    (suite,) = read_facts(make_run(rounds=1, instructions=5, tasks=500)).suites
    shown = side_by_side(suite, load_answers("en"))
    assert (len(shown.questions), shown.total) == (MOST_QUESTIONS, 500)
    assert (shown.questions[0].task_id, shown.questions[-1].task_id) == ("t0", "t499")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        write_report(RunDirectory(tmp_path))


def test_a_run_without_a_finished_stage_is_refused(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="instructions", instructions=5)
    (run.round(0).path / "done" / "instructions.json").unlink()
    with pytest.raises(RunError, match="no stage of this run is finished"):
        write_report(run)
    assert not run.report.exists()


def test_a_damaged_row_is_named_by_file_and_line(make_run: MakeRun) -> None:
    run = make_run(rounds=1, until="instructions", instructions=5)
    with run.round(0).instructions.open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=r"instructions\.jsonl, line 6"):
        write_report(run)


def test_hardware_commit_and_total_time_are_shown(plain: str, make_run: MakeRun) -> None:
    said = [e.text for e in Reader(plain).all("th")]
    for name in ("Processor", "CPU cores", "Memory", "GPU", "Git commit"):
        assert name in said
    # 12.5 s each in the fixture: in two rounds generation, training and evaluation, and the
    # training on seed tasks alone.
    assert "All together 1 min 28 s; from the first start to the end of the last stage" in plain
    assert "seeds only, 50 steps" in plain
    run = make_run(rounds=1, until="train", instructions=5)
    run.manifest.unlink()
    assert "from the first start" not in write_report(run).read_text("utf-8")


def test_loss_gradient_norm_and_learning_rate_are_drawn_where_they_are_known() -> None:
    def steps(norm: float | None) -> list[TrainingStep]:
        return [
            TrainingStep(
                step=i, epoch=1.0, loss=1 / i, learning_rate=1e-3, gradient_norm=norm, seconds=1.0
            )
            for i in (1, 2, 3)
        ]

    for norm, labels in ((0.7, 3), (None, 2)):
        plot = training_plot({"round 0": steps(norm), "seeds only": steps(norm)}, "training")
        assert plot is not None
        shown = re.sub(r"<[^>]+>", "\n", str(plot.svg))
        found = [
            name
            for name in ("loss on the", "gradient norm", "learning rate")
            if re.search(rf"^{name}", shown, re.MULTILINE)
        ]
        assert len(found) == labels
        assert shown.count("round 0") == 1


def test_the_command_and_the_settings_are_shown(plain: str) -> None:
    commands = [e.text for e in Reader(plain).all("pre")]
    assert commands[0] == "selfinstruct run configs/quickstart.yaml rounds=2"
    assert re.fullmatch(
        r"selfinstruct run \S+/run/config.yaml --output-dir \S+/run-again", commands[1]
    )
    assert "instructions_per_round: 500" in commands[2]


def test_a_large_run_is_counted_whole_and_shown_by_a_sample(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(until="instances", instructions=60)
    whole = read_facts(run)
    shown_of_all = render_page(whole)
    assert whole.stride == 1 and "one row in" not in shown_of_all
    largest = max(
        sum(len(rows) for rows in kind)
        for kind in zip(
            *((r.instructions, r.instances, r.rejections) for r in whole.rounds), strict=True
        )
    )
    monkeypatch.setattr(facts_module, "ROWS_SHOWN", -(-largest // 4))
    sampled = read_facts(run)
    assert sampled.stride == 4
    for few, every in zip(sampled.rounds, whole.rounds, strict=True):
        assert few.instructions == every.instructions[::4]
        assert few.instances == every.instances[::4]
        assert few.counts.instructions == len(every.instructions)
        assert few.counts.dropped == every.counts.dropped
        assert {r.reason for r in few.rejections} == {r.reason for r in every.rejections}
    assert tables.paper_statistics(sampled) == tables.paper_statistics(whole)
    assert tables.instruction_yield(sampled.rounds) == tables.instruction_yield(whole.rounds)
    assert tables.instance_yield(sampled.rounds) == tables.instance_yield(whole.rounds)
    assert [tables.acceptance(r) for r in sampled.rounds] == [
        tables.acceptance(r) for r in whole.rounds
    ]
    assert "one row in 4." in render_page(sampled)
