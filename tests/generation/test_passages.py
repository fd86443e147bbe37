"""Rows for own texts: passages are found again where they were cut, and a kill changes nothing."""

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_train.config import Config, ContaminationConfig, EngineConfig, ModelConfig
from selfinstruct_train.contamination.check import check
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.engines.base import Engine, Request
from selfinstruct_train.engines.local.transformers import TransformersEngine
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import ConfigError, DataError, RunError, SelfInstructError
from selfinstruct_train.generation.passage_prompts import (
    demonstrations_for,
    read_passage,
    require_passage_demonstrations,
    span,
)
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.models.load import load_model
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import EvalTask, GeneratedInstance, Instance, Instruction, Rejection
from selfinstruct_train.report.explain import explain
from selfinstruct_train.report.facts import read_facts
from selfinstruct_train.report.stats import data_stats
from selfinstruct_train.report.tables import paper_statistics
from selfinstruct_train.report.wording import share
from selfinstruct_train.rounds.contents import read_contents
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.sources.texts import Passage, read_passages
from selfinstruct_train.training.dataset import training_rows
from tests.generation.test_generate import (
    SEEDS,
    contents,
    rejections,
    scripted,
    small_config,
    writer,
)
from tests.helpers.killed import Killed, killed_after

WORDS = (
    *("boats", "ropes", "nets", "tides", "gulls", "piers", "masts"),
    *("sails", "winds", "crews", "ports", "oars", "decks", "keels"),
)


def write_texts(folder: Path, files: int = 3, paragraphs: int = 8) -> Path:
    """Plain texts of short paragraphs, each unlike the others."""
    rng = random.Random(0)
    for number in range(files):
        path = folder / f"part {number}" / f"log-{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        said = [
            f"# Day {number}{n}\n\nOn this day the {' and the '.join(rng.sample(WORDS, 9))} were "
            f"seen by {n} of us.\nNobody had told us that {rng.choice(WORDS)} cost {n}7 coins."
            for n in range(paragraphs)
        ]
        path.write_text("\n\n".join(said) + "\n", "utf-8")
    return folder


def settings(tmp_path: Path, *more: str) -> Config:
    own = [
        f"generation.texts={tmp_path / 'texts'}",
        "generation.passages.min_words=10",
        "generation.passages.max_words=60",
        "generation.passages.requests_per_batch=4",
        "generation.passages.share=0.5",
        "generation.saturation_floor=0.0",
    ]
    return small_config(tmp_path, *own, *more)


def passages_of(config: Config) -> tuple[Passage, ...]:
    step = config.generation.passages
    assert config.generation.texts is not None
    return read_passages(config.generation.texts, "words", step.min_words, step.max_words)


def reader(request: Request, adapter: Path | None = None) -> ScriptedAnswer:
    """Writes what the passage in the prompt is about; every fifth answer is not its own."""
    if "-passages-" not in request.id:
        return writer(request)
    passage = request.prompt.rpartition("\nText: ")[2].rpartition("\n")[0]
    rng = random.Random(passage)
    first = f" Tell {' and '.join(rng.sample(WORDS, 5))} apart"
    if "-instruction-" in request.id:
        return ScriptedAnswer(f"{first}.\n")
    answer = rng.choice(["Seven thousand coins", "NOBODY had   told us", "Nobody", "we saw it"])
    return ScriptedAnswer(f"{first}?\nAnswer: {answer}.\n")


def generate(config: Config, engine: Engine, number: int = 0) -> RoundDirectory:
    run = RunDirectory(config.output_dir)
    found = passages_of(config)
    run.open(config, {})
    generate_round(
        config,
        engine,
        run,
        number,
        SEEDS,
        None,
        lambda i, g: "",
        lambda update: None,
        passages=found,
    )
    return run.round(number)


def engine(answer: object = reader) -> ScriptedEngine:
    return ScriptedEngine(answer, scripted()._score)  # type: ignore[arg-type]


def place_of(row: GeneratedInstance | Instruction | Rejection) -> str:
    """Where the passage stands that a row was written for; empty for other rows."""
    made = row.provenance
    return made.passage.words if made is not None and made.passage is not None else ""


def of_texts(directory: RoundDirectory) -> list[GeneratedInstance]:
    rows = directory.store(directory.instances, GeneratedInstance).read()
    return [row for row in rows if place_of(row)]


@pytest.mark.parametrize("units", ["words", "characters"])
def test_passages_are_pieces_of_their_text_in_its_order_and_of_the_length_asked_for(
    tmp_path: Path, units: str
) -> None:
    rng = random.Random(1)
    marks = [". ", "! ", "\n", "\n\n", "\n\n\n", "。", " ", " ", " ", "\n# Part ", "…» "]
    for number in range(20):
        said = "".join(
            rng.choice([*WORDS, "海", "港", "42", "Don't"]) + rng.choice(marks) for _ in range(300)
        )
        (tmp_path / f"{number}.txt").write_text(said + "\r\nend", "utf-8", newline="")
    from selfinstruct_train.text.words import length

    found = read_passages(tmp_path, units, 12, 30)  # type: ignore[arg-type]
    ends: Counter[str] = Counter()
    for place, text in found:
        whole = (tmp_path / place.file).read_text("utf-8")
        assert whole[place.offset : place.offset + place.length] == text == text.strip()
        assert 12 <= length(text, units) <= 30  # type: ignore[arg-type]
        assert place.offset >= ends[place.file], "no two passages share a word"
        ends[place.file] = place.offset + place.length
    assert len(found) > 100 and len({text for _, text in found}) == len(found)


def test_rows_of_a_jsonl_file_are_texts_and_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"id": 1, "text": "one two three four"}\n\n{"text": "five six seven eight"}\n')
    places = [
        (p.place.file, p.place.line, p.place.offset) for p in read_passages(path, "words", 3, 9)
    ]
    assert places == [("notes.jsonl", 1, 0), ("notes.jsonl", 3, 0)]


def test_the_answer_is_the_passage_and_says_where_it_stands(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    config = settings(tmp_path)
    directory = generate(config, engine())
    rows = of_texts(directory)
    known = {text: place for place, text in passages_of(config)}
    assert len(rows) == 12, "half of the 24 instructions of the round"
    for row in rows:
        assert row.input == "" and known[row.output] == row.provenance.passage
        assert row.instruction.startswith("Tell ")
        assert set(row.provenance.demonstrations) <= {t.id for t in load_pack("en").passages}
        assert row.provenance.prompt_hash == load_pack("en").passages_hash
    every = directory.store(directory.instances, GeneratedInstance).read()
    assert len({row.instruction_id for row in every}) == 24
    kept = directory.store(directory.instructions, Instruction).read()
    mark = directory.mark("instructions")
    assert mark is not None
    dropped = [row for row in rejections(directory) if row.stage == "instruction"]
    assert mark.figures["candidates"] == len(kept) + len(dropped)
    assert mark.figures["accepted_of_texts"] == sum(
        row.provenance.passage is not None for row in kept
    )
    assert mark.figures["passages"] == mark.figures["candidates_of_texts"]


def test_instructions_for_texts_meet_the_same_filters_and_the_same_pool(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")

    def same(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-passages-" not in request.id:
            return writer(request)
        number = int(request.id.rpartition("-")[2])
        return ScriptedAnswer(
            [" Too short.", f" {SEEDS[0].instruction}", " Draw a map of it all."][number % 3]
        )

    directory = generate(settings(tmp_path), engine(same))
    reasons = Counter(
        r.reason for r in rejections(directory) if r.provenance and r.provenance.passage
    )
    assert reasons == {"too_short": 8, "not_novel": 8, "unsuitable_word": 8}
    rows = directory.store(directory.instances, GeneratedInstance).read()
    assert len({row.instruction_id for row in rows}) == 24, "step 1 writes what texts did not give"


def test_the_task_of_a_demonstration_is_not_taken_for_that_of_a_passage(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    tasks = demonstrations_for("instruction", load_pack("en"))

    def copies(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if "-passages-" not in request.id:
            return writer(request)
        words = tasks[request.sampling.seed % len(tasks)].instruction.split()
        return ScriptedAnswer(f" {' '.join(['Kindly', *words[1:]])}")

    directory = generate(settings(tmp_path), engine(copies))
    dropped = [row for row in rejections(directory) if place_of(row)]
    assert {row.reason for row in dropped} == {"copies_demonstration"} and len(dropped) == 24
    assert all(row.evidence.split()[-1] in {task.id for task in tasks} for row in dropped)
    assert of_texts(directory) == []


def test_a_model_that_has_nothing_to_say_is_not_asked_about_all_passages(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", files=6)

    def mute(request: Request, adapter: Path | None) -> ScriptedAnswer:
        return ScriptedAnswer("") if "-passages-" in request.id else writer(request)

    few = ("generation.saturation_window=10", "generation.saturation_floor=0.1")
    silent = engine(mute)
    generate(settings(tmp_path, *few), silent)
    asked = sum("-passages-" in name for name in silent.asked)
    assert asked == 12 < len(passages_of(settings(tmp_path))), "three batches of four"


def test_explain_stats_and_report_say_which_rows_are_of_texts(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    config = settings(tmp_path)
    rows = of_texts(generate(config, engine()))
    run = RunDirectory(config.output_dir)
    told = explain(run, rows[0].id)
    assert f"  for a passage of your texts: {place_of(rows[0])}" in told
    request = explain(run, rows[0].provenance.request)
    assert any(line.strip().startswith("wrote ") for line in request), "what it wrote is shown"
    (stats,) = data_stats(run)
    assert stats.of_texts == len(rows)
    assert any("for your own texts" in line for line in stats.lines)
    (line,) = [s for s in paper_statistics(read_facts(run)) if s.name == "… for your own texts"]
    assert (line.run, line.run_share) == (str(len(rows)), share(len(rows), stats.instances))


def test_a_question_is_kept_only_if_its_answer_stands_in_the_passage(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    directory = generate(settings(tmp_path, "generation.passages.tasks=[question]"), engine())
    rows = of_texts(directory)
    known = {text for _, text in passages_of(settings(tmp_path))}
    assert rows and all(row.output in row.input and row.input in known for row in rows)
    assert {row.output for row in rows} == {"Nobody had told us", "Nobody"}
    dropped = [r for r in rejections(directory) if r.reason == "answer_not_in_text"]
    assert {r.evidence for r in dropped} == {"Seven thousand coins.", "we saw it."}
    assert all(r.input in known for r in dropped)


def test_both_tasks_are_asked_of_each_passage(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    directory = generate(
        settings(tmp_path, "generation.passages.tasks=[instruction,question]"), engine()
    )
    kept = directory.store(directory.instructions, Instruction).read()
    dropped = [row for row in rejections(directory) if row.stage == "instruction"]
    asked = Counter(filter(None, map(place_of, [*kept, *dropped])))
    mark = directory.mark("instructions")
    assert mark is not None and mark.figures["passages"] == len(asked)
    assert set(asked.values()) == {2}


def test_each_round_goes_on_with_passages_that_no_round_before_it_asked_about(
    tmp_path: Path,
) -> None:
    write_texts(tmp_path / "texts")
    config = settings(tmp_path)
    first, second, third = (
        {
            row.provenance.passage.words
            for row in of_texts(generate(config, engine(), n))
            if row.provenance.passage
        }
        for n in range(3)
    )
    assert first and second and not first & second
    assert not third, "all passages were asked about"


@pytest.mark.parametrize("after", [0, 3, 4, 9, 13, 17, 25])
@pytest.mark.parametrize("independent", [False, True])
def test_a_killed_round_ends_as_an_undisturbed_one(
    tmp_path: Path, after: int, independent: bool
) -> None:
    for name in ("whole", "killed"):
        write_texts(tmp_path / name / "texts")
    undisturbed = contents(generate(settings(tmp_path / "whole"), engine()))
    config = settings(tmp_path / "killed")
    with pytest.raises(Killed):
        dies = killed_after(after, reader)
        generate(config, ScriptedEngine(dies, scripted()._score, independent_requests=independent))
    again = generate(
        config, ScriptedEngine(reader, scripted()._score, independent_requests=independent)
    )
    # Where each completion is kept as it arrives, a stopped run keeps them in another order.
    found, whole = (
        {
            name: sorted(text.splitlines()) if "completions" in name else text
            for name, text in files.items()
        }
        for files in (contents(again), undisturbed)
    )
    assert found == whole


@pytest.mark.parametrize("name", ["instructions", "rejected/instructions", "instances"])
def test_a_file_cut_anywhere_is_completed_without_asking_again(tmp_path: Path, name: str) -> None:
    write_texts(tmp_path / "texts")
    directory = generate(settings(tmp_path), engine())
    whole, cut = contents(directory), random.Random(0)
    path = directory.path / f"{name}.jsonl"
    for _ in range(4):
        for mark in (directory.path / "done").iterdir():
            mark.unlink()
        path.write_bytes(whole[f"{name}.jsonl"][: cut.randrange(len(whole[f"{name}.jsonl"]) + 1)])
        silent = engine()
        generate(settings(tmp_path), silent)
        assert contents(directory) == whole and silent.asked == []


def test_instances_made_again_alone_are_those_of_the_same_passages(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    directory = generate(settings(tmp_path), engine())
    before = contents(directory)
    for name in ("done/instances.json", "instances.jsonl", "rejected/instances.jsonl"):
        (directory.path / name).unlink()
    generate(settings(tmp_path), engine())
    assert contents(directory) == before


def test_texts_may_move_but_not_change_under_a_finished_round(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")

    def opened(config: Config) -> RunDirectory:
        run = RunDirectory(config.output_dir)
        run.open(config, read_contents(config, "embedded", SEEDS, [], [], [], passages_of(config)))
        return run

    config = settings(tmp_path)
    run = opened(config)
    generate_round(
        config, engine(), run, 0, SEEDS, None, lambda i, g: "", lambda u: None,
        passages=passages_of(config),
    )  # fmt: skip
    del run  # which holds the lock
    shutil.move(tmp_path / "texts", tmp_path / "moved")
    moved = settings(tmp_path, f"generation.texts={tmp_path / 'moved'}")
    del_lock = opened(moved)
    del del_lock
    path = next((tmp_path / "moved").rglob("*.md"))
    path.write_text(path.read_text("utf-8").replace("Nobody", "Somebody"), "utf-8")
    with pytest.raises(RunError, match="generation.texts"):
        opened(moved)


def test_a_passage_that_holds_a_row_of_a_suite_is_not_trained_on(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    config = settings(tmp_path)
    generate(config, engine())
    live = LiveRows(RunDirectory(config.output_dir))
    rows = training_rows(SEEDS, lambda: live.instances(1), include_seeds=False)
    leaked = next(row for row in rows if row.instruction.startswith("Tell "))
    task = EvalTask(
        id="t",
        instruction="Continue the log.",
        instances=(Instance(input="", output=leaked.output),),
    )
    result = check(rows, SEEDS, (), [SuiteTasks("s", (task,))], ContaminationConfig())
    assert list(rows).index(leaked) in result.left_out


@pytest.mark.slow
def test_the_embedded_model_is_asked_about_each_passage_and_resumes_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    loaded = load_model(ModelConfig(name_or_path="embedded", dtype="float32", device="cpu"))
    local = TransformersEngine(loaded, EngineConfig())
    for name in ("whole", "killed"):
        write_texts(tmp_path / name / "texts", files=1, paragraphs=4)
    few = [
        "generation.passages.tasks=[instruction,question]",
        "generation.passages.max_tokens=24",
        "generation.passages.requests_per_batch=2",
        "generation.instructions_per_round=8",
        "generation.passages.share=1.0",
        "generation.max_requests=1",
        "generation.instances.max_tokens=24",
        "generation.classification.calibrate=false",
    ]
    whole = generate(settings(tmp_path / "whole", *few), local)
    asked = Counter(map(place_of, whole.store(whole.instructions, Instruction).read()))
    asked.update(map(place_of, (r for r in rejections(whole) if r.stage == "instruction")))
    assert {asked[p.place.words] for p in passages_of(settings(tmp_path / "whole", *few))} == {2}
    for row in of_texts(whole):
        assert row.output in row.input or not row.input

    calls = [0]
    inner = local.generate

    def dies(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise Killed
        return inner(*arguments)

    local.generate = dies  # type: ignore[method-assign]
    config = settings(tmp_path / "killed", *few)
    with pytest.raises(Killed):
        generate(config, local)
    assert contents(generate(config, local)) == contents(whole)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "no", "no such folder or file"),
        (lambda folder: folder, "holds no text"),
        (lambda folder: write(folder / "a.pdf", b"x"), "of no kind that can be cut"),
        (lambda folder: write(folder / "a.txt", b"\xff\xfe0"), "not UTF-8"),
        (lambda folder: write(folder / "a.txt", b"a\0b"), "NUL"),
        (lambda folder: write(folder / "a.txt", b"short"), "holds no passage of 10 to 20 words"),
        (lambda folder: write(folder / "a.jsonl", b'{"body": "x"}'), "line 1: no 'text'"),
        (lambda folder: write(folder / "a.jsonl", b"{"), "line 1: not JSON"),
    ],
)
def test_what_is_wrong_with_texts_is_one_sentence(tmp_path: Path, make: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_passages(make(tmp_path), "words", 10, 20)  # type: ignore[operator]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_pack_that_cannot_ask_says_what_it_lacks() -> None:
    pack = load_pack("en")
    without = pack._replace(passages=demonstrations_for("instruction", pack))
    require_passage_demonstrations(["instruction"], without, "mine")
    with pytest.raises(ConfigError, match=r"no demonstration for 'question'.*passages\.jsonl"):
        require_passage_demonstrations(["instruction", "question"], without, "mine")


@pytest.mark.parametrize("language", ["en", "pt", "zh"])
def test_every_pack_asks_for_both_and_reads_what_it_shows(language: str) -> None:
    pack = load_pack(language)
    require_passage_demonstrations(["instruction", "question"], pack, language)
    wording = pack.wording
    for task in demonstrations_for("question", pack):
        one = task.instances[0]
        for reply in (
            f" {task.instruction}\n{wording.answer}{wording.gap}{one.output}",
            f"{wording.question} {task.instruction}\n\n**{wording.answer}** {one.output}。",
            f"```\n{wording.question}{task.instruction}\n{wording.answer} “{one.output}”.\n```",
        ):
            found = read_passage("question", wording, reply, one.input, False)
            assert found == (task.instruction, one, True), reply
        cut = read_passage("question", wording, task.instruction, one.input, True)
        assert not cut.grounded and cut.instruction == ""


@pytest.mark.parametrize(
    ("answer", "passage", "found"),
    [
        ("the  Old pump.", "Turn the old\npump off.", "the old\npump"),
        ("art", "the heart of it", None),
        ("2 to 8", "kept at 2 to 80 degrees", None),
        ("河沙", "后来河沙淤积得太快", "河沙"),
        ("(a+b)*", "matches (a+b)* only", "(a+b)*"),
        ("", "anything", None),
    ],
)
def test_an_answer_is_found_as_whole_words_whatever_its_capitals_and_blanks(
    answer: str, passage: str, found: str | None
) -> None:
    assert span(answer, passage) == found


def test_settings_that_ask_for_nothing_are_refused(tmp_path: Path) -> None:
    for wrong in ("tasks=[]", "tasks=[question,question]", "min_words=200"):
        with pytest.raises(SelfInstructError, match=r"generation\.passages"):
            settings(tmp_path, f"generation.passages.{wrong}")
