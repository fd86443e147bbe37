import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from selfinstruct_train.config import Config, JudgeConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.evaluation.compare import (
    COMPARISON_FILE,
    compare_systems,
    make_comparison,
    make_system,
)
from selfinstruct_train.evaluation.suites import Suite, load_suite
from selfinstruct_train.evaluation.win_rate import judge_round, make_judge
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.rating.sheet import read_questions
from selfinstruct_train.rating.store import RatingBook
from selfinstruct_train.records import (
    Classified,
    EvalTask,
    GeneratedInstance,
    Instance,
    Instruction,
    Neighbour,
    Prediction,
    Provenance,
    Rejection,
    Sampling,
    TrainingStep,
)
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.templates import cut_at_new_example
from selfinstruct_train.text.characters import without_surrogates

VERBS = ("Write", "Name", "Sort", "Count", "Find", "Give", "Turn", "Decide whether", "Explain")
NOUNS = ("words", "animal", "sentence", "number", "story", "colour", "list", "capital", "opposite")
APPS = ("grammar", "facts", "lists", "numbers")
ANSWERS = load_answers("en")
STAGES = ("instructions", "classification", "instances", "train", "evaluate")


class Plan(NamedTuple):
    """What the written run is to hold."""

    rounds: int = 2
    until: str = "evaluate"
    """Last finished stage of the last round."""
    instructions: int = 40
    tasks: int = 24
    suite: str | None = None
    """A named suite instead of one made for the test."""
    skill: float = 0.8
    """Share of answers that the tuned model gets right."""
    seeds_skill: float = 0.5
    seeds_only: bool = True
    judged: bool = False
    """A model judged every round, pairwise and by level."""
    raters: tuple[str, ...] = ()
    """People who graded all answers of the best round."""
    hostile: str = ""
    """Put into every text that a model or a data file can hold."""

    @property
    def readable(self) -> str:
        """What of it a data file can hold: the reader refuses NUL and drops byte order marks."""
        return self.hostile.replace("\0", "").replace("\ufeff", "")


class Writer:
    """Writes a run directory as the stages would."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(5)
        self.run = RunDirectory(path / "run")
        self.source = plan.suite or str(self._suite_file(path / "made.jsonl"))
        self.config = Config.model_validate(
            {
                "model": {"name_or_path": "embedded"},
                "seeds": {"path": "microworld-seeds"},
                "evaluation": {"suites": [self.source], "bootstrap_samples": 400},
                "rounds": plan.rounds,
                "output_dir": str(self.run.path),
            }
        )

    def write(self) -> RunDirectory:
        self.run.open(self.config)
        suite = load_suite(self.source)
        for number in range(self.plan.rounds):
            last = number == self.plan.rounds - 1
            until = STAGES.index(self.plan.until) if last else len(STAGES) - 1
            directory = self.run.round(number)
            self._instructions(directory, number)
            self._mark(directory, "instructions", accepted=self.plan.instructions, requests=9)
            if until >= 1:
                self._classified(directory)
                self._mark(directory, "classification")
            if until >= 2:
                self._instances(directory, number)
                self._mark(directory, "instances", completion_tokens=12_345)
            if until >= 3:
                self._training(directory, 2.4)
                self._mark(directory, "train", steps=50, final_loss=0.4)
                self._training(self.run.seeds_only(50), 2.1)
                self._mark(self.run.seeds_only(50), "train", steps=50)
            if until >= 4:
                self._evaluation(directory, number, suite)
                self._mark(directory, "evaluate", suites=1)
                if self.plan.judged:
                    self._judge(number)
        for rater in self.plan.raters:
            self._rate(rater + self.plan.hostile)
        return self.run

    def _judge(self, number: int) -> None:
        """A judge that mostly wants the tuned model, at times the first place, and mumbles."""

        def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
            place = int(request.id[-6:])
            if place % 7 == 3:
                return ScriptedAnswer(f"Let me think.{self.plan.hostile}")
            if request.id.startswith("grade"):
                return ScriptedAnswer("ABAB"[place % 4] if "tuned" in request.id else "D")
            tuned_first = "-tuned-base-stopped-" in request.id
            return ScriptedAnswer("1" if tuned_first or place % 4 == 0 else "2")

        engine = ScriptedEngine(answer)
        engine.model_id = f"judge{self.plan.hostile}"
        config = with_judge(self.config, tasks=("pairwise", "grade"))
        judge_round(config, make_judge(config, engine), self.run, number, lambda update: None)

    def _rate(self, rater: str) -> None:
        book = RatingBook(self.run)
        for i, question in enumerate(read_questions(self.run)):
            for candidate in question.candidates:
                good = "tuned" in candidate.systems
                grade = self.rng.choice("AAB" if good else "BCD")
                comment = f"Hm.{self.plan.hostile}" if i % 4 == 0 else ""
                book.rate(rater, question, candidate, grade, comment)

    def _suite_file(self, path: Path) -> Path:
        tasks = (
            EvalTask(
                id=f"t{i}",
                motivation_app=APPS[i % len(APPS)] + self.plan.readable,
                instruction=f"{VERBS[i % 9]} the {NOUNS[i // 9 % 9]} no. {i}.{self.plan.readable}",
                instances=(Instance(input=f"item {i}", output=self._target(i)),),
            )
            for i in range(self.plan.tasks)
        )
        path.write_text("".join(task.model_dump_json() + "\n" for task in tasks), "utf-8")
        return path

    def _target(self, i: int) -> str:
        return f"{NOUNS[i % 9]} {NOUNS[i % 7]} {i}{self.plan.readable}"

    def _provenance(self, number: int, request: int) -> Provenance:
        return Provenance(
            round=number,
            request=f"r{number}-instructions-{request:06d}",
            sampling=Sampling(max_tokens=10),
            model="embedded",
            prompt_hash="0" * 16,
        )

    def _text(self) -> str:
        verb, noun, other = self.rng.choice(VERBS), self.rng.choice(NOUNS), self.rng.choice(NOUNS)
        extra = " ".join(self.rng.choices(NOUNS, k=self.rng.randrange(6)))
        return f"{verb} the {noun} of a {other} {extra}.{self.plan.hostile}"

    def _instructions(self, directory: RoundDirectory, number: int) -> None:
        kept, dropped, candidate = [], [], 0
        while len(kept) < self.plan.instructions:
            provenance = self._provenance(number, candidate // 8)
            score = min(0.99, self.rng.betavariate(2 + candidate / 100, 3))
            near = Neighbour(id="seed_1", instruction=self._text(), score=score)
            if score <= 0.7:
                kept.append(
                    Instruction(
                        id=f"r{number}-{candidate:06d}",
                        instruction=self._text(),
                        nearest=near,
                        nearest_seed=near,
                        provenance=provenance,
                    )
                )
            else:
                dropped.append(
                    Rejection(
                        stage="instruction",
                        reason="not_novel" if candidate % 4 else "unsuitable_word",
                        evidence=f"ROUGE-L {score:.3f}{self.plan.hostile}",
                        instruction=self._text(),
                        nearest=near if candidate % 4 else None,
                        provenance=provenance,
                    )
                )
            candidate += 1
        directory.store(directory.instructions, Instruction).emit(kept)
        directory.store(directory.rejected("instructions"), Rejection).emit(dropped)

    def _classified(self, directory: RoundDirectory) -> None:
        rows = directory.store(directory.instructions, Instruction).read()
        directory.store(directory.classified, Classified).emit(
            Classified(id=row.id, is_classification=i % 4 == 0, logprob_yes=-1.0, logprob_no=-1.2)
            for i, row in enumerate(rows)
        )

    def _instances(self, directory: RoundDirectory, number: int) -> None:
        kept, dropped = [], []
        for i, row in enumerate(directory.store(directory.instructions, Instruction).read()):
            given = "" if i % 3 == 0 else " ".join(self.rng.choices(NOUNS, k=1 + i % 9))
            output = " ".join(self.rng.choices(NOUNS, k=1 + self.rng.randrange(12)))
            if i % 11 == 5:
                dropped.append(
                    Rejection(
                        stage="instance",
                        reason="conflicting_outputs",
                        evidence="2 outputs for one input",
                        instruction=row.instruction,
                        instruction_id=row.id,
                        input=given + self.plan.hostile,
                        output=output + self.plan.hostile,
                        provenance=self._provenance(number, i),
                    )
                )
            else:
                kept.append(
                    GeneratedInstance(
                        id=f"{row.id}-0",
                        instruction_id=row.id,
                        instruction=row.instruction,
                        input=given + self.plan.hostile if given else "",
                        output=output + self.plan.hostile,
                        is_classification=i % 4 == 0,
                        provenance=self._provenance(number, i),
                    )
                )
        directory.store(directory.instances, GeneratedInstance).emit(kept)
        directory.store(directory.rejected("instances"), Rejection).emit(dropped)

    def _training(self, directory: RoundDirectory, start: float) -> None:
        store = directory.store(directory.training_steps, TrainingStep)
        store.emit(
            TrainingStep(
                step=step,
                epoch=step / 25,
                loss=round(start / (1 + step / 12), 4),
                learning_rate=2e-3,
                seconds=float(step),
            )
            for step in range(5, 51, 5)
        )

    def _evaluation(self, directory: RoundDirectory, number: int, suite: Suite) -> None:
        answers = {
            "base": self._answers(suite, 0.05, f"\n### Input:\nmore{self.plan.hostile}"),
            "seeds-only": self._answers(suite, self.plan.seeds_skill, ""),
            "tuned": self._answers(suite, min(1.0, self.plan.skill + 0.05 * number), ""),
        }
        if not self.plan.seeds_only:
            del answers["seeds-only"]
        folder = directory.evaluation(suite.name)
        for name, rows in answers.items():
            directory.store(folder / f"{name}.jsonl", Prediction).emit(rows)
        stopped = [
            row.model_copy(update={"response": cut_at_new_example(row.response, ANSWERS)})
            for row in answers["base"]
        ]
        systems = {name: make_system(name, rows, suite) for name, rows in answers.items()}
        tuned, base = systems["tuned"], make_system("base-stopped", stopped, suite)
        settings = self.config.evaluation
        pairs = list(compare_systems(base, tuned, suite, settings, 0))
        if self.plan.seeds_only:
            seeds = systems["seeds-only"]
            pairs += compare_systems(seeds, tuned, suite, settings, 0, by_group=False)
        shown = (systems["base"], base, *(s for n, s in systems.items() if n != "base"))
        comparison = make_comparison(suite, shown, pairs, settings.confidence)
        (folder / COMPARISON_FILE).write_text(comparison.model_dump_json(), "utf-8")

    def _answers(self, suite: Suite, skill: float, tail: str) -> list[Prediction]:
        found = []
        for i, item in enumerate(suite.items):
            right = self.rng.random() < skill
            wrong = f"{NOUNS[(i + 3) % 9]}{self.plan.hostile}"
            found.append(
                Prediction(
                    task_id=item.task_id,
                    instruction=item.instruction,
                    input=item.input,
                    response=without_surrogates((item.target if right else wrong) + tail),
                    target=item.target,
                    finish_reason="length" if tail else "eos",
                )
            )
        return found

    def _mark(self, directory: RoundDirectory, stage: str, **figures: float | int | str) -> None:
        directory.finish(stage, 12.5, **figures)


def with_judge(config: Config, **settings: object) -> Config:
    """The config with a judge of the given settings."""
    judge = JudgeConfig.model_validate(settings)
    return config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"judge": judge})}
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Write a run of the given plan into a folder of the test."""

    def make(**plan: object) -> RunDirectory:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Writer(folder, Plan(**plan)).write()  # type: ignore[arg-type]

    return make


@pytest.fixture(autouse=True)
def a_steady_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest takes the command from here."""
    command = ["/usr/bin/selfinstruct", "run", "configs/quickstart.yaml", "rounds=2"]
    monkeypatch.setattr("sys.argv", command)
