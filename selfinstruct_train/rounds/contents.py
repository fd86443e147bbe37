"""Hashes of all data and models that a run depends on, whatever their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from selfinstruct_train.config import Config, EngineConfig, ToxicityConfig
from selfinstruct_train.evaluation.suites import Suite
from selfinstruct_train.generation.steering import read_personas
from selfinstruct_train.judging.ask import load_judge_prompts
from selfinstruct_train.models.identity import model_identity
from selfinstruct_train.packs.pack import pack_folder
from selfinstruct_train.records import SeedTask, TrainingRow
from selfinstruct_train.run.stage import Contents
from selfinstruct_train.sources.texts import Passage


def read_contents(
    config: Config,
    source: str,
    seeds: Sequence[SeedTask],
    own_rows: Iterable[TrainingRow],
    suites: Iterable[Suite],
    pruned: Iterable[str],
    passages: Iterable[Passage] = (),
    replay_prompts: Iterable[SeedTask] = (),
) -> Contents:
    """Hash what the stages read.

    Args:
        config: the settings.
        source: folder of the model, or its name on the Hub.
        seeds: the seed tasks.
        own_rows: of the user's own, to train on.
        suites: what models are compared on.
        pruned: ids of the rows that are live no more.
        passages: of the user's own texts.
        replay_prompts: what the base answers for replay.

    Returns:
        Hashes by the names of the table of stages.
    """
    model = model_identity(source, config.model.revision)
    found = {
        "seeds.path": _of_rows(seeds),
        "generation.texts": _of_texts(
            part for p in passages for part in (p.place.model_dump_json(), p.text)
        ),
        "generation.prompts": _of_folder(pack_folder(config.generation.prompts)),
        "model": model,
        "writer": _who_answers(config.generation.engine, config.model.name_or_path, model),
        "data": _of_rows(own_rows),
        "training.replay_prompts": _of_rows(replay_prompts),
        "pruned rows": _of_texts(sorted(pruned)),
        "steering": _steering(config),
        "generation.filters.toxicity": _toxicity(config.generation.filters.toxicity),
        "meanings": "none" if config.generation.select.meaning is None else model,
        "scores": ", ".join(config.generation.select.by.asked),
    }
    if config.generation.engine.kind != "server":
        found["writer precision"] = config.model.dtype
    if (program := config.generation.instances.chooser_program) is not None:
        found["generation.instances.chooser_program"] = _of_texts([program.read_text("utf-8")])
    for suite in suites:
        references = repr(suite.references) if suite.references else ""
        found[f"suite {suite.name}"] = _of_texts([_of_rows(suite.tasks), references])
    if (judge := config.evaluation.judge) is not None:
        engine = judge.engine or config.generation.engine
        name = judge.model.name_or_path if judge.model else config.model.name_or_path
        own = model if judge.model is None else name
        prompts = load_judge_prompts(judge, config.generation.prompts)
        found["judge"] = _of_texts(
            [
                _who_answers(engine, name, own),
                prompts.pairwise,
                prompts.grade,
                prompts.marks.model_dump_json(),
            ]
        )
    return found


def _steering(config: Config) -> str:
    """What is drawn for requests of step 1: as a whole, for its names are the user's own."""
    generation = config.generation
    offered = {"attributes": generation.attributes, "personas": read_personas(generation.personas)}
    if generation.augment.share:
        offered["operations"] = generation.augment.operations
    return json.dumps(offered, ensure_ascii=False)


def _toxicity(config: ToxicityConfig | None) -> str:
    """What drops as toxic, wherever its model lies."""
    if config is None:
        return "none"
    identity = model_identity(str(Path(config.model).expanduser()), config.revision)
    return _of_texts([identity, config.label, str(config.threshold)])


def _who_answers(engine: EngineConfig, name: str, here: str) -> str:
    # Only the server knows what its model's weights hold.
    return f"{engine.server_model or name} of a server" if engine.kind == "server" else here


def _of_rows(rows: Iterable[BaseModel]) -> str:
    return _of_texts(row.model_dump_json() for row in rows)


def _of_folder(folder: Path) -> str:
    # The judge's prompts lie beside those of the writer.
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("judge"))
    return _of_texts(text for file in files for text in (file.name, file.read_text("utf-8")))


def _of_texts(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
