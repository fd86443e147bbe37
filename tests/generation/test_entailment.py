"""Answers in other words than those of their passage: kept where the writer says it says so."""

from collections import Counter
from pathlib import Path

import pytest

from selfinstruct_train.engines.scripted import ScriptedEngine
from selfinstruct_train.errors import ConfigError, EngineError, SelfInstructError
from selfinstruct_train.generation.entailment import (
    Claim,
    Entailment,
    entailment_faults,
    require_entailment,
)
from selfinstruct_train.generation.passage_prompts import span
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import Instance
from selfinstruct_train.report.explain import explain
from selfinstruct_train.run.directory import RunDirectory
from tests.generation.test_generate import contents, rejections, scripted
from tests.generation.test_passages import (
    generate,
    of_texts,
    passages_of,
    place_of,
    reader,
    settings,
    write_texts,
)
from tests.helpers.killed import Killed, killed_after

QUESTIONS = (
    "generation.passages.tasks=[question]",
    "generation.passages.answers=judged",
)
LANGUAGES = ("en", "pt", "zh")
EN = load_pack("en")
RIGHT = {
    language: {task.instances[0].output for task in load_pack(language).entailment}
    for language in LANGUAGES
}


def says(prompt: str, answer: str) -> float:
    """Steps 2 and 3 as scripted; of two answers that stand in no passage one is said by it.

    The writer prefers No, as small models prefer one word whatever they are asked.
    """
    wording = EN.wording
    if not prompt.endswith(wording.entailment):
        return float(scripted()._score(prompt, answer))
    said = prompt.rpartition(f"\n{wording.answer} ")[2].partition("\n")[0]
    right = said in RIGHT["en"] or said == "we saw it."
    return (1.0 if right else -4.0) if answer == " Yes" else 2.0


def judged(tmp_path: Path, *more: str, score: object = says) -> ScriptedEngine:
    write_texts(tmp_path / "texts")
    return ScriptedEngine(reader, score)  # type: ignore[arg-type]


def test_an_answer_in_other_words_is_kept_where_the_passage_says_so_and_says_how_sure(
    tmp_path: Path,
) -> None:
    config = settings(tmp_path, *QUESTIONS)
    directory = generate(config, judged(tmp_path))
    rows = of_texts(directory)
    known = {text for _, text in passages_of(config)}
    assert all(row.input in known for row in rows)
    kept = {row.output: row.provenance.entailment for row in rows}
    assert kept == {"Nobody had told us": None, "Nobody": None, "we saw it.": -1.0}
    dropped = [row for row in rejections(directory) if row.reason.startswith("answer_not")]
    assert {(row.reason, row.output) for row in dropped} == {
        ("answer_not_entailed", "Seven thousand coins.")
    }
    # Between right ones at -1 and wrong ones at -6, eight of each: the middle.
    assert dropped[0].evidence == (
        "Seven thousand coins. (margin -6.00, the text says so above -3.50)"
    )
    assert dropped[0].provenance is not None and dropped[0].provenance.entailment == -6.0
    mark = directory.mark("instructions")
    assert mark is not None and mark.figures["entailment_threshold"] == -3.5
    assert mark.figures["entailment_auc_on_pack"] == 1.0
    row = next(row for row in rows if row.provenance.entailment is not None)
    told = explain(RunDirectory(config.output_dir), row.id)
    assert any("the writer holds: margin -1.00" in line for line in told)


def test_without_it_nothing_is_asked_and_what_does_not_stand_there_goes(tmp_path: Path) -> None:
    def never(prompt: str, answer: str) -> float:
        assert not prompt.endswith(EN.wording.entailment)
        return says(prompt, answer)

    directory = generate(settings(tmp_path, QUESTIONS[0]), judged(tmp_path, score=never))
    reasons = Counter(row.reason for row in rejections(directory) if place_of(row))
    assert reasons["answer_not_in_text"] and "answer_not_entailed" not in reasons
    assert "entailment" not in (directory.path / "instances.jsonl").read_text("utf-8")
    assert all(row.provenance.entailment is None for row in of_texts(directory))


@pytest.mark.parametrize("after", [3, 9])
def test_a_killed_round_ends_as_an_undisturbed_one(tmp_path: Path, after: int) -> None:
    engine = judged(tmp_path / "whole")
    whole = contents(generate(settings(tmp_path / "whole", *QUESTIONS), engine))
    engine = judged(tmp_path / "killed")
    config = settings(tmp_path / "killed", *QUESTIONS)
    with pytest.raises(Killed):
        generate(config, ScriptedEngine(killed_after(after, reader), says))
    assert contents(generate(config, engine)) == whole


def test_an_engine_without_log_probabilities_says_so(tmp_path: Path) -> None:
    def none(prompt: str, answer: str) -> float:
        if prompt.endswith(EN.wording.entailment):
            raise EngineError("no log-probabilities here")
        return says(prompt, answer)

    with pytest.raises(EngineError, match="no log-probabilities"):
        generate(settings(tmp_path, *QUESTIONS), judged(tmp_path, score=none))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_pack_shows_what_is_said_and_what_is_not_and_is_calibrated_on_it(
    language: str,
) -> None:
    pack = load_pack(language)
    wording, asked = pack.wording, set()

    def score(prompt: str, answer: str) -> float:
        assert prompt.startswith(wording.entailment_header)
        question = prompt.rpartition(f"\n{wording.passage}")[2]
        said = question.rpartition(f"\n{wording.answer}")[2].partition("\n")[0].strip()
        shown = prompt.removesuffix(question)
        for task in pack.entailment:
            if task.instruction in question:
                asked.add((task.id, said))
                assert task.instruction not in shown, "a demonstration is not shown its own answer"
        yes = answer == f"{wording.gap}{wording.yes}"
        return float(yes == (said in RIGHT[language]))

    assert len(pack.entailment) >= 8 and not entailment_faults(pack)
    require_entailment(pack, language)
    found = Entailment(ScriptedEngine(lambda request, adapter: None, score), pack)  # type: ignore[arg-type, return-value]
    assert found.calibration.recall == found.calibration.precision == 1.0
    assert found.calibration.seeds == 2 * len(pack.entailment) == len(asked)
    for task in pack.entailment:
        right, wrong = task.instances
        for one in (right, wrong):
            assert span(one.output, one.input) is None, "an exact span is kept without being asked"
        (margin,) = found.margins([Claim(right.input, "?", right.output)])
        assert margin is not None and margin > found.calibration.threshold


def test_what_does_not_fit_the_context_is_not_asked_about() -> None:
    def engine(room: int) -> ScriptedEngine:
        return ScriptedEngine(lambda request, adapter: None, says, context_length=room)  # type: ignore[arg-type, return-value]

    pack = EN
    task = pack.entailment[0]
    claims = [
        Claim(task.instances[0].input, task.instruction, "we saw it."),
        Claim("word " * 400, task.instruction, "we saw it."),
    ]
    assert Entailment(engine(400), pack).margins(claims) == [-1.0, None]
    assert Entailment(engine(400), pack).margins([]) == []


def test_a_pack_that_cannot_ask_says_what_it_lacks(tmp_path: Path) -> None:
    pack = EN
    with pytest.raises(ConfigError, match=r"has no entailment\.jsonl; write one"):
        require_entailment(pack._replace(entailment=()), "mine")
    task = pack.entailment[0]
    right, wrong = task.instances
    for instances in (
        (right,),
        (right, Instance(input="x", output="y")),
        (Instance(input=right.input, output=right.input[:8]), wrong),
    ):
        spoiled = (task.model_copy(update={"instances": instances}), *pack.entailment[1:])
        with pytest.raises(ConfigError, match=r"mine/entailment\.jsonl: 'en_entailment_0' must"):
            require_entailment(pack._replace(entailment=spoiled), "mine")
    with pytest.raises(SelfInstructError, match="no question is asked"):
        settings(tmp_path, "generation.passages.answers=judged")
