"""A round's evaluation with a scripted engine: who is asked, what is kept, what a kill costs."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.distributed import World
from selfinstruct_train.engines import asking
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, EngineError, RunError
from selfinstruct_train.evaluation.compare import best_training, read_comparison
from selfinstruct_train.evaluation.evaluate import evaluate_round
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import Comparison, PairedComparison
from selfinstruct_train.run.directory import RunDirectory

ROOT = Path(__file__).parents[2]
SYSTEMS = ("base", "base-few-shot", "seeds-only", "tuned")


def question(instruction: str, given: str) -> str:
    return f"TEMPLATE {instruction} | {given}"


def few_shot_question(instruction: str, given: str) -> str:
    return f"SHOWN {instruction} | {given}"


def speak(request: Request, adapter: Path | None) -> ScriptedAnswer:
    """The base answers and goes on; the tuned models answer and stop."""
    given = request.prompt.split("| ")[1]
    if request.prompt.startswith("SHOWN"):
        return ScriptedAnswer(f" {given}", "stop")
    if adapter is None:
        return ScriptedAnswer(f" {given}\n\n### Instruction:\nanother and another", "length")
    if adapter.parts[-2].startswith("steps"):
        return ScriptedAnswer(" word")
    return ScriptedAnswer(f" {given}" if "round-1" in adapter.parts else f" {given} {given}")


class Peer(World):
    """A second process, whose main process does its part elsewhere."""

    def on_main(self, make: Callable[[], object]) -> None:  # type: ignore[override]
        return None


class Stage(NamedTuple):
    """A run over the small suite, in batches of three."""

    config: Config
    run: RunDirectory
    engine: ScriptedEngine
    told: list[ProgressUpdate]

    def evaluate(self, number: int, *, seeds_only: Sequence[int] = (200,)) -> list[Comparison]:
        return evaluate_round(
            self.config,
            self.engine,
            self.run,
            number,
            adapter=self.run.round(number).adapter,
            seeds_only=[self.run.seeds_only(steps) for steps in seeds_only],
            question=question,
            few_shot_question=few_shot_question,
            pack=load_pack("en"),
            report=self.told.append,
        )

    def folder(self, number: int) -> Path:
        return self.run.round(number).evaluation("words")


MakeStage = Callable[..., Stage]


@pytest.fixture
def stage(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStage:
    monkeypatch.setattr(asking, "_BATCH", 3)

    def make(
        *overrides: str,
        name: str = "run",
        answer: Callable[[Request, Path | None], ScriptedAnswer] = speak,
        context_length: int = 1000,
    ) -> Stage:
        config = load_config(
            ROOT / "configs" / "quickstart.yaml",
            [
                f"evaluation.suites=[{tmp_path / 'words.jsonl'}]",
                "evaluation.bootstrap_samples=200",
                *overrides,
            ],
            tmp_path / name,
        )
        run = RunDirectory(tmp_path / name)
        run.open(config)
        return Stage(config, run, ScriptedEngine(answer, context_length=context_length), [])

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("manifest.json", "config.yaml", "run.lock", ".run.lock", "run.log")
    }


def pair(comparison: Comparison, a: str, group: str = "overall") -> PairedComparison:
    return next(p for p in comparison.pairs if (p.a, p.group) == (a, group))


def test_a_round_leaves_answers_and_one_comparison(stage: MakeStage) -> None:
    made = stage()
    (comparison,) = made.evaluate(0)
    assert list(files(made.run.path)) == [
        *(f"round-0/eval/words/{name}.jsonl" for name in ("base-few-shot", "base")),
        "round-0/eval/words/comparison.json",
        "round-0/eval/words/seeds-only.jsonl",
        "round-0/eval/words/tuned.jsonl",
        "seeds-only/steps-200/eval/words/seeds-only.jsonl",
    ]
    path = made.folder(0) / "comparison.json"
    assert read_comparison(path) == comparison
    assert {"delta", "ci_low", "ci_high", "wins", "ties", "losses"} <= json.loads(
        path.read_text()
    ).keys()


def test_the_gain_is_measured_against_the_base_that_was_stopped(stage: MakeStage) -> None:
    (comparison,) = stage().evaluate(0)
    scores = {score.system: score for score in comparison.scores}
    assert list(scores) == ["base", "base-stopped", "base-few-shot", "seeds-only", "tuned"]
    assert scores["base-stopped"].rouge_l == scores["base-few-shot"].rouge_l == 100.0
    assert scores["base"].rouge_l < scores["base-stopped"].rouge_l
    assert (scores["base"].ended, scores["base-stopped"].ended) == (0.0, 0.0)
    assert scores["tuned"].ended == 100.0
    assert comparison.delta == pytest.approx(
        scores["tuned"].rouge_l - scores["base-stopped"].rouge_l
    )
    assert (comparison.wins, comparison.losses) == (0, 8)
    assert pair(comparison, "base").delta > 0
    assert pair(comparison, "seeds-only").delta > 0
    assert pair(comparison, "base-few-shot").delta == comparison.delta
    assert pair(comparison, "base-stopped", "Chat").n == 5
    assert {p.b for p in comparison.pairs} == {"tuned"}
    assert {p.a for p in comparison.pairs if p.group != "overall"} == {"base-stopped"}


def test_base_and_tuned_get_the_same_prompts_greedily(stage: MakeStage) -> None:
    asked: dict[Path | None, list[Request]] = {}

    def note(request: Request, adapter: Path | None) -> ScriptedAnswer:
        asked.setdefault(adapter, []).append(request)
        return ScriptedAnswer("x")

    made = stage("evaluation.max_tokens=9", "evaluation.few_shot_demonstrations=0", answer=note)
    made.evaluate(0)
    prompts = [sorted(r.prompt for r in requests) for requests in asked.values()]
    assert len(asked) == 3 and prompts[0] == prompts[1] == prompts[2]
    samplings = {r.sampling for requests in asked.values() for r in requests}
    assert [(s.temperature, s.max_tokens, s.stop) for s in samplings] == [(0.0, 9, ())]
    ids = [r.id for requests in asked.values() for r in requests]
    assert len(set(ids)) == len(ids)


def test_columns_that_are_switched_off_are_not_asked(stage: MakeStage) -> None:
    made = stage("evaluation.few_shot_demonstrations=0")
    (comparison,) = made.evaluate(0, seeds_only=())
    assert [score.system for score in comparison.scores] == ["base", "base-stopped", "tuned"]
    assert len(made.engine.asked) == 16


def test_of_several_lengths_on_seeds_alone_the_best_where_it_is_chosen_is_the_baseline(
    stage: MakeStage, tmp_path: Path
) -> None:
    (tmp_path / "other-dev.jsonl").write_text((tmp_path / "words.jsonl").read_text())

    def overfit(request: Request, adapter: Path | None) -> ScriptedAnswer:
        """On the suite that chooses 50 steps do best, on the reported one 200."""
        answer = request.prompt.split("| ")[1]
        good = {"steps-50": "other-dev", "steps-200": "words"}
        home = adapter.parts[-2] if adapter else ""
        return ScriptedAnswer(f" {answer}" if good.get(home, "") in request.id else " wrong")

    suites = f"evaluation.suites=[{tmp_path / 'words.jsonl'},{tmp_path / 'other-dev.jsonl'}]"
    made = stage(suites, "evaluation.few_shot_demonstrations=0", answer=overfit)
    reported, _ = made.evaluate(0, seeds_only=(200, 50, 20))
    assert reported.seeds_only_steps == 50
    scores = {score.system: score.rouge_l for score in reported.scores}
    assert list(scores) == [
        "base",
        "base-stopped",
        "seeds-only-steps-200",
        "seeds-only",
        "seeds-only-steps-20",
        "tuned",
    ]
    assert scores["seeds-only"] == 0.0 and scores["seeds-only-steps-200"] == 100.0
    assert {pair.a for pair in reported.pairs} >= {"seeds-only", "seeds-only-steps-200"}
    assert (made.folder(0) / "seeds-only-steps-20.jsonl").exists()
    asked = [name for name in made.engine.asked if "seeds-only" in name]
    assert len(asked) == len(set(asked)) == 3 * 2 * 8


def test_a_suite_that_joins_is_the_only_one_asked(stage: MakeStage, tmp_path: Path) -> None:
    made = stage()
    made.evaluate(0)
    before = files(made.folder(0))
    made.engine.asked.clear()
    (tmp_path / "other.jsonl").write_bytes((tmp_path / "words.jsonl").read_bytes())
    suites = (*made.config.evaluation.suites, str(tmp_path / "other.jsonl"))
    evaluation = made.config.evaluation.model_copy(update={"suites": suites})
    config = made.config.model_copy(update={"evaluation": evaluation})
    assert [c.suite for c in made._replace(config=config).evaluate(0)] == ["words", "other"]
    assert made.engine.asked and all("-eval-other-" in name for name in made.engine.asked)
    assert files(made.folder(0)) == before


def test_later_rounds_copy_what_does_not_change_and_meet_the_round_before(
    stage: MakeStage,
) -> None:
    made = stage()
    made.evaluate(0)
    made.engine.asked.clear()
    (comparison,) = made.evaluate(1)
    assert len(made.engine.asked) == 8 and all("tuned" in name for name in made.engine.asked)
    for name in ("base", "base-few-shot", "seeds-only"):
        first, second = (made.folder(n) / f"{name}.jsonl" for n in (0, 1))
        assert first.read_bytes() == second.read_bytes()
    assert pair(comparison, "previous").delta > 0
    assert "previous" not in {score.system for score in comparison.scores}
    best = best_training(made.run.rounds(), made.config.evaluation)
    assert best is not None and best.round == 1


@pytest.mark.parametrize(("rolled_back", "gain"), [((), -1), ((1,), 0), ((0, 1), None)])
def test_the_round_before_is_the_last_one_that_is_not_rolled_back(
    stage: MakeStage, rolled_back: tuple[int, ...], gain: int | None
) -> None:
    """The tuned model of round 1 is better than those of rounds 0 and 2, which are equal."""
    made = stage()
    for number in (0, 1):
        made.evaluate(number)
        decided = {"action": "go_on", "reason": "", "rolled_back": number in rolled_back}
        made.run.round(number).decision.write_text(json.dumps(decided))
    (comparison,) = made.evaluate(2)
    found = [p.delta for p in comparison.pairs if (p.a, p.metric) == ("previous", "rouge_l")]
    assert [(delta > 0) - (delta < 0) for delta in found] == ([] if gain is None else [gain])


@pytest.mark.parametrize("killed_at", [1, 4, 8, 9, 17, 31])
def test_a_killed_evaluation_ends_like_an_undisturbed_one_and_keeps_whole_batches(
    stage: MakeStage, killed_at: int
) -> None:
    whole = stage(name="whole")
    whole.evaluate(0)

    count = 0

    def die(request: Request, adapter: Path | None) -> ScriptedAnswer:
        nonlocal count
        count += 1
        if count == killed_at:
            raise KeyboardInterrupt
        return speak(request, adapter)

    made = stage(name="killed", answer=die)
    with pytest.raises(KeyboardInterrupt):
        made.evaluate(0)
    for path in made.run.path.rglob("*.jsonl"):
        if len(path.read_text().splitlines()) < 8:
            with path.open("a") as file:
                file.write('{"task_id": "torn')
    again = stage(name="killed")
    again.evaluate(0)
    assert files(again.run.path) == files(whole.run.path)
    # Each system has batches of 3, 3 and 2: finished ones are not asked again.
    in_system = (killed_at - 1) % 8
    kept = (killed_at - 1) // 8 * 8 + in_system // 3 * 3
    assert len(again.engine.asked) == 4 * 8 - kept


def test_rows_of_a_torn_batch_are_asked_again_with_their_batch_and_not_doubled(
    stage: MakeStage,
) -> None:
    made = stage()
    made.evaluate(0)
    whole = files(made.run.path)
    path = made.folder(0) / "tuned.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    (made.folder(0) / "comparison.json").unlink()
    made.engine.asked.clear()
    made.evaluate(0)
    assert files(made.run.path) == whole
    assert len(made.engine.asked) == 5


def test_a_question_too_long_for_the_context_is_an_empty_answer_and_is_said(
    stage: MakeStage,
) -> None:
    def long_question(instruction: str, given: str) -> str:
        return question(instruction, given) + " much" * (20 if "word 2" in given else 0)

    made = stage("evaluation.few_shot_demonstrations=0", context_length=15)
    (comparison,) = evaluate_round(
        made.config,
        made.engine,
        made.run,
        0,
        adapter=made.run.round(0).adapter,
        seeds_only=[],
        question=long_question,
        few_shot_question=None,
        pack=load_pack("en"),
        report=made.told.append,
    )
    row = json.loads((made.folder(0) / "tuned.jsonl").read_text().splitlines()[2])
    assert (row["response"], row["finish_reason"], row["completion_tokens"]) == ("", "length", 0)
    assert {score.system: score.empty for score in comparison.scores}["tuned"] == 12.5
    assert (comparison.n, comparison.ties) == (8, 1)
    assert "1 questions longer than the model's context" in made.told[-1].note


def test_a_suite_none_of_which_fits_is_all_empty_and_no_crash(stage: MakeStage) -> None:
    made = stage(context_length=2)
    (comparison,) = made.evaluate(0)
    assert made.engine.asked == []
    assert {score.empty for score in comparison.scores} == {100.0}


def test_progress_counts_answers_and_what_an_earlier_process_did(stage: MakeStage) -> None:
    made = stage()
    made.evaluate(0)
    done = [t.done for t in made.told if t.stage.endswith("tuned")]
    assert done == [3, 6, 8] and {t.total for t in made.told} == {8}
    path = made.folder(0) / "tuned.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    made.told.clear()
    made.evaluate(0)
    assert [(t.done, t.resumed) for t in made.told] == [(8, 6)]


def test_an_engine_that_gives_no_answer_is_an_error_and_not_an_empty_answer(
    stage: MakeStage,
) -> None:
    class Forgetful(ScriptedEngine):
        def generate(
            self, requests: Sequence[Request], adapter: Path | None = None
        ) -> Iterator[Completion]:
            yield from list(super().generate(requests, adapter))[1:]

    made = stage()._replace(engine=Forgetful(speak))
    with pytest.raises(EngineError, match="no completion for 1 requests"):
        made.evaluate(0)


def test_a_suite_that_changed_under_the_run_is_refused(stage: MakeStage, tmp_path: Path) -> None:
    made = stage()
    made.evaluate(0)
    words = tmp_path / "words.jsonl"
    words.write_text(words.read_text().replace("Repeat the word 2", "Sing the word 2"))
    with pytest.raises(RunError, match=r"base\.jsonl, line 3: answers another version"):
        made.evaluate(0)


def test_two_suites_of_one_name_are_refused(stage: MakeStage, tmp_path: Path) -> None:
    words = tmp_path / "words.jsonl"
    made = stage(f"evaluation.suites=[{words},{words}]")
    with pytest.raises(ConfigError, match="2 suites go by the name 'words'"):
        made.evaluate(0)


def test_a_process_that_does_not_write_gives_the_same_comparison(stage: MakeStage) -> None:
    made = stage()
    silent = made._replace(run=RunDirectory(made.run.path, Peer(rank=1, size=2)))
    (seen,) = silent.evaluate(0)
    assert not (made.run.path / "round-0").exists()
    assert made.evaluate(0) == [seen]


def test_the_microworld_is_judged_by_its_oracle(stage: MakeStage) -> None:
    targets = {item.input: item.target for item in load_suite("microworld-dev").items}

    def know(request: Request, adapter: Path | None) -> ScriptedAnswer:
        given = request.prompt.split("| ")[1]
        return ScriptedAnswer(" gnorf" if adapter is None else f" {targets[given]}")

    made = stage("evaluation.suites=[microworld-dev]", answer=know)
    (comparison,) = made.evaluate(0)
    accuracy = {score.system: score.oracle_accuracy for score in comparison.scores}
    assert accuracy["base"] == 0.0
    assert accuracy["tuned"] is not None and accuracy["tuned"] > 90
    metrics = {(p.a, p.metric) for p in comparison.pairs}
    assert ("seeds-only", "oracle_accuracy") in metrics
