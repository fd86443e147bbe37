"""Reasoning before the answer: choosers compare answers, and rows hold what the setting says."""

from pathlib import Path

import pytest

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, SelfInstructError
from selfinstruct_train.evaluation.evaluate import _prediction
from selfinstruct_train.evaluation.suites import load_suite
from selfinstruct_train.generation.reasoning import require_reasoned
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import DrawnAnswers, GeneratedInstance, Rejection
from selfinstruct_train.report.preferences import agreement_of
from selfinstruct_train.run.directory import RoundDirectory
from selfinstruct_train.templates import split_reasoning
from selfinstruct_train.training.pairs import pairs_from_draws
from tests.generation.test_generate import run_generation, scripted, small_config, writer
from tests.report.test_preferences import ROWS


def settings(tmp_path: Path, *more: str) -> Config:
    return small_config(tmp_path, "generation.instructions_per_round=8", *more)


def thinker(request: Request, adapter: Path | None) -> ScriptedAnswer:
    """Reasons its own way to the answer that two of three draws have; one never arrives."""
    if "-base-" not in request.id:
        return writer(request)
    assert request.prompt.endswith("Output:")
    draw = int(request.id.rpartition("-draw-")[2]) if "-draw-" in request.id else 0
    way = f" First {draw} and then one more.\nAnswer: none of this is the end."
    return [
        ScriptedAnswer(f"{way}\n**Answer:** blue", "stop"),
        ScriptedAnswer(f"{way}\nAnswer: Blue.", "stop"),
        ScriptedAnswer(" I wonder what it is.", "stop"),
        ScriptedAnswer(f"{way}\nAnswer: red", "stop"),
    ][draw]


def played(config: Config) -> RoundDirectory:
    return run_generation(config, ScriptedEngine(thinker, scripted()._score))


def others(directory: RoundDirectory) -> list[GeneratedInstance]:
    rows = directory.store(directory.instances, GeneratedInstance).read()
    return [row for row in rows if not row.is_classification]


def test_the_majority_is_one_of_answers_whatever_led_to_them(tmp_path: Path) -> None:
    draws = ("generation.instances.best_of=4", "generation.instances.reasoning=hidden")
    directory = played(settings(tmp_path, *draws))
    assert not others(directory), "two of four is no majority"
    three = ("generation.instances.best_of=3", "generation.instances.reasoning=hidden")
    directory = played(settings(tmp_path / "three", *three))
    rows, pack = others(directory), load_pack("en")
    assert rows and {row.output for row in rows} == {"blue"}
    assert {row.provenance.prompt_hash for row in rows} == {pack.reasoned_hash}
    shown = {name for row in rows for name in row.provenance.demonstrations}
    assert shown == {task.id for task in pack.reasoned}
    (drawn, *_) = directory.store(directory.drawn, DrawnAnswers).read()
    assert drawn.answers == ("blue", "Blue.", "")
    assert drawn.scores[0] == drawn.scores[1] != drawn.scores[2] is None


def test_rows_that_show_reasoning_hold_both_parts_and_pairs_are_made_of_such(
    tmp_path: Path,
) -> None:
    draws = ("generation.instances.best_of=4", "generation.instances.chooser=likelihood")
    config = settings(tmp_path, *draws, "generation.instances.reasoning=shown")
    engine = ScriptedEngine(thinker, scripted()._score)
    likely = {"0": -0.1, "1": -0.2, "2": -0.01, "3": -0.9}
    plain = engine.generate

    def with_logprobs(requests: list[Request], adapter: Path | None = None) -> object:
        for completion in plain(requests, adapter):
            yield completion._replace(mean_logprob=likely.get(completion.id[-1], -1.0))

    engine.generate = with_logprobs  # type: ignore[method-assign, assignment]
    directory = run_generation(config, engine)
    rows = others(directory)
    said = "First 0 and then one more.\nAnswer: none of this is the end.\nAnswer: blue"
    assert rows and {row.output for row in rows} == {said}
    drawn = directory.store(directory.drawn, DrawnAnswers).read()
    pairs = list(pairs_from_draws(drawn, {row.id: row.output for row in rows}))
    assert len(pairs) == len(rows)
    assert {split_reasoning(pair.rejected, "Answer:").answer for pair in pairs} == {"red"}


def test_an_answer_that_reasoning_does_not_come_to_is_no_answer(tmp_path: Path) -> None:
    def lost(request: Request, adapter: Path | None) -> ScriptedAnswer:
        return ScriptedAnswer(" Who knows?") if "-base-" in request.id else writer(request)

    again = ("generation.instances.answers=asked_again", "generation.instances.reasoning=hidden")
    config = settings(tmp_path, *again)
    directory = run_generation(config, ScriptedEngine(lost, scripted()._score))
    rejected = directory.store(directory.rejected("instances"), Rejection).read()
    assert not others(directory)
    found = {row.evidence for row in rejected if row.reason == "no_answer"}
    assert found == {"no label after the reasoning: Who knows?"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two and two.\nAnswer: 4", ("Two and two.", "4")),
        (" **Answer:** 4\n", ("", "4")),
        ("Answer: 3? No.\n### answer： 4\n5", ("Answer: 3? No.", "4\n5")),
        ("The answer: 4", ("The answer: 4", None)),
        ("So\nAnswer:  ", ("So", None)),
        ("", ("", None)),
    ],
)
def test_the_answer_stands_after_the_last_label_that_begins_a_line(
    text: str, found: tuple[str, str | None]
) -> None:
    assert split_reasoning(text, "Answer:") == found


@pytest.mark.parametrize("language", ["en", "pt", "zh"])
def test_every_pack_shows_reasoning_and_its_answer(language: str) -> None:
    pack = load_pack(language)
    require_reasoned(pack, language)
    for task in pack.reasoned:
        reasoning, answer = split_reasoning(task.instances[0].output, pack.wording.answer)
        assert reasoning and answer and "\n" not in answer
    with pytest.raises(ConfigError, match=r"no reasoned\.jsonl"):
        require_reasoned(pack._replace(reasoned=()), language)
    with pytest.raises(ConfigError, match="no line that begins with"):
        require_reasoned(pack._replace(reasoned=pack.input_first), language)


def test_what_stands_after_the_label_counts_in_evaluation_where_rows_show_reasoning() -> None:
    item = load_suite("microworld").items[0]
    said = Completion("x", "So it is.\nAnswer: four", (), "eos", 1, 6, None)
    assert _prediction(item, said, "Answer:").response == "four"
    assert _prediction(item, said, None).response == said.text
    mute = said._replace(text="So it is.")
    assert _prediction(item, mute, "Answer:").response == "So it is."


def test_the_oracle_judges_the_answer_alone() -> None:
    shown = [
        row.model_copy(update={"answers": tuple(f"Hm.\nAnswer: {a}" for a in row.answers)})
        for row in ROWS
    ]
    assert agreement_of(shown, "Answer:") == agreement_of(ROWS)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["reasoning=hidden"], "no answer is asked for alone"),
        (["reasoning=shown", "answers=agreed"], "replaces the written answers"),
    ],
)
def test_settings_that_ask_nobody_to_reason_are_refused(
    tmp_path: Path, more: list[str], told: str
) -> None:
    with pytest.raises(SelfInstructError, match=told):
        settings(tmp_path, *(f"generation.instances.{one}" for one in more))
