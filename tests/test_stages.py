"""What a stage depends on stops a run when it changes; nothing else does."""

import json
import shutil
from pathlib import Path

import pytest

from selfinstruct_train.config import Config, all_keys, flat_settings, load_config
from selfinstruct_train.errors import DataError, RunError
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.models.identity import model_identity
from selfinstruct_train.progress import ProgressUpdate
from selfinstruct_train.records import GeneratedInstance, Instruction
from selfinstruct_train.run.directory import RoundDirectory, RunDirectory
from selfinstruct_train.run.rows import LiveRows
from selfinstruct_train.run.stage import FREE, STAGES, within
from tests.generation.test_generate import SEEDS, scripted

ROOT = Path(__file__).parent.parent
SMALL = (
    "generation.prompts=en",
    "generation.instances.answers=as_written",
    "generation.instructions_per_round=8",
    "generation.classification.calibrate=false",
    "rounds=2",
)
CONTENTS = {"seeds.path": "a", "generation.prompts": "b", "writer": "c", "model": "d"}
GENERATED = ("instructions", "classification", "instances")


def config(run: Path, *overrides: str) -> Config:
    return load_config(ROOT / "configs" / "quickstart.yaml", [*SMALL, *overrides], run)


def quiet(update: ProgressUpdate) -> None:
    pass


def start(run: Path, *overrides: str, redo: str | None = None, **contents: str) -> RunDirectory:
    """Open a run as the loop does, and write the data of its first round."""
    settings = config(run, *overrides)
    directory = RunDirectory(run)
    changed = {name.replace("__", "."): value for name, value in contents.items()}
    directory.open(settings, CONTENTS | changed, redo)
    engine = scripted()
    generate_round(settings, engine, directory, 0, SEEDS, None, lambda i, g: i, quiet)
    return directory


def finish_the_rest(run: RunDirectory) -> None:
    directory = run.round(0)
    directory.adapter.mkdir()
    (directory.adapter / "adapter_model.safetensors").write_bytes(b"weights")
    directory.finish("train", 1.0, steps=3)
    directory.evaluation("s").mkdir(parents=True)
    (directory.evaluation("s") / "tuned.jsonl").write_text("{}\n")
    directory.finish("evaluate", 1.0)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("manifest.json", "config.yaml", "run.lock", "run.log")
    }


def test_every_setting_bears_on_a_stage_or_is_free() -> None:
    sections = {key.rpartition(".")[0] for key in all_keys()}
    known = tuple(section for stage in STAGES for section in stage.settings)
    for key in all_keys():
        if key not in sections:
            assert within(key, known) or within(key, FREE), f"{key} is in no list"


def test_every_name_in_the_table_is_a_setting() -> None:
    keys = set(all_keys())
    for name in (*FREE, *(s for stage in STAGES for s in stage.settings)):
        assert name in keys, name


@pytest.mark.parametrize(
    "change",
    [
        "training.micro_batch_size=2",
        "training.gradient_checkpointing=true",
        "training.learning_rate=1e-5",
        "training.template=chat",
        "training.max_length=64",
        "training.lora_r=4",
        "training.max_steps=5",
        "training.include_seeds=false",
        "evaluation.max_tokens=8",
        "evaluation.suites=[everyday]",
        "evaluation.contamination.drop=none",
        "model.threads=1",
        "model.device=cpu",
        "model.dtype=bfloat16",
        "generation.engine.base_url=http://127.0.0.1:9/v1",
        "generation.engine.timeout_seconds=5",
        "generation.engine.concurrency=1",
        "generation.engine.memory_fraction=0.1",
        "generation.engine.max_batch_size=1",
        "generation.engine.max_retries=0",
        "rounds=3",
    ],
)
def test_after_generating_what_only_later_stages_read_may_change(
    change: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    start(run)
    before = files(run)
    start(run, change)
    assert files(run) == before


@pytest.mark.parametrize(
    "change",
    [
        "training.micro_batch_size=2",
        "training.gradient_checkpointing=true",
        "training.save_steps=7",
        "training.report_to=[tensorboard]",
        "generation.engine.base_url=http://127.0.0.1:9/v1",
        "generation.engine.concurrency=1",
        "model.threads=1",
        "evaluation.suites=[everyday]",
    ],
)
def test_a_free_setting_may_change_when_all_is_finished(change: str, tmp_path: Path) -> None:
    finish_the_rest(start(tmp_path / "run"))
    start(tmp_path / "run", change)


@pytest.mark.parametrize(
    ("change", "stages", "first"),
    [
        (
            "generation.instructions.temperature=0.3",
            (*GENERATED, "train", "evaluate"),
            GENERATED[0],
        ),
        ("generation.instances.max_tokens=9", ("instances", "train", "evaluate"), "instances"),
        ("training.learning_rate=1e-5", ("train", "evaluate"), "train"),
        ("evaluation.max_tokens=8", ("evaluate",), "evaluate"),
    ],
)
def test_a_setting_that_bears_on_finished_stages_stops_with_a_choice(
    change: str, stages: tuple[str, ...], first: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finish_the_rest(start(run))
    before, saved = files(run), (run / "config.yaml").read_bytes()
    with pytest.raises(RunError) as caught:
        start(run, change)
    said = str(caught.value)
    key = change.partition("=")[0]
    assert f": {', '.join(stages)} (" in said and f"--redo {first}" in said
    assert f"{key}: {flat_settings(config(run))[key]} -> " in said
    assert files(run) == before and (run / "config.yaml").read_bytes() == saved
    start(run, change, redo=first)
    directory = RunDirectory(run).round(0)
    for stage in ("train", "evaluate"):
        assert (directory.mark(stage) is None) == (stage in stages)
    assert (run / f"replaced/0/round-0/done/{first}.json").exists()
    start(run, change)


def test_new_content_under_the_same_name_stops_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(run)
    with pytest.raises(RunError, match=r"content of seeds\.path: a -> z"):
        start(run, seeds__path="z")
    start(run, "seeds.path=moved.jsonl")


def test_replaced_weights_stop_training_and_writing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish_the_rest(start(run))
    with pytest.raises(RunError, match=r"train, evaluate \(content of model: d -> e"):
        start(run, model="e")


def test_another_precision_of_the_writer_stops_its_stages(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(run, **{"writer precision": "bfloat16"})
    with pytest.raises(RunError, match=r"content of writer precision: bfloat16 -> float32"):
        start(run, **{"writer precision": "float32"})
    # A run begun before this was noted goes on.
    start(tmp_path / "older")
    start(tmp_path / "older", **{"writer precision": "float32"})


def evaluate_suites(run: RunDirectory, *suites: str) -> None:
    """Finish evaluation and judge with an answer for each suite that has none."""
    directory = run.round(0)
    directory.begin("evaluate")
    for name in suites:
        for file in ("tuned.jsonl", "comparison.json", "judge/pairs.jsonl"):
            path = directory.evaluation(name) / file
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}\n")
    directory.finish("evaluate", 1.0, suites=len(suites))
    directory.finish("judge", 1.0, suites=len(suites))


def suites(**contents: str) -> dict[str, str]:
    return {f"suite {name}": value for name, value in contents.items()}


def test_an_edited_suite_is_named_and_evaluated_again_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run, **suites(one="a", two="b"))
    finish_the_rest(directory)
    evaluate_suites(directory, "one", "two")
    with pytest.raises(RunError) as caught:
        start(run, **suites(one="a", two="c"))
    said = str(caught.value)
    assert "evaluate, judge (content of suite two: b -> c)" in said and "--redo evaluate" in said
    kept = files(run / "round-0/eval/one")
    directory = start(run, redo="evaluate", **suites(one="a", two="c"))
    assert files(run / "round-0/eval/one") == kept
    assert not (run / "round-0/eval/two").exists()
    assert (run / "replaced/0/round-0/eval/two/judge/pairs.jsonl").exists()
    for stage in ("evaluate", "judge"):
        mark = directory.round(0).mark(stage)
        assert mark is not None and "content of suite two" not in mark.depends_on
    # Killed here, the next start goes on with the one suite.
    directory = start(run, **suites(one="a", two="c"))
    evaluate_suites(directory, "one", "two")
    start(run, **suites(one="a", two="c"))


def test_a_suite_that_joins_leaves_the_others_and_one_that_left_is_still_known(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    directory = start(run, **suites(one="a"))
    finish_the_rest(directory)
    evaluate_suites(directory, "one")
    kept = files(run / "round-0/eval/one")
    directory = start(run, **suites(two="b"))
    evaluate_suites(directory, "two")
    assert files(run / "round-0/eval/one") == kept
    start(run, **suites(one="a", two="b"))
    with pytest.raises(RunError, match=r"content of suite one: a -> z"):
        start(run, **suites(one="z", two="b"))


def test_where_nothing_changed_every_suite_is_evaluated_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run, **suites(one="a"))
    finish_the_rest(directory)
    evaluate_suites(directory, "one")
    directory = start(run, redo="evaluate", **suites(one="a"))
    assert not (run / "round-0/eval").exists() and directory.round(0).mark("evaluate") is None


def test_a_stage_that_is_under_way_is_not_gone_on_with_otherwise(tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = RunDirectory(run)
    directory.open(config(run), CONTENTS)
    directory.round(0).begin("instructions")
    start_again = "generation.instructions.temperature=0.3"
    RunDirectory(run).open(config(run, start_again), CONTENTS)
    directory.round(0).begin("instructions")
    directory.round(0).instructions.write_text("")
    with pytest.raises(RunError, match=r"instructions\.temperature.*--redo instructions"):
        RunDirectory(run).open(config(run, start_again), CONTENTS)


def test_another_learning_rate_costs_no_second_generation(tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run)
    finish_the_rest(directory)
    settings = config(run)
    generate_round(settings, scripted(), directory, 1, SEEDS, None, lambda i, g: i, quiet)
    start(run, "training.learning_rate=1e-5", redo="train")
    assert directory.round(1).mark("instances") is not None
    start(run, "training.learning_rate=1e-5", redo="instructions")
    assert not directory.round(1).instructions.exists()


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "doubled", "flipped"])
@pytest.mark.parametrize(
    "name",
    [
        "instructions.jsonl",
        "classified.jsonl",
        "instances.jsonl",
        "rejected/instances.jsonl",
        "adapter/adapter_model.safetensors",
        "eval/s/tuned.jsonl",
    ],
)
def test_a_file_that_is_not_as_its_stage_left_it_is_named(
    name: str, damage: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finish_the_rest(start(run))
    path = run / "round-0" / name
    data = path.read_bytes()
    match damage:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "doubled":
            path.write_bytes(data + data[data[:-1].rfind(b"\n") + 1 :])
        case "flipped":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(RunError) as caught:
        start(run)
    said = str(caught.value)
    assert str(path) in said and "--redo " in said
    assert ".jsonl: holds " in said or "is missing" in said or "was changed" in said
    stage = said.partition("--redo ")[2].split()[0]
    start(run, redo=stage)


def test_a_tail_of_nul_bytes_is_cut_off(tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run).round(0)
    whole = directory.instances.read_bytes()
    directory.instances.write_bytes(whole + b"\0" * 5000)
    start(run)
    assert directory.instances.read_bytes() == whole
    (directory.path / "done/instances.json").unlink()
    directory.instances.write_bytes(whole + b"\0" * 5000)
    start(run)
    assert directory.instances.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"starts": 1}', b'{"for'])
def test_a_damaged_manifest_is_put_aside(content: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run)
    directory.manifest.write_bytes(content)
    start(run)
    assert len(json.loads(directory.manifest.read_text())["starts"]) == 1
    assert (run / "manifest.json.damaged").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"a": ', b"[" * 100_000])
def test_what_a_stage_was_begun_with_is_not_forgotten(content: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run).round(0)
    directory.begin("train")
    (directory.checkpoints / "checkpoint-1").mkdir(parents=True)
    (directory.path / "done/train.begun").write_bytes(content)
    with pytest.raises(RunError, match="what it was begun with: its file is damaged.*--redo train"):
        start(run)
    start(run, redo="train")
    start(run)


@pytest.mark.parametrize("name", ["round-x", "round-²", "round-01", "round-1 (copy)", "round--1"])
def test_a_folder_that_a_user_puts_there_is_no_round(name: str, tmp_path: Path) -> None:
    directory = start(tmp_path / "run")
    (directory.path / name / "done").mkdir(parents=True)
    (directory.path / "seeds-only" / name.replace("round", "steps")).mkdir(parents=True)
    assert [own.path.name for own in directory.rounds()] == ["round-0"]
    assert not directory.all_seeds_only() and not directory.seeds_only_lengths()
    start(tmp_path / "run")


@pytest.mark.parametrize("size", [-5, 2**63, 10**30])
def test_a_mark_with_a_size_that_no_file_has_is_damaged(size: int, tmp_path: Path) -> None:
    directory = start(tmp_path / "run").round(0)
    mark = directory.path / "done/instances.json"
    found = json.loads(mark.read_text())
    found["files"]["instances.jsonl"]["bytes"] = size
    mark.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"instances\.json: .*delete it"):
        start(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"model: {na"])
def test_a_damaged_config_is_written_again(content: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    directory = start(run)
    directory.config_file.write_bytes(content)
    with pytest.raises(RunError, match="start the run again"):
        directory.config()
    start(run)
    assert flat_settings(directory.config()) == flat_settings(config(run))


def test_the_manifest_keeps_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfinstruct_train.run import manifest as module

    run = tmp_path / "run"
    for number in ("1", "2"):
        monkeypatch.setattr(module, "_version", lambda name, number=number: number)
        start(run)
    starts = json.loads((run / "manifest.json").read_text())["starts"]
    assert [s["packages"]["torch"] for s in starts] == ["1", "2"]


def test_a_run_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    run = tmp_path / "run"
    mark = start(run).path / "round-0/done/instances.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"format": 99, "new": 1}))
    with pytest.raises(RunError, match="written by a newer version"):
        start(run)


def test_an_unknown_stage_cannot_be_made_again(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name one of instructions, "):
        start(tmp_path / "run", redo="instruction")


def _row_ids(run: RunDirectory) -> tuple[set[str], set[str]]:
    live = LiveRows(run)
    return {r.id for r in live.instructions(2)}, {r.id for r in live.instances(2)}


def test_live_rows_are_those_written_less_pruned_and_rolled_back(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    first: RoundDirectory = run.round(0)
    shutil.copytree(first.path, run.round(1).path)
    instructions, instances = _row_ids(run)
    assert len(instructions) == len(first.store(first.instructions, Instruction).read())
    gone = sorted(instructions)[0]
    one = next(i for i in sorted(instances) if not i.startswith(gone))
    run.pruned.write_text(json.dumps({"id": gone}) + "\n" + json.dumps({"id": one}) + "\n")
    left = _row_ids(run)
    assert left[0] == instructions - {gone}
    written = first.store(first.instances, GeneratedInstance).read()
    assert left[1] == {r.id for r in written if r.instruction_id != gone} - {one}
    run.round(1).decision.write_text('{"rolled_back": true}')
    assert len(list(LiveRows(run).instructions(2))) == len(left[0])


def test_a_model_is_known_by_what_its_files_hold(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "config.json").write_text("{}")
    (one / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}" + bytes(range(256)) * 40)
    shutil.copytree(one, other)
    (other / "README.md").write_text("moved")
    assert model_identity(str(one)) == model_identity(str(other))
    data = bytearray((other / "model.safetensors").read_bytes())
    data[5000] ^= 1
    (other / "model.safetensors").write_bytes(bytes(data))
    assert model_identity(str(one)) != model_identity(str(other))
    assert model_identity("nobody/nothing", "abc") == "nobody/nothing@abc"
