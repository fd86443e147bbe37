"""What the governor decides on is read from what a round left, and only live rounds bear on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfinstruct_train.cli import inspect
from selfinstruct_train.config import Config, GovernorConfig, load_config
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.compare import best_training, compare_predictions, make_system
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.records import EvalTask, Instance, Instruction, Neighbour, Prediction
from selfinstruct_train.rounds.governor import Decision, RoundResult, decide
from selfinstruct_train.rounds.shown import accepted_share, read_result
from selfinstruct_train.rounds.table import RoundLine, rounds_of
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stage import dependencies
from tests.rounds.test_governor import compared, instruction

ROOT = Path(__file__).parents[2]
RIGHT = {0: 3, 1: 6, 2: 9}
"""Round -> how many of the suite's twelve tasks its model answers."""


class Made:
    """Three rounds that answered a suite, without a model."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        tasks = [
            EvalTask(
                id=f"t{i}",
                instruction=f"Repeat the word {i}.",
                instances=(Instance(input=f"w {i}", output=f"word {i}"),),
            )
            for i in range(12)
        ]
        path = folder / "words-dev.jsonl"
        path.write_text("".join(task.model_dump_json() + "\n" for task in tasks))
        settings = (f"evaluation.suites=[{path}]", "rounds=3", *overrides)
        self.config: Config = load_config(
            ROOT / "configs/quickstart.yaml", settings, folder / "run"
        )
        self.run = RunDirectory(folder / "run")
        self.run.open(self.config)
        self.suite: Suite = load_suite(str(path))
        for number, right in RIGHT.items():
            self._answer(number, right)

    def _answer(self, number: int, right: int) -> None:
        directory = self.run.round(number)
        near = Neighbour(id="seed", instruction="Say.", score=0.2 * (number + 1))
        row = instruction(f"r{number}").model_copy(update={"nearest": near})
        directory.store(directory.instructions, Instruction).emit([row])
        rows = self._predictions(right)
        directory.store(directory.evaluation(self.suite.name) / "tuned.jsonl", Prediction).emit(
            rows
        )
        base = make_system("base-stopped", self._predictions(0), self.suite)
        tuned = make_system("tuned", rows, self.suite)
        compared = compare_predictions(base, tuned, self.suite, self.config.evaluation, 0)
        path = directory.evaluation(self.suite.name) / "comparison.json"
        path.write_text(compared.model_dump_json())

    def _predictions(self, right: int) -> list[Prediction]:
        return [
            Prediction(
                task_id=item.task_id,
                instruction=item.instruction,
                input=item.input,
                response=item.target if i < right else "",
                target=item.target,
            )
            for i, item in enumerate(self.suite.items)
        ]

    def result(self, number: int) -> RoundResult:
        return read_result(self.run, LiveRows(self.run), self.suite, self.config, number)

    def decide(self, number: int, rolled_back: bool) -> None:
        decision = Decision(action="go_on", reason="it was so", rolled_back=rolled_back)
        self.run.round(number).decision.write_text(decision.model_dump_json())


def test_a_round_is_held_against_the_best_live_one_before_on_the_suite_that_chooses(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path)
    first, third = made.result(0), made.result(2)
    assert first.gain is not None and third.gain is not None
    assert (first.best_before, first.gain.a, first.score) == (None, "base-stopped", 25.0)
    assert (third.best_before, third.gain.a, third.gain.delta) == (1, "round 1", 25.0)
    assert third.suite == "words-dev" and third.diversity == pytest.approx(0.4)
    assert third.answer_words == pytest.approx(2 * 9 / 12)
    made.decide(1, rolled_back=True)
    again = made.result(2)
    assert again.gain is not None
    assert (again.best_before, again.gain.a, again.gain.delta) == (0, "round 0", 50.0)


def test_the_share_of_kept_rows_is_of_all_that_the_filters_saw(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert made.result(0).accepted is None
    directory = made.run.round(0)
    directory.instances.write_text("{}\n" * 3)
    directory.rejected("instances").parent.mkdir()
    directory.rejected("instances").write_text("{}\n")
    assert accepted_share(directory) == 0.75


def test_a_round_that_is_rolled_back_is_best_only_where_no_other_is(tmp_path: Path) -> None:
    made = Made(tmp_path)

    def best() -> int | None:
        found = best_training(made.run.rounds(), made.config.evaluation)
        return found.round if found else None

    assert best() == 2
    made.decide(2, rolled_back=True)
    assert best() == 1
    rows = LiveRows(made.run)
    before = rows.last_live(3)
    assert before is not None and before.path.name == "round-1"
    for number in range(3):
        made.decide(number, rolled_back=True)
    assert best() == 2 and rows.last_live(3) is None


def test_what_was_rolled_back_bears_on_later_rounds_and_not_on_its_own(tmp_path: Path) -> None:
    made = Made(tmp_path)
    for number in range(3):
        made.run.round(number).finish("instructions", 1.0)
    RunDirectory(made.run.path).open(made.config)
    made.decide(1, rolled_back=False)
    RunDirectory(made.run.path).open(made.config)
    made.decide(1, rolled_back=True)
    with pytest.raises(RunError, match="rolled-back rounds: none -> 1.*--redo instructions"):
        RunDirectory(made.run.path).open(made.config)
    for number in (0, 1):
        mark = made.run.round(number).read_mark("instructions")
        assert mark is not None
        assert mark.depends_on["content of rolled-back rounds"] == "none"
    RunDirectory(made.run.path).open(made.config, redo="instructions")
    assert not made.run.round(1).decision.exists()


def test_an_evaluation_that_is_made_again_makes_later_rounds_again_where_rounds_must_gain(
    tmp_path: Path,
) -> None:
    config = Made(tmp_path, "governor.policy=gain").config
    assert "evaluate" in dependencies("instructions", 1, config)
    assert "evaluate" not in dependencies("instructions", 0, config)
    plain = config.model_copy(update={"governor": type(config.governor)()})
    assert "evaluate" not in dependencies("instructions", 1, plain)


def test_a_decision_that_is_about_to_be_made_again_is_named_before_anything_is_moved(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path)
    made.decide(0, rolled_back=True)
    made.run.round(1).finish("instructions", 1.0)
    made.run.round(0).finish("evaluate", 1.0)
    with pytest.raises(RunError, match="rolled-back rounds: 0 -> none.*--redo instructions"):
        RunDirectory(made.run.path).open(made.config, redo="evaluate")
    assert made.run.round(0).decision.exists()
    RunDirectory(made.run.path).open(made.config, redo="instructions")


def test_the_table_tells_what_each_round_showed_and_why_it_was_kept_or_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path)
    sure = made.result(0).model_copy(update={"gain": compared(5.0)})
    history = [sure, made.result(1).model_copy(update={"diversity": 0.2})]
    rule = GovernorConfig(policy="gain", after_rollback="stop", max_length_ratio=None)
    for number in range(2):
        decision = decide(history[: number + 1], rule)
        made.run.round(number).decision.write_text(decision.model_dump_json())
    inspect.rounds(made.run.path)
    head, *lines, note = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["round", "rows", "ROUGE-L"] and "words-dev" in note
    assert lines[0].split()[:4] == ["0", "0", "25.0", "+7.0"] and "kept" in lines[0]
    assert "rolled back, stop" in lines[1] and "instructions is 0.20, limit 0.35" in lines[1]
    assert lines[2].split() == ["2", "0", "not", "decided"]
    inspect.rounds(made.run.path, as_json=True)
    rows = [RoundLine.model_validate_json(t) for t in capsys.readouterr().out.splitlines()]
    assert tuple(rows) == rounds_of(made.run) and rows[1].shown == history[1]
