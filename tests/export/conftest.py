from pathlib import Path

import pytest

from selfinstruct_train.config import Config
from selfinstruct_train.records import (
    Attribute,
    GeneratedInstance,
    Instruction,
    Neighbour,
    Provenance,
    Sampling,
)
from selfinstruct_train.run.directory import RunDirectory

HOSTILE = "```\n---\n<script>alert(1)</script>\u001b[31m | \u2028"


def provenance(number: int = 0) -> Provenance:
    return Provenance(
        round=0,
        request=f"r0-{number}",
        demonstrations=("mw_seed_0", "mw_seed_1"),
        sampling=Sampling(max_tokens=40, temperature=1.0),
        model="embedded",
        prompt_hash="0123456789abcdef",
    )


def write_run(path: Path, category: str | None = "music", **settings: object) -> RunDirectory:
    """A run whose model wrote ten instructions of a category, with two instances each."""
    run = RunDirectory(path)
    run.open(
        Config.model_validate(
            {
                "model": {"name_or_path": "embedded"},
                "seeds": {"path": "microworld-seeds"},
                "evaluation": {"suites": ["microworld-dev"]},
                "output_dir": str(path),
            }
            | settings
        )
    )
    directory = run.round(0)
    directory.store(directory.instructions, Instruction).emit(
        Instruction(
            id=f"i{n}",
            instruction=f"Hum tune {n}.",
            nearest=Neighbour(id="mw_seed_1", instruction="Sing.", score=0.2),
            provenance=provenance(n).model_copy(
                update={"attributes": (Attribute(name="mood", value="glad"),)}
            ),
            category=category,
        )
        for n in range(10)
    )
    directory.store(directory.instances, GeneratedInstance).emit(
        GeneratedInstance(
            id=f"i{n}#{k}",
            instruction_id=f"i{n}",
            instruction=f"Hum tune {n}.",
            input="" if k else f"la {n}",
            output=f"lo {n} {k} {HOSTILE}",
            is_classification=n < 3,
            provenance=provenance(n),
        )
        for n in range(10)
        for k in range(2)
    )
    for stage in ("instructions", "classification", "instances"):
        directory.finish(stage, 0.1)
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return write_run(tmp_path / "run")
