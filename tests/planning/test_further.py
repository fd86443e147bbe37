"""The forecast has what a run asks beyond steps 1 to 3: held against a scripted run's requests."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import Config, load_config
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.planning.expected import Expected, expected_from, read_yield
from selfinstruct_train.planning.further_sizes import FurtherSizes, measure_further
from selfinstruct_train.planning.further_work import assumptions, further_work
from selfinstruct_train.planning.plan import make_plan
from selfinstruct_train.planning.sizes import TextSizes, measure
from selfinstruct_train.planning.training_work import rows_by_round
from selfinstruct_train.planning.words import plan_lines
from selfinstruct_train.planning.workload import Asked, generation_work, room, room_of_request
from selfinstruct_train.records import GeneratedInstance, Instance, SeedTask
from selfinstruct_train.rounds.replay import replay_rows
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.sources.seeds import read_seeds
from selfinstruct_train.sources.texts import read_passages
from selfinstruct_train.training.dataset import training_rows
from selfinstruct_train.training.mix import mix_rows, replay_count
from tests.generation.test_generate import NOUNS, VERBS, small_config
from tests.generation.test_passages import WORDS, write_texts

PACK = load_pack("en")
RIGHT = "a right answer"
SEEDS = tuple(
    SeedTask(
        id=f"seed_{n}",
        name=f"s{n}",
        instruction=f"{verb} number {n} of the {noun} of our town quickly",
        instances=(Instance(output=f"number {n}"),),
        is_classification=verb == "judge",
        category=("cooking", "sport")[n % 2],
    )
    for n, (verb, noun) in enumerate(zip(VERBS * 3, NOUNS * 3, strict=False))
)


class Words:
    """A tokenizer for which a word is a token, as for the scripted engine."""

    def __call__(self, text: str) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


class Recording(ScriptedEngine):
    """Counts requests, tokens read and tokens written of each stage."""

    def __init__(self) -> None:
        super().__init__(answer, score)
        self.used: dict[str, Counter[str]] = defaultdict(Counter)

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        for found in super().generate(requests, adapter):
            names = ("passages", "instructions", "instances", "fix", "replay")
            (stage,) = (name for name in names if name in found.id.split("-"))
            self._add(stage, found.prompt_tokens, found.completion_tokens)
            yield found

    def score(
        self,
        prefix: str,
        suffixes: Sequence[str],
        continuations: Sequence[str],
        adapter: Path | None = None,
    ) -> list[list[float]]:
        for prompt in (prefix + suffix for suffix in suffixes):
            self._add(_scored(prompt), len(prompt.split()), 0)
        return super().score(prefix, suffixes, continuations, adapter)

    def _add(self, stage: str, read: int, written: int) -> None:
        name = "fixing" if stage == "fix" else stage
        self.used[name].update(requests=1, read=read, written=written)


def _scored(prompt: str) -> str:
    if prompt.endswith(PACK.wording.arbiter):
        return "fixing"
    return "labels" if prompt.endswith(PACK.wording.category) else "classification"


def answer(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Lists of four, one instruction for an operation, instances of which some are wrong."""
    rng = random.Random(request.sampling.seed)
    kind, wording = request.id.split("-")[1:3], PACK.wording

    def instruction() -> str:
        said = (rng.choice(VERBS), rng.choice(NOUNS), rng.choice(WORDS), rng.choice(NOUNS))
        return f"{' and the '.join(said)} of {rng.randrange(999)}"

    if request.id.startswith("replay"):
        return ScriptedAnswer(f" It is {rng.randrange(999)} times one.")
    if "passages" in kind:
        return ScriptedAnswer(f" Tell {' and '.join(rng.sample(WORDS, 5))} apart.\n")
    if "instructions" in kind:
        first = request.prompt.rpartition("\n")[2]
        if not first[:1].isdigit():
            return ScriptedAnswer(f" {instruction()}")
        number = int(first.rstrip("."))
        items = (f" {instruction()}\n{number + n}." for n in range(1, 5))
        return ScriptedAnswer("".join(items) + " cut off he", "length")
    if "fix" in kind:
        return ScriptedAnswer(f" {RIGHT}" if rng.random() < 0.5 else " wrong again")
    if request.prompt.endswith(wording.label):
        return ScriptedAnswer(f" {RIGHT}\nInput: a b\n")
    said = RIGHT if rng.random() < 0.7 else "wrong"
    return ScriptedAnswer(f"\nInput: one of them\nOutput: {said}\n")


def score(prompt: str, continuation: str) -> float:
    said = continuation.strip()
    question = prompt.rpartition("\nTask:")[2]
    if _scored(prompt) == "labels":
        return float(said == "sport")
    if _scored(prompt) == "classification":
        return float((said == "Yes") == ("judge" in question))
    task, _, output = question.partition("Output:")
    own = any(word.isdigit() and word in output.split() for word in task.split())
    return 3.0 * ((said == "Yes") == (RIGHT in output or own))


def settings(tmp_path: Path) -> Config:
    return small_config(
        tmp_path,
        "rounds=1",
        "generation.style=completion",
        "generation.instructions_per_round=40",
        "generation.max_requests=200",
        f"generation.texts={write_texts(tmp_path / 'texts')}",
        "generation.passages={min_words: 10, max_words: 60, share: 0.25}",
        "generation.saturation_floor=0.0",
        "generation.labels=model",
        "generation.instances.fix=true",
        "generation.augment.share=0.4",
        "training.mix={own: 0, seeds: 1, generated: 2, replay: 1}",
    )


class Forecast:
    """What is expected of a run that has been seen."""

    def __init__(self, config: Config, run: RunDirectory) -> None:
        words: Any = Words()
        self.sizes: TextSizes = measure(config, PACK, SEEDS, words)
        self.further: FurtherSizes = measure_further(config, PACK, SEEDS, words)
        per_list = room(config, len(SEEDS))
        self.expected: Expected = expected_from(
            read_yield(run),
            "the run",
            room_of_request(config, per_list),
            self.sizes.item,
            self.sizes.instance,
            config.generation.instances.max_tokens,
        )
        work = (config, self.expected, self.sizes, per_list)
        (self.rows,) = rows_by_round(*work, 0, self.further)
        replayed = [self.rows.replay]
        self.asked: tuple[Asked, ...] = (
            *generation_work(*work, self.further),
            *further_work(*work, self.further, replayed),
        )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RunDirectory, Recording]:
    config = settings(tmp_path_factory.mktemp("further"))
    run, engine = RunDirectory(config.output_dir), Recording()
    run.open(config, {})
    assert config.generation.texts is not None
    passages = read_passages(config.generation.texts, "words", 10, 60)
    generate_round(
        config, engine, run, 0, SEEDS, None, lambda i, g: i, lambda update: None, passages=passages
    )
    return config, run, engine


def rows_of(config: Config, run: RunDirectory) -> tuple[int, int]:
    """Rows that a training of the run is given, and those of replay."""
    directory = run.round(0)
    instances = directory.store(directory.instances, GeneratedInstance)
    rows = training_rows(SEEDS, lambda: instances.read(), include_seeds=True)
    mixed = mix_rows(list(rows), config.training.mix, config.seed)
    replay = replay_count(mixed, config.training.mix)
    return len(mixed) + replay, replay


def test_every_stage_is_forecast_with_its_requests_and_tokens(
    seen: tuple[Config, RunDirectory, Recording],
) -> None:
    config, run, engine = seen
    forecast = Forecast(config, run)
    total, replay = rows_of(config, run)
    assert forecast.rows.total == pytest.approx(total, abs=3)
    assert forecast.rows.replay == pytest.approx(replay, abs=2)
    opened: Any = SimpleNamespace(
        config=config,
        engine=engine,
        pack=PACK,
        chat=None,
        replay_prompts=read_seeds("everyday-seeds"),
        progress=_Silent(),
    )
    replay_rows(opened, config, run.round(0), replay)
    asked = {work.stage: work for work in forecast.asked}
    assert asked.keys() == engine.used.keys()
    for stage, used in engine.used.items():
        work = asked[stage]  # type: ignore[index]
        assert work.requests == pytest.approx(used["requests"], rel=0.15, abs=3), stage
        assert work.prompt_tokens == pytest.approx(used["read"], rel=0.2), stage
        if stage != "replay":  # whose answers nobody has seen before
            written = used["written"]
            assert work.completion_tokens == pytest.approx(written, rel=0.25, abs=20), stage


class _Silent:
    def __call__(self, update: object) -> None:
        pass

    def warn(self, text: str) -> None:
        pytest.fail(text)


def test_what_a_run_has_shown_is_no_longer_assumed(
    seen: tuple[Config, RunDirectory, Recording],
) -> None:
    config, run, _ = seen
    shown = Forecast(config, run).expected
    assert shown.assumed == ("kept_of_replay",)
    assert 0.1 < shown.held_wrong < 0.4 and 0.3 < shown.right_again < 0.7
    before, after = list(assumptions(config, Expected())), list(assumptions(config, shown))
    assert set(after) < set(before)
    assert any("holds 20% of answers wrong" in said for said in before)


def test_texts_that_run_out_leave_the_rest_to_lists(tmp_path: Path) -> None:
    config = settings(tmp_path)
    unmixed = config.training.model_copy(update={"mix": None})
    config = config.model_copy(update={"rounds": 3, "training": unmixed})
    words: Any = Words()
    sizes = measure(config, PACK, SEEDS, words)
    further = measure_further(config, PACK, SEEDS, words)
    assert further.passages is not None
    work = (config, Expected(kept_of_texts=0.5), sizes, room(config, len(SEEDS)))
    found = {}
    for number in (100, 30):
        of = further._replace(passages=further.passages._replace(number=number))
        texts, *_ = further_work(*work, of, [0.0])
        lists, *_ = generation_work(*work, of)
        found[number] = (texts.requests, lists.requests, rows_by_round(*work, 0, of)[-1].of_texts)
    # A quarter of 40 rows a round, of which half is kept, or what there is: 20, 10 and none.
    assert (found[100][0], found[30][0]) == (60, 30)
    assert (found[100][2], found[30][2]) == (30.0, 15.0)
    assert found[100][1] < found[30][1]


def test_a_plan_says_what_it_assumes_and_counts_nothing_that_is_not_asked_for(
    tmp_path: Path,
) -> None:
    quickstart = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    plain = make_plan(load_config(quickstart))
    assert not plain.assumptions
    assert {work.stage for work in plain.asked} == {
        *("instructions", "classification", "instances", "evaluation"),
    }
    more = [
        "generation.instances.fix=true",
        "training.mix={own: 0, seeds: 1, generated: 3, replay: 1}",
    ]
    found = make_plan(load_config(quickstart, more))
    stages = {stage.stage: stage.seconds for stage in found.stages}
    assert stages["fixing"] > 0 and stages["replay"] > 0
    assert found.hours > plain.hours
    assert sum(line.startswith("assumed: ") for line in plan_lines(found)) == 2
