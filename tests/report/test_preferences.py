"""What the report says of drawn answers and of pairs can be counted again from the rows."""

import re
from pathlib import Path

import pytest

from selfinstruct_train.engines.asking import StoredCompletion
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.records import DrawnAnswers, PairCounts, TrainingStep
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.page import render_page
from selfinstruct_train.report.preferences import agreement_of
from selfinstruct_train.run.directory import RunDirectory
from tests.report.conftest import Plan, Writer

WRONG = "certainly not this"


def drawn(number: int, right: str, chosen: int | None) -> DrawnAnswers:
    """Answers to a question of the microworld: right where ``right`` has an R."""
    task = load_suite("microworld").tasks[number]
    given = task.instances[0]
    answers = tuple(given.output if mark == "R" else WRONG for mark in right)
    return DrawnAnswers(
        id=f"r0-{number:06d}-0",
        instruction=task.instruction,
        input=given.input,
        answers=answers,
        scores=(0.5,) * len(answers),
        chosen=chosen,
        chooser="majority",
    )


ROWS = [
    drawn(0, "RRRR", 0),
    drawn(1, "RRRW", 1),
    drawn(2, "RWWW", 3),  # the majority is wrong
    drawn(3, "WWWW", 0),
    drawn(4, "RWWR", None),
]


def test_the_choosers_agreement_with_the_oracle_is_what_the_rows_say() -> None:
    found = agreement_of(ROWS)
    assert found is not None
    assert (found.inputs, found.drawn, found.reachable) == (4, 8 / 16, 3 / 4)
    assert found.kept.mean == 2 / 4 and found.kept.low < 0.5 < found.kept.high
    assert found.contested == 2 and found.chosen_right is not None
    assert found.chosen_right.mean == 1 / 2
    assert (found.dropped, found.dropped_right) == (1, 2 / 4)


def test_of_what_the_oracle_does_not_know_nothing_is_said() -> None:
    strange = ROWS[0].model_copy(update={"instruction": "Sing of the sea in B flat."})
    assert agreement_of([strange]) is None
    both = agreement_of([strange, *ROWS])
    assert both is not None and both.inputs == 4


def completion(name: str, tokens: int) -> StoredCompletion:
    return StoredCompletion(
        id=name,
        asked="0" * 16,
        text="x",
        finish_reason="eos",
        prompt_tokens=1,
        completion_tokens=tokens,
        mean_logprob=None,
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that drew answers and was trained on answers first and then on pairs."""
    found = Writer(tmp_path, Plan(rounds=1)).write()
    directory = found.round(0)
    directory.store(directory.drawn, DrawnAnswers).emit(ROWS)
    journal = [completion("r0-instances-000000", 900)]
    journal += [completion(f"r0-base-000000-0-draw-{n}", 10) for n in range(4)]
    path = directory.completions("instances")
    directory.store(path, StoredCompletion).append(journal)
    path = directory.completions("earlier_model")
    directory.store(path, StoredCompletion).append([completion("earlier-a", 321)])
    counts = PairCounts(
        pairs=41,
        sources={"drawn": 30, "earlier_model": 11},
        left_out=7,
        too_long=2,
        chosen_words=5.25,
        rejected_words=5.5,
        chosen_words_before=9.25,
        rejected_words_before=5.75,
    )
    directory.dataset.mkdir(exist_ok=True)
    (directory.dataset / "pairs.json").write_text(counts.model_dump_json(), "utf-8")
    answers = directory.before_pairs
    answers.path.mkdir()
    directory.training_steps.rename(answers.training_steps)
    directory.store(directory.training_steps, TrainingStep).append(
        TrainingStep(
            step=step,
            epoch=step / 40,
            loss=0.69 - step / 100,
            learning_rate=1e-6,
            reward_accuracy=0.5 + step / 100,
            reward_margin=step / 50,
            seconds=float(step),
        )
        for step in (10, 20, 30)
    )
    return found


def test_the_page_shows_draws_pairs_their_lengths_and_what_they_cost(run: RunDirectory) -> None:
    facts = read_facts(run)
    (found,) = facts.rounds
    assert found.draws is not None and found.draws.tokens == 40
    assert (found.draws.inputs, found.draws.answers, found.draws.kept) == (5, 20, 4)
    page = render_page(facts)
    rows = [
        re.sub(r"<[^>]+>", " ", row).split()
        for table in ("Drawn answers", "Choosers and the oracle", "Preference pairs")
        for row in page.partition(f'aria-label="{table}"')[2].partition("</table>")[0].split("<tr>")
    ]
    assert ["0", "majority", "5", "20", "4", "80.0", "40"] in rows
    (oracle,) = [row for row in rows if row[:4] == ["0", "4", "50.0", "50.0"]]
    assert oracle[6:9] == ["75.0", "2", "50.0"] and oracle[-2:] == ["1", "50.0"]
    (pairs,) = [row for row in rows if row[:3] == ["0", "default", "41"]]
    assert pairs[3:] == (
        ["drawn", "30,", "earlier", "model", "11", "9.2", "5.8", "7", "5.2", "5.5", "2", "321"]
    )
    assert "round 0 80.0 %, margin 0.600" in page, "the curve's caption"


def test_losses_of_the_two_trainings_are_not_drawn_as_one_curve(run: RunDirectory) -> None:
    (found,) = read_facts(run).rounds
    assert all(step.reward_accuracy is None for step in found.steps) and found.steps
    (pairs,) = found.pairs
    assert [step.step for step in pairs.steps] == [10, 20, 30]


def test_a_run_without_draws_or_pairs_has_no_such_section(tmp_path: Path) -> None:
    page = render_page(read_facts(Writer(tmp_path, Plan(rounds=1)).write()))
    assert "Answers drawn, one kept" not in page and "Pairs trained on" not in page
