"""Where pairs come from: each source asks whom it should, keeps what it asked, and is resumed."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import DrawnAnswers, PreferencePair, TrainingRow
from selfinstruct_train.rounds.preferring import preference_pairs
from selfinstruct_train.run.directory import RunDirectory

ROOT = Path(__file__).parents[2]
ADAPTER = Path("round-0/adapter")


def settings(tmp_path: Path, *more: str) -> Config:
    overrides = [
        "generation.prompts=en",
        "generation.instances.answers=as_written",
        "generation.instances.best_of=3",
        "training.method=dpo",
    ]
    return load_config(ROOT / "configs/quickstart.yaml", [*overrides, *more], tmp_path / "run")


def row(name: str, output: str) -> TrainingRow:
    return TrainingRow(
        id=name,
        source="generated",
        instruction=f"Say {name}.",
        input="",
        output=output,
        is_classification=False,
    )


ROWS = [row("a", "alpha"), row("b", "beta"), row("c", "gamma")]
DRAWN = [
    DrawnAnswers(
        id=name,
        instruction=f"Say {name}.",
        input="",
        answers=answers,
        scores=(0.6, 0.3, None),
        chosen=0,
        chooser="majority",
    )
    for name, answers in (
        ("a", ("alpha", "aleph", "")),
        ("b", ("beta", "beth", "")),
        ("gone", ("x", "y", "")),
    )
]


def made(
    tmp_path: Path, source: str, engine: ScriptedEngine, rows: Sequence[TrainingRow] = ROWS
) -> list[PreferencePair]:
    config = settings(tmp_path, f"training.preference.pairs=[{source}]")
    run = RunDirectory(config.output_dir)
    directory = run.round(0)
    directory.store(directory.drawn, DrawnAnswers).emit(DRAWN)
    opened: Any = SimpleNamespace(
        config=config,
        run=run,
        pack=load_pack("en"),
        engine=engine,
        evaluation_engine=engine,
        described=SimpleNamespace(tokenizer=None),
        question=lambda instruction, given: f"ASK {instruction}",
        progress=lambda update: None,
    )
    return preference_pairs(opened, config, directory, 0, rows, ADAPTER)


def silent(request: Request, adapter: Path | None) -> ScriptedAnswer:
    raise AssertionError("nobody is to be asked")


def test_drawn_answers_make_pairs_of_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    pairs = made(tmp_path, "drawn", ScriptedEngine(silent))
    assert [(p.id, p.chosen, p.rejected) for p in pairs] == [
        ("a", "alpha", "aleph"),
        ("b", "beta", "beth"),
    ]


def test_the_earlier_model_is_asked_in_the_template_and_its_answers_are_kept(
    tmp_path: Path,
) -> None:
    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        assert adapter == ADAPTER and request.sampling.temperature == 0.0
        said = {
            "ASK Say a.": ScriptedAnswer(" alpha."),  # the same, once marks are left out
            "ASK Say b.": ScriptedAnswer(" bee\n\n### Instruction:\nmore", "length"),
            "ASK Say c.": ScriptedAnswer(" and so on and", "length"),  # cut: not its answer
        }
        return said[request.prompt]

    engine = ScriptedEngine(asked)
    first = made(tmp_path, "earlier_model", engine)
    assert [(p.id, p.chosen, p.rejected) for p in first] == [("b", "beta", "bee")]
    assert len(engine.asked) == 3
    assert made(tmp_path, "earlier_model", ScriptedEngine(silent)) == first


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("1", "2"), ("alpha", "aleph")),
        (("2", "1"), ("aleph", "alpha")),
        (("1", "1"), None),  # whichever stands first
        (("tie", "1"), None),
        (("well", "2"), None),
    ],
)
def test_only_what_the_judge_prefers_in_both_orders_makes_a_pair(
    verdicts: tuple[str, str], expected: tuple[str, str] | None, tmp_path: Path
) -> None:
    def asked(request: Request, adapter: Path | None) -> ScriptedAnswer:
        place = request.prompt.index("alpha") > request.prompt.index("aleph")
        return ScriptedAnswer(verdicts[place])

    pairs = made(tmp_path, "judged", ScriptedEngine(asked), ROWS[:1])
    assert [(p.chosen, p.rejected) for p in pairs] == ([expected] if expected else [])


def test_pairs_of_drawn_answers_need_answers_that_are_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="best_of"):
        settings(tmp_path, "generation.instances.best_of=1")
    settings(
        tmp_path, "generation.instances.best_of=1", "training.preference.pairs=[earlier_model]"
    )
