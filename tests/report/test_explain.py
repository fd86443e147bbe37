"""Where a row comes from can be told back to the seeds, and what a run wrote in figures."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.errors import RunError
from selfinstruct_train.records import (
    Classified,
    GeneratedInstance,
    Instruction,
    Neighbour,
    Provenance,
    Rejection,
    Sampling,
    TrainingRow,
)
from selfinstruct_train.report.explain import explain
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import Pruned
from selfinstruct_train.run.stores import RowStore
from tests.export.conftest import write_run


def provenance(number: int, request: str, *shown: str) -> Provenance:
    return Provenance(
        round=number,
        request=request,
        demonstrations=shown,
        sampling=Sampling(max_tokens=40, temperature=0.7),
        model="embedded",
        adapter="round-0/adapter" if number else None,
        prompt_hash="0123456789abcdef",
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two rounds: what the first wrote is shown in a prompt of the second."""
    run = write_run(tmp_path / "run")
    for path in (run.round(0).instructions, run.round(0).instances):
        path.unlink()
    near = Neighbour(id="seed_task_1", instruction="Sing.", score=0.25)
    for number, shown in enumerate((("seed_task_0",), ("seed_task_1", "r0"))):
        directory = run.round(number)
        wrote = provenance(number, f"ask-{number}", *shown)
        told = {"nearest": near, "nearest_seed": near, "provenance": wrote}
        row = Instruction(id=f"r{number}", instruction=f"Hum {number}.\u001b[2J", **told)
        directory.store(directory.instructions, Instruction).emit([row])
        kind = Classified(
            id=row.id, is_classification=not number, logprob_yes=-1.5, logprob_no=-0.5
        )
        directory.store(directory.classified, Classified).emit([kind])
        instance = GeneratedInstance(
            id=f"r{number}-0",
            instruction_id=row.id,
            instruction=row.instruction,
            input="la" if number else "",
            output="lo lo",
            is_classification=not number,
            provenance=provenance(number, f"do-{number}", "en_input_first_1"),
        )
        directory.store(directory.instances, GeneratedInstance).emit([instance])
    dropped = Rejection(
        stage="instruction",
        reason="too_similar",
        evidence="0.91 above 0.7",
        instruction="Hum 0 again.",
        nearest=near,
        provenance=provenance(0, "ask-0", "seed_task_0"),
    )
    RowStore(run.round(0).rejected("instructions"), Rejection).emit([dropped])
    trained = TrainingRow(
        id="r0-0", source="generated", instruction="Hum 0.", input="", output="lo lo",
        is_classification=True,
    )  # fmt: skip
    RowStore(run.round(1).dataset / "train.jsonl", TrainingRow).emit([trained])
    return run


def test_an_instance_is_told_back_to_the_seed_tasks(run: RunDirectory) -> None:
    said = "\n".join(explain(run, "r1-0"))
    first, second, third = (said.index(f"{name}: a") for name in ("r1-0", "r1", "r0"))
    assert first < second < third < said.index("seed_task_0:")
    assert "written by round-0/adapter (embedded), request ask-1" in said
    assert "written by the base (embedded), request ask-0, of which 1 rows were dropped" in said
    assert "nearest seed: seed_task_1, ROUGE-L 0.25 (new up to " in said
    assert "no classification task (log-probability of Yes -1.50, of No -0.50)" in said
    assert "en_input_first_1: Give three reasons" in said
    assert "trained on in: none" in said
    assert "trained on in: round 1, training default" in "\n".join(explain(run, "r0-0"))


def test_a_request_tells_what_came_of_all_that_it_wrote(run: RunDirectory) -> None:
    said = "\n".join(explain(run, "ask-0"))
    assert "kept: r0: Hum 0." in said
    assert "dropped: too_similar: 0.91 above 0.7 (nearest seed_task_1, 0.25): Hum 0 again." in said


def test_a_seed_task_tells_where_it_was_shown(run: RunDirectory) -> None:
    assert "shown in the prompts of 1 rows that were kept: r0" in "\n".join(
        explain(run, "seed_task_0")
    )


def test_a_pruned_row_is_still_explained_and_an_unknown_id_is_named(run: RunDirectory) -> None:
    RowStore(run.pruned, Pruned).append([Pruned(id="r1", reason="off topic")])
    assert "pruned: off topic" in "\n".join(explain(run, "r1-0"))
    with pytest.raises(RunError, match=r"no instruction, .* the id 'r9'; .* for example 'r0-0'"):
        explain(run, "r9")


def test_control_characters_of_a_model_do_not_reach_the_terminal(run: RunDirectory) -> None:
    said = CliRunner().invoke(app, ["explain", str(run.path), "r1-0"])
    assert said.exit_code == 0 and "\\x1b[2J" in said.output and "\u001b" not in said.output


def test_the_figures_are_those_of_table_1_and_pruned_rows_do_not_count(run: RunDirectory) -> None:
    first, second = data_stats(run)
    assert (first.instructions, first.classification, first.other) == (1, 1, 0)
    assert (first.instances, first.empty_inputs, first.input_length) == (1, 1, None)
    assert (second.input_length, second.output_length) == (1.0, 2.0)
    assert first.to_pool is not None and first.to_pool.mean == 0.25
    assert [(d.stage, d.reason, d.n) for d in first.dropped] == [("instruction", "too_similar", 1)]
    said = CliRunner().invoke(app, ["stats", str(run.path), "--json"]).output.splitlines()
    assert [json.loads(line)["round"] for line in said] == [0, 1]
    RowStore(run.pruned, Pruned).append([Pruned(id="r1")])
    assert (data_stats(run)[1].instructions, data_stats(run)[1].other) == (0, 0)
    shown = CliRunner().invoke(app, ["stats", str(run.path)]).output
    assert "mean words of instructions       none" in shown
