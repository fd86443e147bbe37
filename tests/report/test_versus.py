from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.errors import RunError
from selfinstruct_train.report.page import write_report
from selfinstruct_train.report.versus import write_versus
from selfinstruct_train.run.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
HOSTILE = " <script>document.title='owned'</script><img src=x onerror=alert(1)></textarea>\u202e"


def test_two_runs_on_one_page_name_the_better_and_escape_what_models_wrote(
    make_run: MakeRun, tmp_path: Path
) -> None:
    poor = make_run(rounds=1, skill=0.0, hostile=HOSTILE)
    good = make_run(rounds=1, skill=1.0, hostile=HOSTILE)
    suite = poor.config().evaluation.suites[0]
    path = tmp_path / "versus.html"
    found = write_versus(poor.path, good.path, suite, path)
    page = path.read_text("utf-8")
    assert found.delta > 0 and found.ci_low > 0
    assert f"{good.path} is better than {poor.path}: +" in page
    assert page.count('class="question"') == found.wins + found.losses
    assert "<script" not in page and "<img" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page and "⟨U+202E⟩" in page


@pytest.mark.parametrize(
    ("suite", "columns"), [("everyday-dev", (1, 0)), ("microworld-dev", (0, 1)), (None, (0, 0))]
)
def test_a_figure_has_its_column_where_the_suite_has_the_figure(
    make_run: MakeRun, tmp_path: Path, suite: str | None, columns: tuple[int, int]
) -> None:
    run = make_run(rounds=1, suite=suite)
    path = tmp_path / "versus.html"
    write_versus(run.path, run.path, run.config().evaluation.suites[0], path)
    heads = ">Right by answers and constraints, %<", ">Right by the oracle, %<"
    for page in (path.read_text("utf-8"), write_report(run).read_text("utf-8")):
        assert tuple(page.count(head) for head in heads) == columns


def test_a_run_against_itself_cannot_be_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(rounds=1)
    path = tmp_path / "versus.html"
    write_versus(run.path, run.path, run.config().evaluation.suites[0], path)
    page = path.read_text("utf-8")
    assert "cannot be told apart: 0.0 ROUGE-L" in page
    assert "No answer of one scores differently" in page


def test_a_folder_that_is_no_run_is_refused_and_no_page_written(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(rounds=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    path = tmp_path / "versus.html"
    with pytest.raises(RunError, match="not a run directory"):
        write_versus(run.path, empty, run.config().evaluation.suites[0], path)
    assert not path.exists()
