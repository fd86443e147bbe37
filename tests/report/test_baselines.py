from collections.abc import Callable
from pathlib import Path

import pytest

from selfinstruct_train.config import dump_config
from selfinstruct_train.evaluation.beyond.forgetting import FORGETTING_FILE, Forgetting
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.records import Prediction
from selfinstruct_train.report import baselines
from selfinstruct_train.report.baselines import read_baselines
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.page import render_page
from selfinstruct_train.run.directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def published_run(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunDirectory:
    """A run whose suite has published answers: one model always right, one always wrong."""
    run = make_run(rounds=1, skill=0.5)
    monkeypatch.setattr(baselines, "PUBLISHED_SUITE", "made")
    config = run.config()
    folder = tmp_path / "published"
    folder.mkdir()
    for name, right in (("oracle<b>", True), ("parrot", False), ("parrot-2", False)):
        rows = (
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response=item.target if right else "no",
                target=item.target,
            )
            for item in load_suite(config.evaluation.suites[0]).items
        )
        path = folder / f"{name}_predictions.jsonl"
        path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    changed = config.evaluation.model_copy(update={"published": str(folder)})
    run.config_file.write_text(
        dump_config(config.model_copy(update={"evaluation": changed})), "utf-8"
    )
    return run


def test_the_page_ranks_the_run_among_published_models(published_run: RunDirectory) -> None:
    facts = read_facts(published_run)
    found = read_baselines(facts.suites[0], facts.config, "key")
    assert found is not None and found.standings is not None
    names = [s.name for s in found.standings.systems]
    assert names[0] == "oracle<b>"
    assert names.index("tuned") < names.index("parrot")
    assert found.sentences[:2] == (
        "The tuned model scores higher than parrot, parrot-2.",
        "The tuned model scores lower than oracle<b>.",
    )
    assert any("parrot and parrot-2 cannot be told apart" in s for s in found.sentences)
    page = render_page(facts)
    assert "Beside published models" in page
    assert "oracle&lt;b&gt;" in page and "oracle<b>" not in page


def test_a_faulty_published_file_is_named_on_the_page_and_fails_no_report(
    published_run: RunDirectory,
) -> None:
    facts = read_facts(published_run)
    folder = facts.config.evaluation.published
    assert folder is not None
    (Path(folder) / "torn.jsonl").write_text("{")
    page = render_page(facts)
    assert "The published answers cannot be shown" in page
    assert "torn.jsonl, line 1: not JSON" in page


def test_a_suite_without_published_answers_has_no_such_section(make_run: MakeRun) -> None:
    assert "Beside published models" not in render_page(read_facts(make_run(rounds=1)))


def test_the_page_says_what_tuning_made_the_model_forget(make_run: MakeRun) -> None:
    run = make_run(rounds=2)
    worse = Forgetting(
        source="text.txt",
        sha256="0" * 64,
        tokens=1000,
        windows=4,
        base=2.0,
        tuned=2.25,
        delta=0.25,
        ci_low=0.125,
        ci_high=0.375,
        confidence=0.95,
    )
    path = run.round(1).evaluation(FORGETTING_FILE)
    path.write_text(worse.model_dump_json(), "utf-8")
    page = render_page(read_facts(run))
    assert f"<li>{worse.sentence} (Round 1.)</li>" in page
    assert "worse at plain text: 2.250 against 2.000" in worse.sentence
    assert "(Round 0.)" not in page
