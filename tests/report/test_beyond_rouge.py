"""What the page says of constraints, of contaminated rows and of public benchmarks."""

from collections.abc import Callable
from pathlib import Path

from selfinstruct_train.evaluation.beyond.harness_figures import (
    HarnessComparison,
    HarnessDifference,
    HarnessSettings,
)
from selfinstruct_train.evaluation.compare import read_comparison
from selfinstruct_train.records import (
    ConstraintKindScore,
    ConstraintScore,
    ContaminatedRow,
    PairedComparison,
)
from selfinstruct_train.report.page import write_report
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import write_atomically

MakeRun = Callable[..., RunDirectory]
HOSTILE = "<script>x</script>\u202e"


def comparison_file(run: RunDirectory) -> Path:
    return next((run.round(0).path / "eval").glob("*/comparison.json"))


def test_a_run_without_them_says_nothing_of_them(make_run: MakeRun) -> None:
    page = write_report(make_run(rounds=1)).read_text("utf-8")
    assert "Instruction-level" not in page and "gives away" not in page
    assert "lm-evaluation-harness" not in page


def test_constraints_are_shown_per_system_and_kind_with_their_differences(
    make_run: MakeRun,
) -> None:
    run = make_run(rounds=1)
    path = comparison_file(run)
    found = read_comparison(path)
    kept = ConstraintScore(
        answers=8,
        declared=16,
        instruction_level_strict=62.5,
        prompt_level_strict=37.5,
        kinds=(ConstraintKindScore(kind="list_items", declared=16, met=10),),
    )
    pair = PairedComparison(
        a="base-stopped",
        b="tuned",
        metric="prompt_level_strict",
        group="overall",
        n=8,
        delta=25.0,
        ci_low=-2.5,
        ci_high=50.0,
        wins=2,
        ties=6,
        losses=0,
    )
    changed = found.model_copy(
        update={
            "scores": tuple(s.model_copy(update={"constraints": kept}) for s in found.scores),
            "pairs": (*found.pairs, pair),
        }
    )
    write_atomically(path, changed.model_dump_json())
    page = write_report(run).read_text("utf-8")
    table = page.split('aria-label="Constraints of ')[1].split("</ul>")[0]
    assert table.count("<td>37.5</td><td>16</td><td>62.5</td><td>62.5</td>") == len(found.scores)
    assert "list items</th>" in table
    assert "constraints, prompt-level: +25.0 points (−2.5 to 50.0)" in table


def test_contaminated_rows_are_counted_above_and_listed_escaped(make_run: MakeRun) -> None:
    run = make_run(rounds=1)
    path = comparison_file(run)
    row = ContaminatedRow(id=f"t1#0{HOSTILE}", level="exact", training_row="r0-7", what="the same")
    found = read_comparison(path).model_copy(update={"contaminated": (row,)})
    write_atomically(path, found.model_dump_json())
    page = write_report(run).read_text("utf-8")
    assert "1 of 24 rows of made resemble what was trained on (1 ask the same)" in page
    assert "1 rows of made that what was trained on gives away" in page
    assert "exact: the same" in page and "r0-7" in page
    assert HOSTILE not in page and "&lt;script&gt;x&lt;/script&gt;⟨U+202E⟩" in page


def test_benchmarks_stand_in_a_table_and_in_a_sentence(make_run: MakeRun) -> None:
    run = make_run(rounds=2)
    difference = HarnessDifference(
        task=f"own{HOSTILE}",
        metric="acc",
        filter="none",
        n=40,
        higher_is_better=True,
        base=0.5,
        tuned=0.25,
        delta=-0.25,
        ci_low=-0.4,
        ci_high=-0.1,
    )
    settings = HarnessSettings(
        package="0.4.13", num_fewshot=None, limit=40, apply_chat_template=False, seed=0
    )
    result = HarnessComparison(settings=settings, confidence=0.95, differences=(difference,))
    folder = run.round(1).evaluation("harness")
    write_atomically(folder / "differences.json", result.model_dump_json())
    page = write_report(run).read_text("utf-8")
    assert "the tuned model is worse on own" in page and "(acc 0.5 to 0.25). (Round 1.)" in page
    row = page.split('id="harness"')[1].split("</table>")[0]
    assert "the first 40 items" in row
    assert "<td>40</td><td>0.500</td><td>0.250</td><td>−0.250</td><td>−0.400</td>" in row
    assert HOSTILE not in page
