import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_train.config import load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.calibration import CALIBRATION_FILE, calibrate
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import Classified, Instance, SeedTask
from selfinstruct_train.run.directory import RunDirectory

ROOT = Path(__file__).parents[2]
SEEDS = tuple(
    SeedTask(
        id=f"seed_{i}",
        name=f"s{i}",
        instruction=f"{'sort into kinds' if i % 4 == 0 else 'write freely about'} matter {i}",
        instances=(Instance(input="", output="ok"),),
        is_classification=i % 4 == 0,
    )
    for i in range(16)
)


def seeds(
    shift: float, gap: float, yes: int = 25, no: int = 150, seed: int = 0
) -> tuple[list[float], list[bool]]:
    """Margins of seeds whose kinds lie ``gap`` apart, moved by what the model prefers to say."""
    rng = random.Random(seed)
    labels = [True] * yes + [False] * no
    return [shift + gap * label + rng.gauss(0, 1) for label in labels], labels


@pytest.mark.parametrize("shift", [-20.0, -3.0, 0.0, 3.0, 20.0])
def test_what_the_model_prefers_to_say_does_not_matter(shift: float) -> None:
    margins, labels = seeds(shift, 4.0)
    found = calibrate(margins, labels, [shift - 1.0])
    assert found.recall is not None and found.recall >= 0.8
    assert found.precision is not None and found.precision >= 0.8
    assert found.threshold - shift == pytest.approx(
        calibrate(seeds(0.0, 4.0)[0], labels, [-1.0]).threshold, abs=1e-3
    )


def test_kinds_that_lie_apart_are_told_apart_without_fault() -> None:
    margins, labels = seeds(-5.0, 30.0)
    found = calibrate(margins, labels, [-10.0])
    assert (found.recall, found.precision, found.auc) == (1.0, 1.0, 1.0)
    assert max(m for m, y in zip(margins, labels, strict=True) if not y) < found.threshold
    assert min(m for m, y in zip(margins, labels, strict=True) if y) > found.threshold


def test_the_figures_are_of_seeds_that_the_threshold_was_not_chosen_on() -> None:
    # Margins that say nothing: a threshold that is judged on its own seeds would look better.
    aucs, precisions = [], []
    for seed in range(30):
        margins, labels = seeds(0.0, 0.0, yes=20, no=80, seed=seed)
        found = calibrate(margins, labels, [0.0])
        aucs.append(found.auc or 0.0)
        precisions.append(found.precision or 0.0)
    assert sum(aucs) / 30 == pytest.approx(0.5, abs=0.05)
    assert sum(precisions) / 30 == pytest.approx(0.2, abs=0.05)


def test_the_predicted_share_stays_between_half_and_twice_the_true_one() -> None:
    margins, labels = seeds(-3.0, 1.0, yes=26, no=149)
    found = calibrate(margins, labels, [-4.0])
    share = sum(m > found.threshold for m in margins) / len(margins)
    assert 0.5 * found.true_share <= share <= 2.0 * found.true_share


@pytest.mark.parametrize("label", [True, False])
def test_seeds_of_one_kind_leave_it_to_inputs_without_content_and_say_so(label: bool) -> None:
    found = calibrate([1.0, 2.0, 3.0], [label] * 3, [-2.0, -1.0])
    assert (found.threshold, found.chosen_by, found.recall) == (-1.5, "content_free", None)


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("prior", [-9.0, 0.0, 9.0])
def test_enough_seeds_of_one_kind_all_lie_on_the_side_of_their_kind(
    label: bool, prior: float
) -> None:
    margins = [random.Random(n).gauss(0, 3) for n in range(20)]
    found = calibrate(margins, [label] * 20, [prior])
    assert found.chosen_by == "content_free"
    assert {round(margin, 4) > found.threshold for margin in margins} == {label}
    if all((margin > prior) == label for margin in margins):
        assert found.threshold == prior
    assert "inputs without content" in found.sentence


def test_few_seeds_of_a_kind_are_pulled_towards_inputs_without_content() -> None:
    few = calibrate([4.0, -4.0, -4.2, -3.9], [True, False, False, False], [-10.0])
    assert -10.0 < few.threshold < 0.05


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.booleans()), min_size=1, max_size=40),
    st.lists(st.floats(-100, 100), min_size=1, max_size=4),
)
def test_any_margins_give_a_threshold(rows: list[tuple[float, bool]], free: list[float]) -> None:
    found = calibrate([m for m, _ in rows], [y for _, y in rows], free)
    assert -102.0 <= found.threshold <= 102.0
    assert found.sentence


def always_rather_no(prompt: str, continuation: str) -> float:
    """A model that ranks tasks rightly and never says Yes, as small models do."""
    if continuation == " No":
        return -1.0
    return -3.0 if "sort into kinds" in prompt[-80:] else -9.0


def one_list(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    if "-instructions-" not in request.id:
        return ScriptedAnswer(" yes\nInput: a b\nLabel: no\nInput: c d\n")
    number = 1 + sum(line[:1].isdigit() for line in request.prompt.splitlines()[:-1])
    things = ("birds", "seas and ships") if request.id.startswith("r0") else ("moss", "old wells")
    return ScriptedAnswer(f" sort into kinds all {things[0]}\n{number + 1}. tell of {things[1]}\n")


@pytest.mark.parametrize(("setting", "found"), [("true", [True, False]), ("false", [False, False])])
def test_step_two_finds_the_classification_tasks_of_a_model_that_never_says_yes(
    tmp_path: Path, setting: str, found: list[bool]
) -> None:
    config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        [
            "generation.prompts=en",
            "generation.instances.answers=as_written",
            "generation.instructions_per_round=2",
            "generation.max_requests=1",
            "generation.instructions.requests_per_batch=1",
            f"generation.classification.calibrate={setting}",
        ],
        tmp_path / "run",
    )
    run = RunDirectory(config.output_dir)
    run.open(config)
    said: list[str] = []

    def report(update: ProgressUpdate) -> None:
        said.append(update.note)

    engine = ScriptedEngine(one_list, always_rather_no)
    generate_round(config, engine, run, 0, SEEDS, None, lambda i, g: f"{i}{g}", report)
    directory = run.round(0)
    rows = directory.store(directory.classified, Classified).read()
    assert [row.is_classification for row in rows] == found
    calibrated = setting == "true"
    assert (directory.path / CALIBRATION_FILE).exists() == calibrated
    assert any("recall 100%" in note for note in said) == calibrated
    # The next round draws the same line, and asks no seed again.
    said.clear()
    generate_round(config, engine, run, 1, SEEDS, None, lambda i, g: f"{i}{g}", report)
    second = run.round(1)
    assert not any("seeds" in note for note in said)
    assert second.calibration.exists() == calibrated
    if calibrated:
        assert second.calibration.read_bytes() == directory.calibration.read_bytes()
