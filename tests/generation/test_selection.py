"""What rows score, which of them are taken, and that a kill changes nothing of it."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_train.config import Config, EngineConfig, ScoreWeights, SelectConfig
from selfinstruct_train.distributed import World
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.scripted import ScriptedEngine
from selfinstruct_train.errors import ConfigError, EngineError, RunError
from selfinstruct_train.generation.scores import instruction_following_difficulty
from selfinstruct_train.generation.selection import Candidate, select, weighted
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.judging.arbiter import Answered, Arbiter
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import GeneratedInstance, Instruction, LeftOutRow, RowScores
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.text.novelty import NoveltyIndex
from tests.generation.test_generate import (
    SEEDS,
    contents,
    run_generation,
    small_config,
    writer,
)
from tests.helpers.small_models import loaded_model

EN = load_pack("en")
ALL = (
    "generation.select.by.arbiter=1.0",
    "generation.select.by.ifd=0.5",
    "generation.select.by.length=-0.5",
    "generation.select.by.novelty=0.25",
    "generation.select.requests_per_batch=4",
)


def likelihood(prompt: str, continuation: str) -> float:
    """Yes to tasks that say "judge"; answers are likelier after a prompt that says much."""
    if continuation in (" Yes", " No"):
        asked = prompt.rpartition("\nTask:")[2]
        return float((continuation == " Yes") == ("judge" in asked)) - len(asked) / 100
    return -10.0 * len(continuation.split()) / (1 + len(prompt) % 7)


def rater() -> ScriptedEngine:
    return ScriptedEngine(writer, likelihood)


def rows_of(directory: RoundDirectory) -> tuple[tuple[GeneratedInstance, RowScores], ...]:
    instances = directory.store(directory.instances, GeneratedInstance).read()
    scores = directory.store(directory.scores, RowScores).read()
    return tuple(zip(instances, scores, strict=True))


def left_out(directory: RoundDirectory) -> tuple[LeftOutRow, ...]:
    return directory.store(directory.selection, LeftOutRow).read()


def live(config: Config) -> list[str]:
    return [row.id for row in LiveRows(RunDirectory(config.output_dir)).instances(1)]


def test_without_a_setting_no_row_is_scored_or_left_out(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path), rater())
    assert not directory.scores.exists() and not directory.selection.exists()
    assert directory.mark("scores") is None is directory.mark("selection")


def test_scores_are_those_computed_by_hand(tmp_path: Path) -> None:
    directory = run_generation(small_config(tmp_path, *ALL), rater())
    nearest = {
        row.id: row.nearest for row in directory.store(directory.instructions, Instruction).read()
    }
    rows = rows_of(directory)
    assert len(rows) > 20
    for row, scores in rows:
        assert scores.id == row.id
        assert scores.arbiter == pytest.approx(1.0 if "judge" in row.instruction else -1.0)
        given = f"\nInput: {row.input}" if row.input else ""
        prompt = f"Task: {row.instruction}{given}\nOutput:"
        text, tokens = f" {row.output}", len(row.output.split())
        losses = [-likelihood(p, text) / tokens for p in (prompt, "Output:")]
        assert scores.ifd == pytest.approx(math.exp(losses[0]) / math.exp(losses[1]), abs=1e-6)
        assert scores.length == tokens
        near = nearest[row.instruction_id]
        assert scores.novelty == (None if near is None else pytest.approx(1 - near.score))


def test_only_scores_that_count_are_computed(tmp_path: Path) -> None:
    seen = set()

    def score(prompt: str, continuation: str) -> float:
        seen.add((continuation, EN.wording.arbiter_header in prompt))
        return 0.0

    engine = ScriptedEngine(writer, score)
    config = small_config(
        tmp_path, "generation.select.by.length=1.0", "generation.classification.calibrate=false"
    )
    directory = run_generation(config, engine)
    for _, scores in rows_of(directory):
        assert scores.model_dump(exclude_none=True).keys() == {"id", "length"}
    mark = directory.mark("scores")
    assert mark is not None and mark.figures["scores"] == "length"
    assert seen == {(" Yes", False), (" No", False)}  # of step 2


def test_scores_of_a_real_model_are_those_of_its_own_logits() -> None:
    torch.manual_seed(0)
    loaded = loaded_model()
    engine, pack = TransformersEngine(loaded, EngineConfig()), EN
    answer = Answered("Name a colour of the sky.", "at noon", "blue as a bird")

    def mean_loss(prompt: str, text: str) -> float:
        ids = loaded.tokenizer(prompt + text, return_tensors="pt").input_ids
        first = len(loaded.tokenizer(prompt).input_ids)
        logprobs = torch.log_softmax(loaded.model(ids).logits[0, :-1].float(), -1)
        picked = logprobs.gather(1, ids[0, 1:, None])[first - 1 :]
        return -float(picked.mean())

    found = instruction_following_difficulty(engine, pack, answer)
    prompt = "Task: Name a colour of the sky.\nInput: at noon\nOutput:"
    text = " blue as a bird"
    with torch.no_grad():
        expected = math.exp(mean_loss(prompt, text)) / math.exp(mean_loss("Output:", text))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_row_that_does_not_fit_into_the_context_has_no_score_and_stops_nothing() -> None:
    engine, pack = ScriptedEngine(writer, likelihood, context_length=60), EN
    short, long = Answered("Name it.", "", "a"), Answered("Name it.", "", "a " * 70)
    assert instruction_following_difficulty(engine, pack, short) is not None
    assert instruction_following_difficulty(engine, pack, long) is None
    assert Arbiter(engine, pack).fits([short, long]) == [True, False]
    unscored = Candidate("x", "x", RowScores(id="x"))
    others = [Candidate(i, i, RowScores(id=i, ifd=float(i))) for i in "135"]
    assert weighted([unscored, *others], ScoreWeights(ifd=1.0))[0] == 0.0


def test_what_is_left_out_is_live_no_more_and_stays_in_its_file(tmp_path: Path) -> None:
    config = small_config(tmp_path, *ALL, "generation.select.keep=10")
    directory = run_generation(config, rater())
    gone = left_out(directory)
    rows = [row.id for row, _ in rows_of(directory)]
    assert len(rows) == 10 + len(gone) and {row.reason for row in gone} == {"over_budget"}
    assert live(config) == [id for id in rows if id not in {row.id for row in gone}]
    totals = weighted(
        [Candidate(row.id, row.instruction, scores) for row, scores in rows_of(directory)],
        config.generation.select.by,
    )
    score = dict(zip(rows, totals, strict=True))
    assert min(score[id] for id in live(config)) >= max(row.score for row in gone)
    mark = directory.mark("selection")
    assert mark is not None and mark.figures["taken"] == 10
    # The pool of the next round still knows every instruction.
    run = RunDirectory(config.output_dir)
    assert len(list(LiveRows(run).instructions(1))) == 24


def test_another_weight_selects_again_without_scoring_again(tmp_path: Path) -> None:
    keep = "generation.select.keep=0.5"
    config = small_config(tmp_path, *ALL, keep)
    before, scored = live_after(config), RunDirectory(config.output_dir).round(0).scores.stat()
    other = small_config(tmp_path, *ALL, keep, "generation.select.by.arbiter=-9.0")
    with pytest.raises(RunError, match="--redo selection"):
        run_generation(other, rater())
    run = RunDirectory(other.output_dir)
    run.open(other, redo="selection")
    generate_round(other, rater(), run, 0, SEEDS, None, lambda i, g: i, lambda update: None)
    assert live(other) != before
    assert run.round(0).scores.stat() == scored


def live_after(config: Config) -> list[str]:
    run_generation(config, rater())
    return live(config)


@pytest.mark.parametrize("stop", [1, 5, 9, 21])
def test_a_killed_scoring_goes_on_to_the_same_bytes(stop: int, tmp_path: Path) -> None:
    whole = run_generation(small_config(tmp_path / "whole", *ALL, DIVERSE), rater())
    config = small_config(tmp_path / "killed", *ALL, DIVERSE)
    asked = 0

    def failing(prompt: str, continuation: str) -> float:
        nonlocal asked
        if prompt == "Output:":
            asked += 1
            if asked == stop:
                raise EngineError("killed")
        return likelihood(prompt, continuation)

    with pytest.raises(EngineError, match="killed"):
        run_generation(config, ScriptedEngine(writer, failing))
    directory = RunDirectory(config.output_dir).round(0)
    if directory.scores.exists():
        with directory.scores.open("ab") as file:
            file.write(b'{"id": "half a li')
    assert contents(run_generation(config, rater())) == contents(whole)


DIVERSE = "generation.select.diversity=0.5"


def test_processes_that_share_the_engine_score_as_one_does(tmp_path: Path) -> None:
    one = run_generation(small_config(tmp_path / "one", *ALL), rater())
    config = small_config(tmp_path / "shared", *ALL)
    engine = ParallelEngine(rater(), World(0, 1))
    run = RunDirectory(config.output_dir)
    run.open(config)
    generate_round(config, engine, run, 0, SEEDS, None, lambda i, g: i, lambda update: None)
    assert run.round(0).scores.read_bytes() == one.scores.read_bytes()


def test_ifd_is_refused_where_a_server_scores_first_tokens_alone(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, *ALL, "generation.engine.kind=server", "generation.classification.calibrate=false"
    )
    with pytest.raises(ConfigError, match=r"select\.by\.ifd"):
        run_generation(config, ScriptedEngine(writer, lambda prompt, text: -1.0))


WORDS = st.lists(
    st.sampled_from(["name", "sort", "count", "red", "blue", "green", "tall"]), max_size=5
)
ROWS = st.lists(st.tuples(WORDS, st.none() | st.integers(-3, 3)), max_size=14)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.none() | st.integers(1, 6) | st.sampled_from([0.3, 0.5, 1.0]), st.floats(0.0, 1.0))
def test_no_taken_pair_is_too_close_nor_are_too_many_taken(
    rows: list[tuple[list[str], int | None]], keep: int | float | None, diversity: float
) -> None:
    candidates = [
        Candidate(str(i), " ".join(words), RowScores(id=str(i), length=score))
        for i, (words, score) in enumerate(rows)
    ]
    config = SelectConfig(by=ScoreWeights(length=1.0), keep=keep, diversity=diversity)
    found = select(candidates, config, "rouge")
    assert found == select(candidates, config, "rouge")
    gone = {row.id: row for row in found}
    assert len(gone) == len(found)
    taken = [row for row in candidates if row.id not in gone]
    most = len(rows) if keep is None else keep if isinstance(keep, int) else keep * len(rows)
    assert len(taken) <= max(1, most)
    total = dict(zip((row.id for row in candidates), weighted(candidates, config.by), strict=True))
    for i, row in enumerate(taken):
        assert all(likeness(row, other) <= diversity for other in taken[:i])
    for row in candidates:
        if (verdict := gone.get(row.id)) is None:
            continue
        better = [other for other in taken if total[other.id] >= total[row.id]]
        if verdict.reason == "too_close":
            assert verdict.nearest is not None
            assert max(likeness(row, other) for other in better) > diversity
        else:
            assert len(better) == len(taken) == max(1, int(most))


def likeness(row: Candidate, other: Candidate) -> float:
    index = NoveltyIndex()
    index.add(other.id, other.instruction)
    return index.search([row.instruction])[0].score


@pytest.mark.parametrize("keep", [0, -1, 1.5, 0.0, math.nan])
def test_a_budget_is_a_number_of_rows_or_a_share_of_them(keep: float) -> None:
    with pytest.raises(ValueError, match="whole number from 1, or a share"):
        SelectConfig(by=ScoreWeights(length=1.0), keep=keep)


def test_a_budget_without_a_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"select\.by\.arbiter"):
        small_config(tmp_path, "generation.select.keep=10")
    small_config(tmp_path, "generation.select.keep=10", "generation.select.by.arbiter=1.0")
