"""Pairs made of an earlier model's answers, and a training on them; launched by
test_two_processes, and called by it on one process."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import small_models as small

from selfinstruct_train.config import load_config
from selfinstruct_train.distributed import World, join_world
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.packs.pack import load_pack
from selfinstruct_train.records import DrawnAnswers, TrainingRow
from selfinstruct_train.rounds.preferring import preference_pairs
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.training.dpo import train_on_pairs

ROOT = Path(__file__).parents[2]
PREFERENCE = {"pairs": ("drawn", "earlier_model"), "learning_rate": 5e-3, "max_steps": 6}
ROWS = [
    TrainingRow(
        id=f"row-{i}",
        source="generated",
        instruction="Say the number twice.",
        input=str(i),
        output=f"{i} {i}",
        is_classification=False,
    )
    for i in range(12)
]
DRAWN = [
    DrawnAnswers(
        id=row.id,
        instruction=row.instruction,
        input=row.input,
        answers=(row.output, f"{row.input} x", f"{row.input} y z"),
        scores=(0.9, 0.2, 0.4),
        chosen=0,
        chooser="majority",
    )
    for row in ROWS[:8]
]


def earlier(request: Request, adapter: Path | None) -> ScriptedAnswer:
    """Every third question is answered as it should be."""
    number = int(request.id.rpartition("-")[2])
    return ScriptedAnswer(f" {number} {number if number % 3 == 0 else 'no'}")


def prefer(folder: Path, world: World) -> None:
    """Make pairs of both kinds and train on them, as a round does."""
    settings = ["training.method=dpo", "generation.instances.best_of=3"]
    settings += ["training.preference.pairs=[drawn,earlier_model]"]
    settings += ["generation.instances.answers=as_written", "generation.prompts=en"]
    config = load_config(ROOT / "configs/quickstart.yaml", settings, folder)
    run = RunDirectory(folder, world)
    directory = run.round(0)
    directory.store(directory.drawn, DrawnAnswers).emit(DRAWN)
    world.gather(list)  # the rows are on the disk for all
    engine: Any = ScriptedEngine(earlier)
    engine = ParallelEngine(engine, world) if world.size > 1 else engine
    opened: Any = SimpleNamespace(
        config=config,
        run=run,
        pack=load_pack("en"),
        engine=engine,
        evaluation_engine=engine,
        question=lambda instruction, given: f"{instruction} {given}",
        progress=lambda update: None,
    )
    pairs = preference_pairs(opened, config, directory, 0, ROWS, None)
    train_on_pairs(
        small.loaded_model(),
        pairs,
        small.settings(method="dpo", lora_dropout=0.0, max_steps=None, preference=PREFERENCE),
        directory,
        answers=load_pack("en").answers,
        seed=1,
        world=world,
    )


if __name__ == "__main__":
    joined = join_world()
    assert joined.size == 2
    prefer(Path(sys.argv[1]), joined)
