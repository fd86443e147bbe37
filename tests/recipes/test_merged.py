"""Rounds on top of merged ones, through the whole loop: one adapter of the base, wherever used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.conftest import cli, command, execute, require_a_base_that_stays

MERGED = (
    "rounds=2",
    "training.start=merged",
    "training.rows_of=this_round",
    "training.lora_r=4",
    "training.lora_alpha=8",
    "training.max_steps=20",
    "evaluation.seeds_only=false",
    "generation.instance_writer=tuned",
)


@pytest.mark.slow
def test_each_round_leaves_an_adapter_of_the_base_that_holds_the_rounds_before(
    suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = execute(command(*cli("run"), suite=suite, run=run, more=MERGED), timeout=900)
    assert done.returncode == 0, done.stderr
    adapters = [run / f"round-{n}/adapter" for n in (0, 1)]
    ranks = [json.loads((a / "adapter_config.json").read_text("utf-8"))["r"] for a in adapters]
    assert ranks == [4, 8]
    first, second = (load_file(a / "adapter_model.safetensors") for a in adapters)
    for name, weight in first.items():
        assert torch.equal(second[name].narrow(int("lora_B" in name), 0, 4), weight), name
    read = [json.loads(line) for line in (run / "round-1/instances.jsonl").open()]
    assert {row["provenance"]["adapter"] for row in read} == {"round-0/adapter"}
    require_a_base_that_stays(run)
    for more in ((), ("--merge",)):
        # Merged weights are held against base and adapter, and refused where they differ.
        written = execute([*cli("export", "model", str(run), "--round", "1"), *more])
        assert written.returncode == 0, written.stderr
    exported = load_file(run / "export/model/adapter_model.safetensors")
    assert all(torch.equal(exported[name], weight) for name, weight in second.items())
    again = execute(command(*cli("run"), suite=suite, run=run, more=MERGED), timeout=900)
    assert again.returncode == 0, again.stderr
    assert (load_file(adapters[1] / "adapter_model.safetensors")[name] == second[name]).all()
