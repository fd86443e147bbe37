"""Laws of the look at seed tasks before they are used."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import Config, load_config
from selfinstruct_train.contamination.suite_index import SuiteTasks
from selfinstruct_train.errors import DataError
from selfinstruct_train.generation.calibration import FEWEST_OF_A_KIND
from selfinstruct_train.generation.classification import calibrate_on, choose_demonstrations
from selfinstruct_train.generation.seed_check import check_seeds
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import EvalTask, Instance, SeedTask
from selfinstruct_train.sources.fetch import resolve

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def row(number: int, instruction: str, *outputs: str, label: bool = False) -> dict[str, object]:
    instances = [{"input": f"text {i}", "output": output} for i, output in enumerate(outputs)]
    return {
        "id": f"seed_{number}",
        "name": f"s{number}",
        "instruction": instruction,
        "instances": instances,
        "is_classification": label,
    }


def written(path: Path, *rows: object) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_all_faults_are_named_at_once_with_their_line_and_fix(tmp_path: Path) -> None:
    good = row(1, "Name the colour of the flower.", "red")
    nameless = {key: value for key, value in row(2, "Say hello.", "hi").items() if key != "name"}
    wrong = row(3, "", "x") | {"is_classification": "perhaps", "extra": 1}
    path = written(tmp_path / "seeds.jsonl", good, "{not json", nameless, wrong, good)
    report, tasks = check_seeds(path, ())
    assert [task.id for task in tasks] == ["seed_1"]
    assert [(f.line, f.where) for f in report.faults] == [
        (2, "line"),
        (3, "name"),
        (4, "instruction"),
        (4, "is_classification"),
        (4, "extra"),
        (5, "id"),
    ]
    assert all(fault.what and fault.fix for fault in report.faults)
    assert "correct its name" in report.faults[4].fix


def test_alike_seeds_leaks_and_thin_labels_are_named(tmp_path: Path) -> None:
    path = written(
        tmp_path / "seeds.jsonl",
        row(1, "Name the colour of the flower in the text.", "red"),
        row(2, "Name the colour of the flower in this text.", "blue"),
        row(3, "Is the review of the film good or bad?", "good", "good", label=True),
        row(4, "Is this animal a bird or a fish?", "bird", "fish", label=True),
    )
    suite = SuiteTasks(
        "exam",
        (
            EvalTask(
                id="t1",
                instruction="Is this animal a bird or a fish?",
                instances=(Instance(input="text 0", output="bird"),),
            ),
        ),
    )
    report, _ = check_seeds(path, [suite])
    assert [(pair.id, pair.other) for pair in report.alike] == [("seed_2", "seed_1")]
    assert {(leak.id, leak.suite) for leak in report.leaks} >= {("seed_4#0", "exam")}
    assert [(thin.id, thin.labels) for thin in report.thin_labels] == [("seed_3", ("good",))]
    assert any("classification" in line for line in report.advice)
    told = list(report.sentences)
    assert len(told) == 1 + 1 + len(report.leaks) + 1 + len(report.advice)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        check_seeds(written(tmp_path / "seeds.jsonl", ""), ())


def test_the_command_prints_one_line_with_how_the_model_does_on_the_labels(tmp_path: Path) -> None:
    lines = resolve("microworld-seeds").read_text("utf-8").splitlines()
    labelled = [line for line in lines if json.loads(line)["is_classification"]][:4]
    others = [line for line in lines if not json.loads(line)["is_classification"]][:8]
    path = written(tmp_path / "seeds.jsonl", *labelled, *others)
    result = CliRunner().invoke(app, ["seeds", "check", str(path), str(QUICKSTART), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["tasks"] == 12 and found["classification_tasks"] == 4
    figures = found["classification"]
    assert {"recall", "precision", "auc", "share", "threshold"} <= figures.keys()
    assert figures["auc"] == 1.0 and figures["demonstrations"] == "pack"


def test_faults_end_the_command_and_no_model_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "seeds.jsonl", "{")
    result = CliRunner().invoke(app, ["seeds", "check", str(path), str(QUICKSTART), "--json"])
    assert isinstance(result.exception, DataError)
    assert json.loads(result.stdout)["faults"][0]["line"] == 1


def kinds(yes: int, no: int) -> list[SeedTask]:
    return [
        SeedTask.model_validate(row(i, f"Task number {i} of mine", "x", label=i < yes))
        for i in range(yes + no)
    ]


def with_own_demonstrations(*overrides: str) -> Config:
    return load_config(
        QUICKSTART,
        [
            "generation.classification.demonstrations=seeds",
            "generation.classification.yes_demonstrations=3",
            "generation.classification.no_demonstrations=5",
            *overrides,
        ],
    )


def test_seeds_that_are_shown_are_not_scored() -> None:
    seeds = kinds(3 + FEWEST_OF_A_KIND, 5 + FEWEST_OF_A_KIND)
    shown = choose_demonstrations(with_own_demonstrations(), load_pack("en"), seeds)
    assert shown.source == "seeds"
    assert sum(task.is_classification for task in shown.tasks) == 3 and len(shown.tasks) == 8
    asked: list[str] = []

    def score(texts: object) -> list[tuple[float, float]]:
        assert isinstance(texts, list)
        asked.extend(texts)
        return [(0.0, float(i)) for i, _ in enumerate(texts)]

    calibrate_on(shown.others, score, 4, lambda done, total: None)
    assert not {task.instruction for task in shown.tasks} & set(asked)
    assert len(shown.others) == len(seeds) - 8
    assert shown == choose_demonstrations(with_own_demonstrations(), load_pack("en"), seeds)


def test_too_few_seeds_of_a_kind_leave_the_packs_demonstrations() -> None:
    pack, seeds = load_pack("en"), kinds(2 + FEWEST_OF_A_KIND, 40)
    shown = choose_demonstrations(with_own_demonstrations(), pack, seeds)
    assert shown.source == "pack" and shown.others == tuple(seeds)
    assert set(shown.tasks) <= set(pack.classification)
