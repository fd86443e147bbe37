"""Judges of known bias: what is reported must name it, and nothing unread may count."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import JudgeConfig, load_config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, DataError, RunError
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.evaluation.win_rate import (
    judge_config,
    judge_round,
    make_judge,
    open_judge,
)
from selfinstruct_train.judging.ask import (
    Answers,
    Judge,
    grade_answers,
    judge_pairs,
    load_judge_prompts,
    read_choice,
    read_level,
)
from selfinstruct_train.judging.results import (
    GradeVerdict,
    PairVerdict,
    PairwiseSummary,
    length_control,
    summarise_grades,
    summarise_pairs,
)
from selfinstruct_train.packs.parts import JudgeMarks
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import EvalTask, Instance, Prediction
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.stores import RowStore

ROOT = Path(__file__).parents[2]
Decide = Callable[[str, str], str]
"""(first answer, second answer) -> what the judge writes."""


def quiet(update: ProgressUpdate) -> None:
    """Reports nothing."""


def exam(n: int) -> Suite:
    tasks = tuple(
        EvalTask(
            id=f"t{i}",
            instruction=f"Say {i}.",
            instances=(Instance(input=f"<{i}>", output=str(i)),),
        )
        for i in range(n)
    )
    return Suite("exam", tasks, is_microworld=False)


def answers(name: str, suite: Suite, responses: list[str]) -> Answers:
    rows = [
        Prediction(
            task_id=item.task_id,
            instruction=item.instruction,
            input=item.input,
            response=response,
            target=item.target,
        )
        for item, response in zip(suite.items, responses, strict=True)
    ]
    return Answers(name, tuple(rows))


def scripted(decide: Decide, context_length: int = 100_000) -> ScriptedEngine:
    pattern = re.compile(r"<<<Answer 1\n(.*?)\n>>>.*<<<Answer 2\n(.*?)\n>>>", re.DOTALL)

    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        match = pattern.search(request.prompt)
        assert match and adapter is None
        return ScriptedAnswer(decide(match[1], match[2]))

    return ScriptedEngine(answer, context_length=context_length)


def judge_of(engine: ScriptedEngine) -> Judge:
    return Judge("scripted", engine, load_judge_prompts(JudgeConfig(), "en"), max_tokens=8)


def verdicts_of(path: Path, decide: Decide, a: list[str], b: list[str]) -> tuple[PairVerdict, ...]:
    suite = exam(len(a))
    return judge_pairs(
        judge_of(scripted(decide)),
        RowStore(path / "pairs.jsonl", PairVerdict),
        suite.name,
        answers("base", suite, a),
        answers("tuned", suite, b),
        quiet,
    )


def judged(path: Path, decide: Decide, a: list[str], b: list[str]) -> PairwiseSummary:
    return summarise_pairs(verdicts_of(path, decide, a, b), "base", "tuned", "exam", "j", 0.95)


def better(first: str, second: str) -> str:
    """A fair judge: who says more often "good"."""
    x, y = first.count("good"), second.count("good")
    return "Verdict: tie" if x == y else "1" if x > y else "verdict: 2"


def test_a_fair_judge_gives_the_truth_and_is_called_consistent_and_unbiased(
    tmp_path: Path,
) -> None:
    result = judged(tmp_path, better, ["bad"] * 12 + ["good"] * 8, ["good"] * 15 + ["bad"] * 5)
    assert (result.wins, result.ties, result.losses) == (12, 3, 5)
    assert result.win_rate is not None and result.win_rate.value == pytest.approx(67.5)
    assert result.win_rate.low < 67.5 < result.win_rate.high
    assert result.consistency is not None and result.consistency.value == 100.0
    assert result.position_bias is not None and result.position_bias.value == 0.0
    assert (result.favoured_place, result.favoured_length) == (None, None)
    assert "biased" not in result.sentence


@pytest.mark.parametrize(
    ("says", "place", "sign"), [("1", "first", 1), ("Verdict: 2", "second", -1)]
)
def test_a_judge_that_looks_at_the_place_alone_is_named_and_moves_no_win(
    tmp_path: Path, says: str, place: str, sign: int
) -> None:
    result = judged(tmp_path, lambda first, second: says, ["bad"] * 30, ["good"] * 30)
    assert (result.wins, result.ties, result.losses) == (0, 30, 0)
    assert result.consistency is not None and result.consistency.value == 0.0
    assert result.position_bias is not None
    assert result.position_bias.value == pytest.approx(50.0 * sign)
    assert result.favoured_place == place
    assert f"biased: favours the {place} place" in result.sentence


def test_a_leaning_to_one_place_is_measured(tmp_path: Path) -> None:
    rng = random.Random(5)

    def leaning(first: str, second: str) -> str:
        return "1" if rng.random() < 0.4 else better(first, second)

    a = ["good" if i % 2 else "bad" for i in range(200)]
    b = ["bad" if i % 2 else "good" for i in range(200)]
    result = judged(tmp_path, leaning, a, b)
    # Where the fair verdict is for one side, 40 % of the verdicts for the second place are turned.
    assert result.position_bias is not None
    assert result.position_bias.low < 20.0 < result.position_bias.high
    assert result.favoured_place == "first"


def test_a_judge_that_counts_words_is_named_and_its_win_rate_is_corrected(tmp_path: Path) -> None:
    rng = random.Random(2)
    a = ["word " * rng.randint(1, 20) for _ in range(120)]
    # Tuned is longer three times in four.
    b = ["word " * max(1, len(x.split()) + rng.choice((6, 4, 2, -4))) for x in a]

    def longer(first: str, second: str) -> str:
        x, y = len(first.split()), len(second.split())
        return "tie" if x == y else "1" if x > y else "2"

    result = judged(tmp_path, longer, a, b)
    assert result.win_rate is not None and result.win_rate.value > 65
    assert result.favoured_length == "longer"
    assert "biased: favours the longer answer" in result.sentence
    assert result.length_controlled is not None
    assert result.length_controlled.low < 50 < result.length_controlled.high


def test_length_control_recovers_the_law_that_made_the_outcomes() -> None:
    rng = random.Random(3)
    growth = [rng.randint(-30, 50) for _ in range(4000)]
    mean = sum(growth) / len(growth)
    spread = math.sqrt(sum((g - mean) ** 2 for g in growth) / len(growth))

    def chance(x: float) -> float:
        return 1 / (1 + math.exp(-(0.5 + 1.2 * math.tanh(x / spread))))

    outcomes = [float(rng.random() < chance(g)) for g in growth]
    control = length_control(outcomes, growth, 0.95)
    assert control is not None
    assert control.win_rate.value == pytest.approx(100 * chance(0), abs=2.5)
    assert control.win_rate.low < 100 * chance(0) < control.win_rate.high
    assert control.effect.value == pytest.approx(1.2, abs=0.2)


def test_length_control_has_no_say_where_lengths_differ_alike_and_stays_finite() -> None:
    assert length_control([1.0, 0.0], [3, 3], 0.95) is None
    assert length_control([], [], 0.95) is None
    control = length_control([1.0] * 50, [-1, 2] * 25, 0.95)
    assert control is not None
    assert 95 < control.win_rate.value < 100
    assert control.win_rate.low < control.win_rate.value < control.win_rate.high


def verdict(number: int, task: str, first: str, second: str, choice: str) -> PairVerdict:
    return PairVerdict.model_validate(
        {
            "id": f"judge-{number}-{first}",
            "task_id": task,
            "first": first,
            "second": second,
            "first_words": 1 + number % 3,
            "second_words": 2,
            "choice": choice,
            "text": "",
            "finish_reason": "stop",
            "asked": "",
        }
    )


def test_pairs_of_one_task_count_less_than_as_many_tasks() -> None:
    def judged_by(tasks: Callable[[int], str]) -> PairwiseSummary:
        rows = []
        for number in range(80):
            # Eight tasks of ten pairs, each won or lost as a whole.
            wins = number // 10 % 2 == 0
            for first, second in (("base", "tuned"), ("tuned", "base")):
                choice = "first" if (first == "tuned") == wins else "second"
                rows.append(verdict(number, tasks(number), first, second, choice))
        return summarise_pairs(rows, "base", "tuned", "exam", "j", 0.95)

    def width(summary: PairwiseSummary, figure: str) -> float:
        estimate = getattr(summary, figure)
        return float(estimate.high - estimate.low)

    alone, clustered = judged_by(str), judged_by(lambda number: str(number // 10))
    assert alone.win_rate is not None and clustered.win_rate is not None
    assert alone.win_rate.value == clustered.win_rate.value == 50.0
    assert width(clustered, "win_rate") > 2.5 * width(alone, "win_rate")
    assert width(clustered, "length_controlled") > 2.5 * width(alone, "length_controlled")


def test_what_cannot_be_read_is_counted_apart_and_never_a_loss(tmp_path: Path) -> None:
    def moody(first: str, second: str) -> str:
        return "I would rather not say" if "odd" in first else better(first, second)

    result = judged(tmp_path, moody, ["odd", "odd", "bad", "bad"], ["good", "odd", "good", "bad"])
    assert (result.wins, result.ties, result.losses) == (1, 1, 0)
    assert (result.pairs, result.unparsed) == (4, 2)
    assert (result.unparsed_verdicts, result.unasked_verdicts) == (3, 0)
    assert result.win_rate is not None and result.win_rate.value == pytest.approx(75.0)


def test_a_judge_that_says_nothing_yields_no_figure(tmp_path: Path) -> None:
    result = judged(tmp_path, lambda first, second: "", ["a"], ["b"])
    assert (result.unparsed, result.wins, result.ties, result.losses) == (1, 0, 0, 0)
    assert result.win_rate is result.consistency is result.position_bias is None


def test_a_pair_too_long_for_the_judge_is_not_asked_about(tmp_path: Path) -> None:
    suite = exam(2)
    engine = scripted(better, context_length=400)
    rows = judge_pairs(
        judge_of(engine),
        RowStore(tmp_path / "pairs.jsonl", PairVerdict),
        suite.name,
        answers("base", suite, ["bad", "bad " * 400]),
        answers("tuned", suite, ["good", "good"]),
        quiet,
    )
    result = summarise_pairs(rows, "base", "tuned", "exam", "j", 0.95)
    assert len(engine.asked) == 2
    assert (result.wins, result.unparsed, result.unasked_verdicts) == (1, 1, 2)
    assert result.unparsed_verdicts == 0


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (" 1", "first"),
        ("Verdict: 2", "second"),
        ("TIE\n", "tie"),
        ("Both are short, but 1 errs.\nVerdict: 2", "second"),
        ("1\n1\n", "first"),
        ("1\n2", None),
        ("Verdict: 1 or 2", None),
        ("Answer 1 is better", None),
        ("12", None),
        ("", None),
    ],
)
def test_only_a_line_that_is_nothing_but_a_verdict_is_one(text: str, choice: str | None) -> None:
    assert read_choice(text) == choice


@pytest.mark.parametrize(
    ("text", "level"),
    [(" b", "B"), ("Grade: D", "D"), ("A good answer", None), ("A\nB", None), ("E", None)],
)
def test_only_a_line_that_is_nothing_but_a_level_is_one(text: str, level: str | None) -> None:
    assert read_level(text) == level


CHINESE = JudgeMarks(
    verdict="结论：",
    first="一",
    second="二",
    tie="平",
    grade="等级：",
    levels=("甲", "乙", "丙", "丁"),
)


@pytest.mark.parametrize(
    ("text", "choice", "level"),
    [
        ("结论：二", "second", None),
        ("理由很多。\n结论: 平", "tie", None),
        ("Verdict: 1", "first", None),
        ("等级：丙", None, "C"),
        ("甲", None, "A"),
        ("结论：一或二", None, None),
        ("一\n二", None, None),
        ("甲\nB", None, None),
    ],
)
def test_a_verdict_is_read_in_the_words_of_the_pack(
    text: str, choice: str | None, level: str | None
) -> None:
    assert read_choice(text, CHINESE) == choice
    assert read_level(text, CHINESE) == level


def test_a_stopped_judge_resumes_and_ends_with_the_same_file(tmp_path: Path) -> None:
    a, b = ["bad"] * 100, ["good"] * 100
    whole = verdicts_of(tmp_path, better, a, b)
    path = tmp_path / "pairs.jsonl"
    text = path.read_bytes()
    # Killed in the second batch, within a line.
    path.write_bytes(b"".join(text.splitlines(keepends=True)[:150]) + b'{"id": "ju')
    suite = exam(100)
    engine = scripted(better)
    store = RowStore(path, PairVerdict)
    sides = answers("base", suite, a), answers("tuned", suite, b)
    assert judge_pairs(judge_of(engine), store, suite.name, *sides, quiet) == whole
    assert path.read_bytes() == text
    assert len(engine.asked) == 200 - 128
    engine.asked.clear()
    judge_pairs(judge_of(engine), RowStore(path, PairVerdict), suite.name, *sides, quiet)
    assert engine.asked == []


def test_verdicts_on_other_answers_are_not_taken_for_these(tmp_path: Path) -> None:
    verdicts_of(tmp_path, better, ["bad"], ["good"])
    with pytest.raises(RunError, match="pairs.jsonl, line 1: a verdict of another judge"):
        verdicts_of(tmp_path, better, ["bad"], ["better"])


def test_braces_in_an_answer_are_the_answers_own(tmp_path: Path) -> None:
    seen: list[str] = []

    def remember(first: str, second: str) -> str:
        seen.extend((first, second))
        return "tie"

    verdicts_of(tmp_path, remember, ["{second} \\1"], ["{instruction} {nope}"])
    assert Counter(seen) == {"{second} \\1": 2, "{instruction} {nope}": 2}


def test_a_prompt_of_the_users_is_used_and_a_faulty_one_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("{instruction}|{input}|{first}|{second}\nVerdict:\n")
    assert load_judge_prompts(JudgeConfig(pairwise_prompt=own), "en").pairwise.endswith("Verdict:")
    own.write_text("{instruction} {first} {secnd}")
    with pytest.raises(ConfigError, match=r"lacks \{input\}.*lacks \{second\}.*unknown \{secnd\}"):
        load_judge_prompts(JudgeConfig(pairwise_prompt=own), "en")
    with pytest.raises(ConfigError, match="absent.txt"):
        load_judge_prompts(JudgeConfig(grade_prompt=tmp_path / "absent.txt"), "en")


def test_levels_are_counted_and_unread_grades_are_at_none(tmp_path: Path) -> None:
    says = {"one": "A", "two": "Grade: b", "three": "C", "four": "d", "five": "hm"}

    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        match = re.search(r"<<<Answer\n(.*?)\n>>>", request.prompt)
        assert match
        return ScriptedAnswer(says[match[1]])

    suite = exam(5)
    rows = grade_answers(
        judge_of(ScriptedEngine(answer)),
        RowStore(tmp_path / "grades.jsonl", GradeVerdict),
        suite.name,
        answers("tuned", suite, list(says)),
        quiet,
    )
    result = summarise_grades(rows, "tuned", "exam", "j", 0.95)
    assert (result.a, result.b, result.c, result.d) == (1, 1, 1, 1)
    assert (result.n, result.unparsed, result.unasked) == (5, 1, 0)
    assert result.acceptable is not None and result.acceptable.value == pytest.approx(50.0)


def test_a_round_is_judged_against_the_base_cut_where_it_starts_a_new_example(
    suite: Suite, answer_file: Callable[[str, Callable[[str], str]], Path], tmp_path: Path
) -> None:
    config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        (
            f"evaluation.suites=['{tmp_path / 'words.jsonl'}']",
            "evaluation.judge={tasks: [pairwise]}",
        ),
        tmp_path / "run",
    )
    run = RunDirectory(config.output_dir)
    run.open(config)
    folder = run.round(0).evaluation(suite.name)
    folder.mkdir(parents=True)
    answer_file("base.jsonl", lambda t: "bad\n\nInput: good").rename(folder / "base.jsonl")
    answer_file("tuned.jsonl", lambda t: "good").rename(folder / "tuned.jsonl")
    (judgement,) = judge_round(config, make_judge(config, scripted(better)), run, 0, quiet)
    assert judgement.pairwise is not None and judgement.grades == ()
    assert (judgement.pairwise.wins, judgement.pairwise.pairs) == (8, 8)
    written = sorted(path.name for path in (folder / "judge").iterdir())
    assert written == ["pairs.jsonl", "summary.json"]


def test_a_judge_behind_a_server_goes_by_the_name_that_it_is_served_under(tmp_path: Path) -> None:
    config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        ("evaluation.judge.engine={kind: server, server_model: big-judge}",),
        tmp_path,
    )
    assert judge_config(config).generation.engine.server_model == "big-judge"
    assert make_judge(config, scripted(better)).name == "big-judge"
    plain = load_config(ROOT / "configs" / "quickstart.yaml", (), tmp_path)
    assert make_judge(plain, scripted(better)).name == "scripted"


def test_a_judge_behind_a_server_needs_no_model_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx2", reason="the extra 'server' is not installed")

    def load(config: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("selfinstruct_train.models.load.load_model", load)
    config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        (
            "evaluation.judge.engine={kind: server, server_model: big-judge}",
            "evaluation.judge.server_context_length=4096",
        ),
        tmp_path,
    )
    judge = open_judge(config)
    assert (judge.name, judge.engine.context_length) == ("big-judge", 4096)


def test_a_judges_own_model_is_not_asked_for_by_the_writers_served_name(tmp_path: Path) -> None:
    config = load_config(
        ROOT / "configs" / "quickstart.yaml",
        (
            "generation.engine={kind: server, server_model: writer}",
            "evaluation.judge.model={name_or_path: some/judge}",
        ),
        tmp_path,
    )
    found = judge_config(config)
    assert found.model.name_or_path == "some/judge"
    assert found.generation.engine.server_model is None


def test_a_judge_in_vllm_loads_no_weights_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = SimpleNamespace(tokenizer=None)
    given: list[object] = []

    def make(config: object, model: object) -> ScriptedEngine:
        given.append(model)
        return scripted(better)

    def load(config: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("selfinstruct_train.engines.select.make_engine", make)
    monkeypatch.setattr("selfinstruct_train.models.describe.describe_model", lambda _: described)
    monkeypatch.setattr("selfinstruct_train.models.load.load_model", load)
    settings = ("evaluation.judge={model: {name_or_path: some/judge}, engine: {kind: vllm}}",)
    open_judge(load_config(ROOT / "configs" / "quickstart.yaml", settings, tmp_path))
    assert given == [described]


def test_a_chat_template_is_used_where_asked_for_and_missed_where_there_is_none(
    tmp_path: Path,
) -> None:
    class Tokenizer:
        chat_template: str | None = "some"
        bos_token = None

        def apply_chat_template(self, messages: list[dict[str, str]], **how: bool) -> str:
            return f"<user>{messages[0]['content']}<assistant>"

    config = load_config(
        ROOT / "configs" / "quickstart.yaml", ("evaluation.judge.chat_template=true",), tmp_path
    )
    tokenizer = Tokenizer()
    assert make_judge(config, scripted(better), tokenizer).frame("q") == "<user>q<assistant>"
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"evaluation\.judge\.chat_template: .* no chat template"):
        make_judge(config, scripted(better), tokenizer)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """The engine that the command asks, in the place of a model."""
    engine = scripted(better)
    model = SimpleNamespace(tokenizer=None)
    monkeypatch.setattr("selfinstruct_train.models.load.load_model", lambda config: model)
    monkeypatch.setattr("selfinstruct_train.engines.select.make_engine", lambda *_: engine)
    return engine


def test_the_judge_command_keeps_verdicts_beside_b_and_resumes(
    suite: Suite,
    answer_file: Callable[[str, Callable[[str], str]], Path],
    tmp_path: Path,
    asked: ScriptedEngine,
) -> None:
    a, b = answer_file("old.jsonl", lambda t: "bad"), answer_file("new.jsonl", lambda t: "good")
    config = str(ROOT / "configs" / "quickstart.yaml")
    arguments = ["judge", config, str(a), str(b), "--suite", str(tmp_path / "words.jsonl")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "scripted on words, new against old: 8 wins, 0 ties, 0 losses" in done.stdout
    folder = tmp_path / "judge-words-old-new"
    kept = sorted(path.name for path in folder.glob("[!.]*"))
    assert kept == ["pairs.jsonl", "summary.json"]
    assert len(asked.asked) == 16
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert len(asked.asked) == 16
    assert json.loads(again.stdout) == json.loads((folder / "summary.json").read_text())


def test_the_judge_command_takes_a_folder_and_settings(
    suite: Suite,
    answer_file: Callable[[str, Callable[[str], str]], Path],
    tmp_path: Path,
    asked: ScriptedEngine,
) -> None:
    a, b = answer_file("old.jsonl", lambda t: "bad"), answer_file("new.jsonl", lambda t: "good")
    prompt = tmp_path / "own.txt"
    prompt.write_text("{instruction} {input} <<<Answer 1\n{first}\n>>> <<<Answer 2\n{second}\n>>>")
    done = CliRunner().invoke(
        app,
        [
            "judge", str(ROOT / "configs" / "quickstart.yaml"), str(a), str(b),
            f"evaluation.judge.pairwise_prompt={prompt}",
            "--suite", str(tmp_path / "words.jsonl"), "--output", str(tmp_path / "said"),
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "said" / "pairs.jsonl").exists()
    assert not (tmp_path / "judge-words-old-new").exists()


def test_the_judge_command_reads_the_answers_before_it_loads_a_model(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(config: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("selfinstruct_train.models.load.load_model", load)
    config, suite_file = str(ROOT / "configs" / "quickstart.yaml"), str(tmp_path / "words.jsonl")
    done = CliRunner().invoke(app, ["judge", config, "no.jsonl", "no.jsonl", "--suite", suite_file])
    assert isinstance(done.exception, DataError)
    assert "no.jsonl: no such file" in str(done.exception)
