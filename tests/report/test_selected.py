"""What the selection took and left out: told by the report, the page of rows, stats, explain."""

from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.records import GeneratedInstance, LeftOutRow
from selfinstruct_train.report.explain import explain
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.page import page_environment, render_page
from selfinstruct_train.report.rows_page import write_rows
from selfinstruct_train.report.selected import read_selection
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from tests.generation.test_generate import run_generation, scripted, small_config


@pytest.fixture
def selected(tmp_path: Path) -> RunDirectory:
    config = small_config(
        tmp_path,
        "generation.select.by.length=1.0",
        "generation.select.by.novelty=0.5",
        "generation.select.diversity=0.7",
        "generation.select.keep=0.8",
    )
    # Its classification tasks have two instances each, of which one is too close to the other.
    run_generation(config, scripted())
    return RunDirectory(config.output_dir)


def test_the_figures_of_a_selection_are_those_of_its_rows(selected: RunDirectory) -> None:
    directory = selected.round(0)
    found = read_selection(directory)
    assert found is not None
    left_out = directory.store(directory.selection, LeftOutRow).read()
    assert found.left_out == Counter(row.reason for row in left_out)
    assert set(found.left_out) == {"too_close", "over_budget"}
    assert found.rows == len(directory.store(directory.instances, GeneratedInstance).read())
    assert found.taken == len(list(LiveRows(selected).instances(1)))
    means = {row.name: row for row in found.means}
    assert set(means) == {"length", "novelty"}
    (stats,) = data_stats(selected)
    dropped = {drop.reason: drop.n for drop in stats.dropped if drop.stage == "selection"}
    assert dropped == found.left_out
    assert stats.instances == found.taken


def test_a_round_without_a_selection_has_no_section(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    directory = run_generation(config, scripted())
    assert read_selection(directory) is None
    page = render_page(read_facts(RunDirectory(config.output_dir)))
    assert 'id="selection"' not in page


def test_the_pages_and_explain_say_why_a_row_was_left_out(selected: RunDirectory) -> None:
    directory = selected.round(0)
    left_out = directory.store(directory.selection, LeftOutRow).read()
    page = render_page(read_facts(selected))
    assert 'href="#selection"' in page and "Which rows are trained on" in page
    assert "too close to r0-" in page and "as many better rows as wanted" in page
    close = next(row for row in left_out if row.reason == "too_close")
    story = "\n".join(explain(selected, close.id))
    assert close.nearest is not None
    assert f"left out by the selection: too close to {close.nearest.id} (ROUGE-L" in story
    assert "scores: length " in story
    write_rows(selected, page_environment())
    rows = (selected.path / "rows" / "0000.js").read_text()
    assert rows.count('\\"reason\\":\\"left_out\\"') == len(left_out)
