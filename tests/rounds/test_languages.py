"""Chinese and Portuguese through all steps: what is new, what is trained on, and what it scores."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_train.config import Config
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.evaluation.compare import read_comparison
from selfinstruct_train.generation.prompting import one_line
from selfinstruct_train.packs.pack import Pack, load_pack
from selfinstruct_train.records import (
    EvalTask,
    GeneratedInstance,
    Instruction,
    Prediction,
    Rejection,
    SeedTask,
    TrainingRow,
)
from selfinstruct_train.rounds.loop import Loop
from selfinstruct_train.run.stores import RowStore
from selfinstruct_train.sources.seeds import read_seeds
from selfinstruct_train.text.words import RougeTokenizer

FOREIGN = "Write a letter to the mayor about the state of the roads in our town."
NEAR = {"zh": "请{}", "pt": "{} agora"}
"""Says much the same as another task: above 0.8, or above 0.7, of its words are the same."""


class _Writer:
    """Writes tasks of a seed file that the run does not know, a near copy of each, and English."""

    def __init__(self, name: str, tasks: Sequence[SeedTask]) -> None:
        self._pack: Pack = load_pack(name)
        self._tasks = {one_line(task.instruction): task for task in tasks}
        near = [NEAR[name].format(text) for text in self._tasks]
        pairs = zip(self._tasks, near, strict=True)
        self._items = [FOREIGN, *(text for pair in pairs for text in pair)]

    def answer(self, request: Request, adapter: Path | None) -> ScriptedAnswer:
        wording = self._pack.wording
        if "-instructions-" in request.id:
            items, self._items = self._items[:4], self._items[4:]
            first = int(request.prompt.rpartition("\n")[2].rstrip("."))
            lines = [f"{first + n}. {item}" for n, item in enumerate(items)]
            return ScriptedAnswer("\n".join(lines).partition(".")[2])
        asked = request.prompt.rpartition(f"\n{wording.task}")[2].split("\n")[0].strip()
        rows, gap = self._tasks[asked].instances[:1], wording.gap
        if self._tasks[asked].is_classification:
            said = [f"{gap}{row.output}\n{wording.input}{gap}{row.input}" for row in rows]
        else:
            said = [
                f"\n{wording.input}{gap}{row.input}\n{wording.output}{gap}{row.output}"
                for row in rows
            ]
        return ScriptedAnswer("\n".join(said))

    def score(self, prompt: str, answer: str) -> float:
        asked = prompt.rpartition(f"\n{self._pack.wording.task}")[2].split("\n")[0].strip()
        task = self._tasks.get(asked)
        is_yes = answer.strip() == self._pack.wording.yes
        return float(is_yes == (task is not None and task.is_classification))


def _short(task: SeedTask) -> bool:
    """Whether a task fits the embedded model, which takes three tokens for a Han character."""
    first = task.instances[0]
    return len(f"{task.instruction}{first.input}{first.output}".encode()) < 240 and bool(
        not task.is_classification or first.input
    )


def _config(
    tmp_path: Path, name: str, seeds: Sequence[SeedTask], suite: Sequence[SeedTask]
) -> Config:
    (tmp_path / "seeds.jsonl").write_text(
        "".join(task.model_dump_json() + "\n" for task in seeds), "utf-8"
    )
    tasks = [
        EvalTask(
            id=task.id,
            motivation_app="x",
            instruction=task.instruction,
            instances=task.instances[:1],
        )
        for task in suite
    ]
    (tmp_path / "suite.jsonl").write_text(
        "".join(task.model_dump_json() + "\n" for task in tasks), "utf-8"
    )
    step = {"max_steps": 2, "batch_size": 2, "max_length": 512, "logging_steps": 1}
    return Config.model_validate(
        {
            "model": {"name_or_path": "embedded", "device": "cpu"},
            "seeds": {"path": str(tmp_path / "seeds.jsonl")},
            "generation": {
                "prompts": name,
                "instructions_per_round": 5,
                "max_requests": 12,
                "instructions": {"machine_demonstrations": 0, "requests_per_batch": 1},
            },
            "training": step,
            "evaluation": {
                "suites": [str(tmp_path / "suite.jsonl")],
                "max_tokens": 12,
                "seeds_only": False,
                "bootstrap_samples": 50,
            },
            "output_dir": str(tmp_path / "run"),
        }
    )


@pytest.mark.parametrize("name", ["zh", "pt"])
def test_a_run_in_another_language_goes_through_all_steps(tmp_path: Path, name: str) -> None:
    known = [task for task in read_seeds(f"{name}-seeds") if _short(task)]
    seeds, written, suite = known[:8], known[8:14], known[14:18]
    config = _config(tmp_path, name, seeds, suite)
    loop, writer = Loop(config), _Writer(name, written)
    own = loop.opened.engine
    loop.opened.engine = ScriptedEngine(writer.answer, writer.score)
    loop.generate(0)
    loop.opened.engine = own
    loop.train(0)
    loop.evaluate(0)
    directory, pack = loop.run.round(0), load_pack(name)

    # New is what a plain comparison with all that came before finds new.
    scorer = RougeScorer(["rougeL"], tokenizer=RougeTokenizer("unicode"))
    pool = [task.instruction for task in seeds]
    kept = RowStore(directory.instructions, Instruction, writable=False).read()
    for row in kept:
        scores = [scorer.score(row.instruction, text)["rougeL"].fmeasure for text in pool]
        assert row.nearest is not None
        assert row.nearest.score == pytest.approx(max(scores), abs=1e-6)
        assert max(scores) <= pack.rules.novelty_threshold
        pool.append(row.instruction)
    assert len(kept) >= 5
    texts = [one_line(task.instruction) for task in written]
    assert [row.instruction for row in kept] == texts[: len(kept)]
    dropped = RowStore(directory.rejected("instructions"), Rejection, writable=False).read()
    assert {row.reason for row in dropped} == {"not_novel", "foreign_language"}
    near = [row.nearest.score for row in dropped if row.nearest]
    assert near and min(near) > pack.rules.novelty_threshold

    # Trained on in the language's own template: seeds, and what was written, unchanged.
    instances = RowStore(directory.instances, GeneratedInstance, writable=False).read()
    assert {(row.instruction, row.output) for row in instances} <= {
        (one_line(task.instruction), task.instances[0].output) for task in written
    }
    trained = RowStore(directory.dataset / "train.jsonl", TrainingRow, writable=False).read()
    assert {row.output for row in instances} <= {row.output for row in trained}
    assert loop.opened.question("a", "") == pack.answers.encodings[0].without_input.format(
        instruction="a"
    )
    assert (directory.adapter / "adapter_model.safetensors").exists()

    # Scored by the words of the language.
    folder = directory.evaluation("suite")
    found = {row.system: row for row in read_comparison(folder / "comparison.json").scores}
    for system in ("base", "tuned"):
        answers = RowStore(folder / f"{system}.jsonl", Prediction, writable=False).read()
        assert len(answers) == len(suite) == found[system].n
        scores = [
            scorer.score(row.target, row.response)["rougeL"].fmeasure * 100 for row in answers
        ]
        assert found[system].rouge_l == pytest.approx(sum(scores) / len(scores), abs=1e-6)
        assert found[system].unscored == 0
    assert (
        json.loads((directory.path / "done" / "instructions.json").read_text())["figures"][
            "tokenizer"
        ]
        == "unicode"
    )
