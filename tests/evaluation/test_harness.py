"""Tasks of lm-evaluation-harness: what its figures become, and the real package where it is."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_train.config import Config, HarnessConfig
from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.evaluation.beyond import harness
from selfinstruct_train.evaluation.beyond.harness import check_harness, measure_harness
from selfinstruct_train.evaluation.beyond.harness_figures import (
    HarnessResult,
    HarnessScore,
    HarnessSettings,
    HarnessTask,
    compare_harness,
    read_harness,
    read_scores,
)
from selfinstruct_train.models.load import LoadedModel, load_model
from selfinstruct_train.run.directory import RunDirectory

HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_package = pytest.mark.skipif(
    not INSTALLED, reason="lm_eval is not installed; pip install 'selfinstruct-train[harness]'"
)

# The shape of what simple_evaluate of lm_eval 0.4.13 returns, as far as it is read.
RETURNED = {
    "results": {
        "choice": {
            "name": "choice",
            "alias": "choice",
            "sample_len": 10,
            "acc,none": 0.4,
            "acc_stderr,none": 0.163,
            "acc_norm,none": 0.5,
            "acc_norm_stderr,none": "N/A",
        },
        "text": {
            "alias": "text",
            "word_perplexity,none": 12.5,
            "word_perplexity_stderr,none": float("nan"),
            "exact_match,strict-match": 1,
            "exact_match_stderr,strict-match": 0.0,
            "bleu,none": float("nan"),
        },
        "both": {"alias": "both", "sample_count": {"acc,none": 10}, "acc,none": 0.4},
    },
    "n-samples": {
        "choice": {"original": 12, "effective": 10},
        "text": {"original": 7, "effective": 7},
    },
    "higher_is_better": {
        "choice": {"acc": True, "acc_norm": True},
        "text": {"word_perplexity": False, "exact_match": True},
        "both": {"acc": None},
    },
}


def test_figures_are_read_with_their_errors_items_and_direction() -> None:
    scores = {(s.task, s.metric): s for s in read_scores(RETURNED)}
    assert list(scores) == [
        ("choice", "acc"),
        ("choice", "acc_norm"),
        ("text", "word_perplexity"),
        ("text", "exact_match"),
        ("both", "acc"),
    ]
    acc = scores["choice", "acc"]
    assert (acc.value, acc.stderr, acc.n, acc.higher_is_better) == (0.4, 0.163, 10, True)
    assert scores["choice", "acc_norm"].stderr is None
    perplexity = scores["text", "word_perplexity"]
    assert (perplexity.stderr, perplexity.higher_is_better) == (None, False)
    assert scores["text", "exact_match"].filter == "strict-match"
    assert (scores["both", "acc"].n, scores["both", "acc"].higher_is_better) == (None, None)


SETTINGS = HarnessSettings(
    package="0.4.13", num_fewshot=None, limit=None, apply_chat_template=False, seed=0
)


def result(system: str, *figures: tuple[str, float, float | None, bool]) -> HarnessResult:
    scores = tuple(
        HarnessScore(
            task=name,
            metric="m",
            filter="none",
            value=value,
            stderr=stderr,
            higher_is_better=higher,
            n=100,
        )
        for name, value, stderr, higher in figures
    )
    task = HarnessTask(name="all", scores=scores)
    return HarnessResult.model_validate({"system": system, "settings": SETTINGS, "tasks": (task,)})


def test_a_difference_is_sure_only_beyond_both_standard_errors_combined() -> None:
    base = result(
        "base",
        ("up", 0.30, 0.03, True),
        ("same", 0.30, 0.03, True),
        ("ppl", 10.0, 0.3, False),
        ("unknown", 0.3, None, True),
        ("flat", 0.0, 0.0, True),
        ("gone", 0.3, 0.1, True),
    )
    tuned = result(
        "tuned",
        ("up", 0.42, 0.04, True),
        ("same", 0.38, 0.04, True),
        ("ppl", 12.0, 0.4, False),
        ("unknown", 0.9, 0.1, True),
        ("flat", 1.0, 0.0, True),
    )
    found = compare_harness(base, tuned, 0.95)
    assert [(d.task, d.outcome) for d in found.differences] == [
        ("up", "better"),
        ("same", "unclear"),
        ("ppl", "worse"),
        ("unknown", "unclear"),
        ("flat", "unclear"),
    ]
    up = found.differences[0]
    assert up.delta == pytest.approx(0.12) and up.ci_low is not None and up.ci_high is not None
    assert (up.ci_high - up.ci_low) / 2 == pytest.approx(1.96 * math.hypot(0.03, 0.04), rel=1e-4)
    assert found.sentence == (
        "On tasks of lm-evaluation-harness the tuned model is better on up (m 0.3 to 0.42); worse "
        "on ppl (m 10 to 12); not to be told apart on 3 of 5 figures."
    )


@pytest.mark.skipif(INSTALLED, reason="lm_eval is installed")
def test_without_the_package_validate_names_the_mend_and_exits_with_2(tmp_path: Path) -> None:
    config = HERE.parents[1] / "configs" / "quickstart.yaml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "selfinstruct_train.cli.app", "validate", str(config)),
            "evaluation.harness={tasks: [arc_easy]}",
        ],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 2
    assert "pip install 'selfinstruct-train[harness]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Own tasks over a local file: how likely a sum's result is, and a sum to be written."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {"question": f"What is {a} plus {b}?", "choices": [str(a + b + c) for c in (0, 1, -1)]}
        for a in range(2, 6)
        for b in range(1, 4)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = (
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'sums.jsonl'}}}}}\n"
        "test_split: test\n"
        'doc_to_text: "{{question}}\\nAnswer:"\n'
    )
    (folder / "likely.yaml").write_text(
        f"task: own_likely\n{head}output_type: loglikelihood\n"
        'doc_to_target: " {{choices[0]}}"\n'
        "metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]\n"
    )
    (folder / "write.yaml").write_text(
        f"task: own_write\n{head}output_type: generate_until\n"
        'doc_to_target: "{{choices[0]}}"\ngeneration_kwargs: {until: ["\\n"], max_gen_toks: 4}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


def settings(output_dir: Path, **changed: object) -> Config:
    return Config.model_validate(
        {
            "model": {"name_or_path": "embedded", "dtype": "float32"},
            "seeds": {"path": "microworld-seeds"},
            "evaluation": {"suites": ["microworld"], "harness": {"batch_size": 4} | changed},
            "output_dir": str(output_dir),
        }
    )


def add_adapter(folder: Path) -> None:
    """An adapter of random weights, strong enough to change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model

    other = load_model(settings(folder, tasks=["x"]).model)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, lora_alpha=64, r=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        get_peft_model(other.model, lora).save_pretrained(folder)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(settings(Path("run"), tasks=["x"]).model)


@pytest.fixture
def own_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the thousands of tasks that come with the package out of its index, to save time."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def index(config: HarnessConfig) -> object:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=config.include_path, include_defaults=False)

    monkeypatch.setattr(harness, "_task_manager", index)


@needs_package
@pytest.mark.usefixtures("own_tasks_alone")
def test_base_and_tuned_are_asked_in_turn_and_a_stopped_check_goes_on(
    loaded: LoadedModel, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("own_likely", "own_write")
    config = settings(tmp_path / "run", tasks=names, include_path=str(tasks), limit=10)
    run = RunDirectory(config.output_dir)
    for number in (0, 1):
        add_adapter(run.round(number).adapter)
    asked: list[str] = []
    run_task = harness._run_task

    def counted(*arguments: object) -> object:
        asked.append(str(arguments[4]))
        if len(asked) == 4:
            raise RunError("stopped")
        return run_task(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(harness, "_run_task", counted)
    with pytest.raises(RunError, match="stopped"):
        measure_harness(config, loaded, run, 0)
    first = measure_harness(config, loaded, run, 0)
    assert first is not None
    # Base on both, tuned on the first, then only what was left.
    assert asked == ["own_likely", "own_write", "own_likely", "own_write", "own_write"]
    assert [(d.task, d.metric, d.n) for d in first.differences] == [
        ("own_likely", "perplexity", 10),
        ("own_write", "exact_match", 10),
    ]
    folder = run.round(0).evaluation("harness")
    assert sorted(p.name for p in folder.iterdir()) == [
        "base.json",
        "differences.json",
        "tuned.json",
    ]
    assert read_harness(folder / "differences.json") == first
    # An adapter of noise makes everything less likely.
    assert first.differences[0].tuned > 10 * first.differences[0].base
    # The second round asks its own model alone, and the figures of equal models are equal.
    second = measure_harness(config, loaded, run, 1)
    assert len(asked) == 7 and second == first
    # Other settings or other tasks make other figures: nothing is taken over.
    fewer = settings(tmp_path / "run", tasks=names[:1], include_path=str(tasks), limit=5)
    found = measure_harness(fewer, loaded, run, 0)
    assert len(asked) == 9 and found is not None and found.differences[0].n == 5
    changed = tasks / "likely.yaml"
    changed.write_text(changed.read_text().replace('" {{choices[0]}}"', '" {{choices[1]}}"'))
    other = measure_harness(fewer, loaded, run, 0)
    assert len(asked) == 11 and other is not None
    assert other.differences[0].base != found.differences[0].base


@needs_package
@pytest.mark.slow
def test_two_processes_share_the_items_and_find_what_one_finds(
    tasks: Path, tmp_path: Path, own_tasks_alone: None
) -> None:
    config = settings(tmp_path / "one", tasks=["own_likely"], include_path=str(tasks))
    add_adapter(RunDirectory(config.output_dir).round(0).adapter)
    alone = measure_harness(config, load_model(config.model), RunDirectory(config.output_dir), 0)
    shutil.copytree(tmp_path / "one" / "round-0" / "adapter", tmp_path / "two/round-0/adapter")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
            *("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
            *("--mixed_precision", "no", "--dynamo_backend", "no"),
            *(
                str(HERE.parent / "helpers" / "harness_on_two_processes.py"),
                str(tasks),
                str(tmp_path / "two"),
            ),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    together = read_harness(tmp_path / "two/round-0/eval/harness/differences.json")
    assert alone is not None
    (one,), (two,) = alone.differences, together.differences
    assert (two.n, two.task) == (one.n, one.task) == (12, "own_likely")
    assert two.base == pytest.approx(one.base, rel=1e-4)
    assert two.tuned == pytest.approx(one.tuned, rel=1e-4)


@needs_package
def test_unknown_tasks_and_folders_are_named_before_a_model_is_loaded(tasks: Path) -> None:
    folder = str(tasks)
    check_harness(HarnessConfig(tasks=("own_likely", "arc_easy"), include_path=folder))
    with pytest.raises(ConfigError, match="no task 'own_likly'; did you mean 'own_likely'"):
        check_harness(HarnessConfig(tasks=("own_likly",), include_path=folder))
    with pytest.raises(ConfigError, match="include_path: no folder"):
        check_harness(HarnessConfig(tasks=("own_likely",), include_path=folder + "-not"))


@needs_package
@pytest.mark.usefixtures("own_tasks_alone")
def test_a_task_that_fails_is_named_and_what_was_finished_is_kept(
    loaded: LoadedModel, tasks: Path, tmp_path: Path
) -> None:
    broken = (tasks / "write.yaml").read_text().replace("sums.jsonl", "gone.jsonl")
    (tasks / "write.yaml").write_text(broken)
    names = ("own_likely", "own_write")
    config = settings(tmp_path / "run", tasks=names, include_path=str(tasks), limit=2)
    run = RunDirectory(config.output_dir)
    with pytest.raises(RunError, match=r"task 'own_write' failed \(FileNotFoundError: .*gone"):
        measure_harness(config, loaded, run, 0)
    kept = (run.round(0).evaluation("harness") / "base.json").read_text()
    assert [t.name for t in HarnessResult.model_validate_json(kept).tasks] == ["own_likely"]
