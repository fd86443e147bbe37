"""Two sets of answers against each other, and the best round of a run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfinstruct_train.config import EvaluationConfig, load_config
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.evaluation.compare import (
    System,
    best_training,
    compare_halves,
    compare_predictions,
    compare_sources,
    contamination_sentence,
    make_system,
    read_comparison,
)
from selfinstruct_train.evaluation.selection import selection_of
from selfinstruct_train.evaluation.suites import Suite, load_suite, read_predictions
from selfinstruct_train.records import (
    Comparison,
    ContaminatedRow,
    EvalTask,
    Halves,
    Instance,
    PairedComparison,
    Prediction,
)
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import write_atomically

ROOT = Path(__file__).parents[2]
AnswerFile = Callable[[str, Callable[[str], str]], Path]


def better_on(*numbers: int) -> Callable[[str], str]:
    """Right answers to the tasks of these numbers, no answer to the others."""
    return lambda target: target if int(target.split()[1]) in numbers else ""


def comparison(suite: str, low: float) -> Comparison:
    return Comparison(
        suite=suite,
        n=2,
        delta=low + 1,
        ci_low=low,
        ci_high=low + 2,
        wins=1,
        ties=1,
        losses=0,
        confidence=0.95,
        scores=(),
        pairs=(),
    )


def made_run(path: Path, suite: str, lows: list[float | None]) -> RunDirectory:
    """A run whose rounds have these lower ends; None for a round that is not evaluated."""
    run = RunDirectory(path)
    run.open(load_config(ROOT / "configs" / "quickstart.yaml", output_dir=path))
    for number, low in enumerate(lows):
        folder = run.round(number).evaluation(suite)
        folder.parent.mkdir(parents=True)
        if low is not None:
            write_atomically(
                folder / "comparison.json", comparison(suite, low).model_dump_json() + "\n"
            )
    return run


def best_number(run: RunDirectory, evaluation: EvaluationConfig, on: str = "") -> int | None:
    best = best_training(run.rounds(), evaluation, on)
    return best.round if best else None


def test_contaminated_rows_are_counted_and_the_first_are_named() -> None:
    rows = tuple(
        ContaminatedRow(id=f"t{i}#0", level="similar" if i else "exact", training_row="r", what="x")
        for i in range(7)
    )
    clean = comparison("exam", 0.0).model_copy(update={"contaminated": ()})
    assert contamination_sentence(comparison("exam", 0.0)) == contamination_sentence(clean) == ""
    found = contamination_sentence(
        comparison("exam", 0.0).model_copy(update={"n": 50, "contaminated": rows})
    )
    assert found == (
        "7 of 50 rows of exam resemble what was trained on (1 ask the same), so a gain on them may "
        "be memory: t0#0, t1#0, t2#0, t3#0, t4#0 and others."
    )


def test_b_is_compared_with_a_overall_and_per_application(
    suite: Suite, answer_file: AnswerFile, tmp_path: Path
) -> None:
    a = answer_file("a.jsonl", better_on(0, 1))
    b = answer_file("b.jsonl", better_on(0, 2, 3, 4))
    result = compare_sources(a, b, str(tmp_path / "words.jsonl"))
    # Eight instances: B gains tasks 2, 3 and both instances of 4, and loses task 1.
    assert (result.wins, result.ties, result.losses) == (4, 3, 1)
    assert result.delta == pytest.approx(300 / 8)
    assert result.ci_low < result.delta < result.ci_high
    assert [score.system for score in result.scores] == ["a", "b"]
    assert [score.rouge_l for score in result.scores] == pytest.approx([200 / 8, 500 / 8])
    groups = {pair.group: pair for pair in result.pairs}
    assert list(groups) == ["overall", "Chat", "Mail"]
    assert (groups["Chat"].n, groups["Mail"].n) == (5, 3)
    assert groups["Chat"].delta == pytest.approx(60.0)
    assert groups["Mail"].delta == pytest.approx(0.0)
    assert groups["overall"].delta == result.delta
    back = compare_sources(b, a, str(tmp_path / "words.jsonl"))
    assert (back.delta, back.wins, back.losses) == (-result.delta, 1, 4)


def test_tasks_are_resampled_with_all_their_instances(tmp_path: Path) -> None:
    tasks = [
        EvalTask(
            id=f"t{i}.{k}",
            instruction=f"Repeat the word {i}." + " " * k,
            instances=tuple(Instance(input=f"{i} {k} {j}", output="x") for j in range(10)),
        )
        for i in range(20)
        for k in range(2)
    ]
    suite = Suite("words", tuple(tasks), False)
    assert len(set(suite.clusters.tolist())) == 20

    def answers(name: str, right: Callable[[int], bool]) -> System:
        rows = [
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response="x" if right(int(item.input.split()[0])) else "y",
                target="x",
            )
            for item in suite.items
        ]
        return make_system(name, rows, suite)

    a, b = answers("a", lambda i: False), answers("b", lambda i: i % 2 == 0)
    evaluation = EvaluationConfig(suites=("words",), bootstrap_samples=2000)
    result = compare_predictions(a, b, suite, evaluation, seed=0)
    # 20 tasks, half of them gained: the error of a share of 20, not of 400.
    assert result.delta == 50.0
    assert result.ci_high - result.ci_low == pytest.approx(2 * 196 * 0.5 / 20**0.5, rel=0.12)


def test_a_comparison_with_itself_is_zero(answer_file: AnswerFile, tmp_path: Path) -> None:
    a = answer_file("a.jsonl", better_on(0, 1))
    result = compare_sources(a, a, str(tmp_path / "words.jsonl"))
    assert (result.delta, result.ci_low, result.ci_high, result.ties) == (0.0, 0.0, 0.0, 8)


def test_on_the_microworld_the_oracle_is_compared_too() -> None:
    suite = load_suite("microworld-dev")
    right = [item.target for item in suite.items]
    systems = []
    for name, answers in (("a", ["gnorf"] * len(right)), ("b", right)):
        rows = [
            {"task_id": i.task_id, "instruction": i.instruction, "input": i.input}
            | {"response": answer, "target": i.target}
            for i, answer in zip(suite.items, answers, strict=True)
        ]
        systems.append(make_system(name, [Prediction.model_validate(r) for r in rows], suite))
    evaluation = EvaluationConfig(suites=("microworld-dev",), bootstrap_samples=50)
    result = compare_predictions(systems[0], systems[1], suite, evaluation, seed=0)
    overall = {pair.metric: pair for pair in result.pairs if pair.group == "overall"}
    assert overall["oracle_accuracy"].delta == 100.0
    assert overall["oracle_accuracy"].n == 126
    assert result.pairs[0].metric == "rouge_l" and result.delta == result.pairs[0].delta
    assert sum(p.n for p in result.pairs if p.group != "overall") == 2 * 126


def test_unjudged_answers_leave_the_oracle_pairs_and_not_the_rouge_pairs(
    suite: Suite, answer_file: AnswerFile
) -> None:
    rows = read_predictions(answer_file("a.jsonl", str), suite)
    judged = make_system("a", rows, suite)
    oracle = np.array([0.0, 100.0] + [np.nan] * 6)
    a = judged._replace(scores=judged.scores._replace(oracle_accuracy=oracle))
    b = a._replace(name="b", scores=a.scores._replace(oracle_accuracy=100.0 - 0.0 * oracle))
    evaluation = EvaluationConfig(suites=("words",), bootstrap_samples=50)
    result = compare_predictions(a, b, suite._replace(is_microworld=True), evaluation, seed=0)
    counts = {(pair.metric, pair.group): pair.n for pair in result.pairs}
    assert counts["rouge_l", "overall"] == 8
    assert counts["oracle_accuracy", "overall"] == 2


def test_the_best_round_is_the_one_that_is_most_surely_better(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "words", [1.0, None, 3.0, 3.0, -2.0])
    assert best_number(run, EvaluationConfig(suites=("words",))) == 2
    assert best_number(run, EvaluationConfig(suites=("elsewhere/words.jsonl",))) == 2
    assert best_number(run, EvaluationConfig(suites=("microworld",))) is None
    # Not chosen by, but asked for: the last round that has it stands for the run.
    assert best_number(run, EvaluationConfig(suites=("microworld",)), "words") == 4


def evaluated(run: RunDirectory, suite: str, lows: list[float], halves: bool = False) -> None:
    """Give the rounds of a run these lower ends on one more suite."""
    for number, low in enumerate(lows):
        made = comparison(suite, low)
        if halves:
            # The half that chooses says the opposite of the whole.
            pairs = [
                PairedComparison(
                    a="base-stopped",
                    b="tuned",
                    metric="rouge_l",
                    group=group,
                    n=1,
                    delta=end + 1,
                    ci_low=end,
                    ci_high=end + 2,
                    wins=1,
                    ties=0,
                    losses=0,
                )
                for group, end in (("choosing half", -low), ("reported half", low))
            ]
            made = made.model_copy(update={"halves": Halves(choosing=pairs[0], reported=pairs[1])})
        folder = run.round(number).evaluation(suite)
        write_atomically(folder / "comparison.json", made.model_dump_json() + "\n")


def test_a_suite_that_is_only_reported_has_no_say_in_the_best_round(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "exam", [1.0, 9.0, 5.0])
    evaluated(run, "words-dev", [1.0, 2.0, 3.0])
    evaluated(run, "named", [3.0, 2.0, 1.0])
    suites = ("exam", "words-dev", "named")
    assert best_number(run, EvaluationConfig(suites=suites)) == 2
    assert best_number(run, EvaluationConfig(suites=suites, select_on="named")) == 0
    assert best_number(run, EvaluationConfig(suites=suites, select_on="exam"), "named") == 1


def test_without_a_suite_that_chooses_one_half_of_the_first_does(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "words", [])
    evaluated(run, "words", [1.0, 2.0, 3.0], halves=True)
    evaluation = EvaluationConfig(suites=("words",))
    assert best_number(run, evaluation) == 0
    assert selection_of(evaluation).warning.startswith("one half of the tasks of words choose")
    named = EvaluationConfig(suites=("words",), select_on="words")
    assert best_number(run, named) == 2
    assert selection_of(named).warning == ""


def test_a_chooser_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="select_on names 'dev'.* add it to evaluation.suites"):
        EvaluationConfig(suites=("words",), select_on="dev")


def test_the_half_that_chooses_has_whole_tasks_and_is_always_the_same(suite: Suite) -> None:
    half = suite.choosing_half
    chosen = {item.task_id for item, mine in zip(suite.items, half, strict=True) if mine}
    others = {item.task_id for item, mine in zip(suite.items, half, strict=True) if not mine}
    assert not chosen & others and (len(chosen), len(others)) == (3, 4)
    turned = suite._replace(tasks=suite.tasks[::-1])
    again = zip(turned.items, turned.choosing_half, strict=True)
    assert {item.task_id for item, mine in again if mine} == chosen


def test_the_half_that_is_reported_has_every_rival_in_every_figure_and_no_item_that_chose(
    suite: Suite, answer_file: AnswerFile
) -> None:
    a, b, c = (
        make_system(
            name, read_predictions(answer_file(f"{name}.jsonl", better_on(*right)), suite), suite
        )
        for name, right in (("base-stopped", ()), ("tuned", (0, 1)), ("seeds-only", (0,)))
    )
    evaluation = EvaluationConfig(suites=("words",), bootstrap_samples=50)
    halves = compare_halves(a, b, suite, evaluation, 0, [c])
    assert halves is not None
    assert halves.pairs[0] == halves.reported
    assert [(p.a, p.metric) for p in halves.pairs] == [
        ("base-stopped", "rouge_l"),
        ("seeds-only", "rouge_l"),
    ]
    assert {p.n for p in halves.pairs} == {int((~suite.choosing_half).sum())}


def test_a_damaged_comparison_is_named(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "words", [1.0])
    path = run.round(0).evaluation("words") / "comparison.json"
    path.write_text("{}")
    with pytest.raises(DataError, match="comparison.json"):
        read_comparison(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_comparison(tmp_path / "none.json")


def test_a_run_stands_for_the_tuned_model_of_its_best_round(
    answer_file: AnswerFile, tmp_path: Path
) -> None:
    a = answer_file("a.jsonl", better_on())
    run = made_run(tmp_path / "run", "words", [1.0, 2.0])
    for number, right in enumerate(((0,), (0, 1))):
        tuned = answer_file("tuned.jsonl", better_on(*right))
        shutil.move(tuned, run.round(number).evaluation("words") / "tuned.jsonl")
    result = compare_sources(a, run.path, str(tmp_path / "words.jsonl"))
    assert (result.wins, result.ties, result.losses) == (2, 6, 0)
    assert [score.system for score in result.scores] == ["a", "run"]


def test_a_folder_without_the_answers_is_refused(answer_file: AnswerFile, tmp_path: Path) -> None:
    a, words = answer_file("a.jsonl", str), str(tmp_path / "words.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="not a run directory"):
        compare_sources(a, tmp_path / "empty", words)
    run = made_run(tmp_path / "run", "words", [None])
    with pytest.raises(RunError, match="no round was evaluated on 'words'"):
        compare_sources(a, run.path, words)
    with pytest.raises(DataError, match="no such file"):
        compare_sources(a, tmp_path / "none.jsonl", words)


def test_published_davinci_001_and_self_instruct_cannot_be_told_apart(
    official: Path, published: dict[str, System]
) -> None:
    suite = load_suite(str(official / "user_oriented_instructions.jsonl"))
    evaluation = EvaluationConfig(suites=(suite.name,))
    base, ours, other = published.values()
    close = compare_predictions(ours, other, suite, evaluation, seed=0)
    assert close.delta == pytest.approx(29.00 - 28.13, abs=0.02)
    assert close.ci_low < 0 < close.ci_high
    far = compare_predictions(base, ours, suite, evaluation, seed=0)
    assert far.ci_low > 20
    assert len({pair.group for pair in far.pairs}) == 72
