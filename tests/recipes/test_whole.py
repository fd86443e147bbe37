"""The whole loop with full fine-tuning: each round's model is a whole one, wherever it is used."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.recipes.conftest import cli, command, execute, require_a_base_that_stays

WHOLE = (
    "rounds=2",
    "training.adapter=none",
    "training.learning_rate=1e-3",
    "training.max_steps=30",
    "evaluation.seeds_only=false",
    "training.start=previous",
    "generation.instance_writer=tuned",
)


@pytest.mark.slow
def test_a_tuned_model_without_an_adapter_is_measured_writes_and_is_exported(
    suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = execute(command(*cli("run"), suite=suite, run=run, more=WHOLE), timeout=900)
    assert done.returncode == 0, done.stderr
    for folder in (run / "round-0", run / "round-1"):
        files = {path.name for path in (folder / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "training.json"} <= files
        assert not (folder / "adapter").exists() and not (folder / "checkpoints").exists()
    read = [json.loads(line) for line in (run / "round-1/instances.jsonl").open()]
    assert {row["provenance"]["adapter"] for row in read} == {"round-0/model"}
    require_a_base_that_stays(run)

    written = execute([*cli("export", "model", str(run), "--round", "1")])
    assert written.returncode == 0, written.stderr
    exported = load_file(run / "export/model/model.safetensors")
    trained = load_file(run / "round-1/model/model.safetensors")
    assert all((exported[name] == weight).all() for name, weight in trained.items())
    again = execute(command(*cli("run"), suite=suite, run=run, more=WHOLE))
    assert again.returncode == 0, again.stderr
    lora = execute(
        command(*cli("train"), suite=suite, run=run, more=(*WHOLE, "training.adapter=lora"))
    )
    assert lora.returncode == 2 and "training.adapter: none -> lora" in lora.stderr
