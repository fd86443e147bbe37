"""Several answers drawn for an input: which is kept, what becomes of the others, and of a kill."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from selfinstruct_train.config import InstanceStep
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.generation.chooser_program import check_program, score_answers
from selfinstruct_train.generation.choosing import Choice, Draw, Drawn, choose
from selfinstruct_train.judging.arbiter import Answered
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import DrawnAnswers, GeneratedInstance
from selfinstruct_train.run.directory import RoundDirectory
from tests.generation.test_generate import (
    rejections,
    run_generation,
    scripted,
    small_config,
    writer,
)

SAID = ("Paris.", "paris", "Rome", "PARIS!", "")


def chosen(
    chooser: str, texts: Sequence[str], *, engine: ScriptedEngine | None = None, **settings: object
) -> Choice:
    step = InstanceStep.model_validate({"best_of": len(texts), "chooser": chooser, **settings})
    draws = tuple(
        Draw(text.removesuffix("…"), text.endswith("…"), -float(len(text))) for text in texts
    )
    question = Drawn("Name a city.", "France", draws)
    return choose(step, [question], engine or scripted(), load_pack("en"), "rouge")[0]


def test_a_majority_is_more_than_half_of_all_draws_whatever_their_case_and_marks() -> None:
    assert chosen("majority", SAID).place == 0
    assert chosen("majority", ("Rome", "paris", "Paris.")).place == 1
    for nobody in (("a", "b", "c"), ("a", "a", "b", "b"), ("a", "a", "", "b…", "c")):
        choice = chosen("majority", nobody)
        assert choice.place is None and "majority" in choice.evidence


def test_what_is_empty_or_cut_is_never_chosen() -> None:
    for chooser in ("majority", "minimum_bayes_risk", "likelihood"):
        assert chosen(chooser, ("", "", "", "x")).place in (None, 3)
        assert chosen(chooser, ("the same…", "the same…", "the same…")).place is None


def test_minimum_bayes_risk_takes_the_answer_that_is_most_like_the_others() -> None:
    texts = ("the cat sat on the mat", "a cat sat on a mat", "the cat sat on a mat", "no idea")
    choice = chosen("minimum_bayes_risk", texts)
    assert choice.place == 2
    # By hand: five of six tokens shared with either neighbour, none with the last.
    assert choice.scores[2] == pytest.approx((5 / 6 + 5 / 6 + 0) / 3, abs=1e-6)


def test_likelihood_takes_the_highest_mean_and_says_where_there_is_none() -> None:
    assert chosen("likelihood", ("four", "two", "threes")).place == 1
    step = InstanceStep(best_of=2, chooser="likelihood")
    unknown = Drawn("Say it.", "", (Draw("a", False, None), Draw("b", False, -1.0)))
    with pytest.raises(ConfigError, match="log-probabilities"):
        choose(step, [unknown], scripted(), load_pack("en"), "rouge")


def test_the_arbiter_is_asked_about_each_answer_and_the_one_held_right_is_kept() -> None:
    def score(prompt: str, continuation: str) -> float:
        asked = prompt.rsplit("\nTask:", 1)[1]
        assert asked.startswith(" Name a city.\nInput: France\nOutput: ")
        right = "Output: Lyon\n" in asked
        return 0.0 if (continuation == " Yes") == right else -3.0

    engine = ScriptedEngine(writer, score)
    choice = chosen("arbiter", ("Rome", "Lyon", "Oslo"), engine=engine)
    assert choice.place == 1 and choice.scores == (-3.0, 3.0, -3.0)


def test_the_arbiters_demonstrations_say_yes_and_no_equally_often() -> None:
    seen = []

    def score(prompt: str, continuation: str) -> float:
        seen.append(prompt)
        return 0.0

    chosen("arbiter", ("a", "b"), engine=ScriptedEngine(writer, score))
    assert seen[0].count("complete: Yes\n") == seen[0].count("complete: No\n") > 2


PROGRAM = """
import sys, time
print("noise on standard output " * 10_000)

def score(instruction, input, output):
    assert (instruction, input) == ("Name a city.", "France")
    if output == "slow":
        time.sleep(60)
    if output == "wrong":
        raise ValueError("not a city at all")
    if output == "nan":
        return float("nan")
    return output == "Lyon"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "rate my answers.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_chooses_and_an_answer_that_it_refuses_is_dropped(program: Path) -> None:
    settings = {"chooser_program": program}
    assert chosen("program", ("Rome", "Lyon"), **settings).place == 1
    assert chosen("program", ("Rome", "Oslo"), **settings).place is None


def test_a_program_that_hangs_costs_that_answer_alone(program: Path) -> None:
    settings = {"chooser_program": program, "chooser_seconds": 0.5}
    assert chosen("program", ("slow", "Lyon"), **settings).scores == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def score(a, b, c):\n    return x", "'x' is not defined"),
        ("import nothing_of_the_kind", "nothing_of_the_kind"),
        ("def score(:", "invalid syntax"),
        ("def rate(a, b, c): ...", "has no function score"),
        ("import os; os._exit(3)", "exit code 3"),
        ("def score(*row): return 'good'", "could not convert"),
        ("def score(*row): return float('inf')", "finite"),
    ],
)
def test_what_is_wrong_with_a_program_is_one_sentence_that_names_it(
    text: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "rate.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        check_program(path)
        score_answers(path, [Answered("i", "", "o")], 5.0)
    assert sentence in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_program_and_settings_that_cannot_choose_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        check_program(tmp_path / "none.py")
    for settings in ("best_of=2", "chooser=program", "answers=agreed"):
        overrides = {"best_of=3", settings} if settings != "best_of=2" else {settings}
        with pytest.raises(ConfigError):
            small_config(tmp_path, *(f"generation.instances.{s}" for s in sorted(overrides)))


def drawing(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Two of three draws agree, but for the inputs of every fourth request."""
    if "-draw-" not in request.id:
        return writer(request)
    assert request.sampling.temperature == 0.7
    number, draw = int(request.id.split("-")[2]), int(request.id[-1])
    return ScriptedAnswer(f" answer {draw if number % 4 == 0 else draw // 2}", "stop")


def draw(tmp_path: Path) -> RoundDirectory:
    config = small_config(tmp_path, "generation.instances.best_of=3")
    return run_generation(config, ScriptedEngine(drawing, scripted()._score))


def test_the_chosen_answer_becomes_the_row_and_the_others_are_kept_beside_it(
    tmp_path: Path,
) -> None:
    directory = draw(tmp_path)
    kept = directory.store(directory.instances, GeneratedInstance).read()
    drawn = {row.id: row for row in directory.store(directory.drawn, DrawnAnswers).read()}
    of_draws = [row for row in kept if not row.is_classification]
    assert of_draws and {row.output for row in of_draws} == {"answer 0"}
    for row in of_draws:
        assert drawn[row.id].answers == ("answer 0", "answer 0", "answer 1")
        assert drawn[row.id].chosen == 0 and drawn[row.id].scores[2] == pytest.approx(
            1 / 3, abs=1e-6
        )
        assert row.provenance.request.endswith("-draw-0")
        assert row.provenance.sampling.temperature == 0.7
    undecided = [row for row in rejections(directory) if row.reason == "no_choice"]
    assert undecided and all("majority" in row.evidence for row in undecided)
    assert sum(row.chosen is None for row in drawn.values()) == len(undecided)
    mark = directory.mark("instances")
    assert mark is not None and mark.files["drawn.jsonl"].rows == len(drawn)


def test_a_label_that_was_written_before_its_input_must_please_the_program_too(
    tmp_path: Path,
) -> None:
    plain = draw(tmp_path / "plain").store(tmp_path / "plain/run/round-0/instances.jsonl",
                                           GeneratedInstance).read()  # fmt: skip
    labels = sorted({row.output for row in plain if row.is_classification})
    assert len(labels) > 1
    rules = tmp_path / "rules.py"
    rules.write_text(
        "def score(instruction, input, output):\n"
        f"    return output not in ('answer 1', {labels[0]!r})\n"
    )
    settings = ("best_of=3", "chooser=program", f"chooser_program={rules}")
    config = small_config(tmp_path, *(f"generation.instances.{value}" for value in settings))
    directory = run_generation(config, ScriptedEngine(drawing, scripted()._score))
    kept = directory.store(directory.instances, GeneratedInstance).read()
    assert {row.output for row in kept if row.is_classification} == set(labels[1:])
    dropped = [row for row in rejections(directory) if row.output == labels[0]]
    assert dropped and {row.reason for row in dropped} == {"no_choice"}


def test_each_draw_has_a_seed_of_its_own_that_follows_from_the_run(tmp_path: Path) -> None:
    seeds: list[int] = []

    def noting(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-draw-" in request.id:
            seeds.append(request.sampling.seed)
        return drawing(request)

    config = small_config(tmp_path, "generation.instances.best_of=3")
    run_generation(config, ScriptedEngine(noting, scripted()._score))
    assert len(set(seeds)) == len(seeds) > 3


@pytest.mark.parametrize("lines", [0, 1, 5])
def test_a_round_stopped_among_its_draws_ends_as_if_it_had_not_been(
    lines: int, tmp_path: Path
) -> None:
    directory = draw(tmp_path)
    names = ("drawn.jsonl", "instances.jsonl", "completions/instances.jsonl")
    whole = [(directory.path / name).read_bytes() for name in names]
    for name in names:
        path = directory.path / name
        rows = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(rows[:lines]) + rows[lines][:9])
    directory.rejected("instances").unlink()
    (directory.path / "done" / "instances.json").unlink()
    draw(tmp_path)
    assert [(directory.path / name).read_bytes() for name in names] == whole


def test_scores_of_drawn_answers_are_numbers_that_a_file_can_hold(tmp_path: Path) -> None:
    rows = RoundDirectory.store(draw(tmp_path), tmp_path / "run/round-0/drawn.jsonl", DrawnAnswers)
    for row in rows.read():
        assert all(score is None or math.isfinite(score) for score in row.scores)
