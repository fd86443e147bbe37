"""Laws of the plan: its arithmetic, what it measures, and that its advice works."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from typer.testing import CliRunner

from selfinstruct_train.cli.app import app
from selfinstruct_train.config import dump_config, load_config
from selfinstruct_train.errors import RunError
from selfinstruct_train.planning.compare import compare, write_forecast
from selfinstruct_train.planning.expected import Expected, recorded
from selfinstruct_train.planning.hardware import Hardware, asking_seconds, gpu, training_seconds
from selfinstruct_train.planning.measured import compared
from selfinstruct_train.planning.memory import (
    training_memory,
    training_shortage,
    writing_memory,
)
from selfinstruct_train.planning.plan import Plan, make_plan
from selfinstruct_train.planning.sizes import ModelSize, PromptSize, TextSizes, model_size
from selfinstruct_train.planning.training_work import padding_factor, training_work
from selfinstruct_train.planning.words import plan_lines
from selfinstruct_train.planning.workload import (
    Asked,
    Trained,
    generation_work,
    room,
)
from selfinstruct_train.rounds.held_out import with_held_out
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.training.adapter import attach_adapter
from tests.helpers.small_models import loaded_model, settings

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
SIZE = ModelSize(
    parameters=1000,
    embedding=200,
    tied=False,
    adapter=50,
    layers=2,
    hidden=8,
    query_width=8,
    key_width=4,
    intermediate=16,
    vocabulary=25,
)
TEXTS = TextSizes(
    instructions=PromptSize(100.0, 10.0),
    classification=PromptSize(200.0, 180.0),
    input_first=PromptSize(300.0, 280.0),
    output_first=PromptSize(250.0, 230.0),
    answer=PromptSize(310.0, 280.0),
    few_shot=PromptSize(310.0, 280.0),
    item=10.0,
    instance=20.0,
    output=5.0,
    rows=(30, 50),
    calibrated=6,
)
EXPECTED = Expected(
    list_fill=1.0,
    acceptance=0.5,
    with_instance=0.8,
    classification=0.25,
    written_instances=2.0,
    kept_instances=1.5,
    instruction_length=1.0,
    instances_length=1.0,
)


def plan(*overrides: str, **options: object) -> Plan:
    return make_plan(load_config(QUICKSTART, overrides), **options)  # type: ignore[arg-type]


def test_requests_and_tokens_are_those_worked_out_by_hand() -> None:
    config = load_config(QUICKSTART, ["generation.instructions_per_round=280", "rounds=1"])
    per_list = room(config, seeds=175)
    assert per_list == 16 - 1 - 8
    lists, kinds, instances = generation_work(config, EXPECTED, TEXTS, per_list)
    # 280 with an instance are 350 accepted, 700 candidates, 100 lists of 7.
    assert (lists.requests, lists.prompt_tokens, lists.completion_tokens) == (100, 10_000, 7_000)
    assert lists.shared_tokens == 99 * 10
    assert (kinds.requests, kinds.prompt_tokens) == (350 + 6 + 4, 360 * 200)
    # 262.5 others and 87.5 labelled, 40 tokens each; 525 answers of the others asked again.
    assert instances.requests == 350 + 525
    assert instances.completion_tokens == 350 * 40 + 525 * 5
    (training, seeds) = training_work(config, EXPECTED, TEXTS, per_list, own=0)
    assert (training.rows, training.steps) == (round(350 * 1.5) + 2, 200)
    assert training.tokens == 200 * 16 * 40
    # Three passes over two rows are one step of sixteen.
    assert (seeds.trainings, seeds.steps) == (2, 200 + 1)


def test_what_a_chat_model_writes_of_its_own_accord_is_planned_by_what_one_wrote() -> None:
    style = ["generation.instructions.style=magpie", "generation.instances.style=magpie"]
    config = load_config(QUICKSTART, ["generation.instructions_per_round=60", "rounds=1", *style])
    expected = recorded(config)
    assert expected != Expected() == recorded(load_config(QUICKSTART, style[:1]))
    assert room(config, seeds=175) == 1
    lists, _, instances = generation_work(config, expected, TEXTS, 1)
    # 60 with an instance are 100 accepted, of which 76 are asked again; the limit is 160 tokens.
    assert lists.requests == round(100 / expected.acceptance / expected.list_fill)
    assert instances.completion_tokens == round(100 * expected.own_answer * 160) + 76 * 5


def test_a_run_of_less_than_half_a_list_takes_a_request() -> None:
    config = load_config(QUICKSTART, ["generation.instructions_per_round=1", "rounds=1"])
    lists, *_ = generation_work(config, EXPECTED, TEXTS, 7)
    assert (lists.requests, lists.completion_tokens) == (1, 25)


def test_the_cap_on_requests_caps_what_is_written() -> None:
    config = load_config(QUICKSTART, ["generation.max_requests=10", "rounds=1"])
    lists, *_ = generation_work(config, EXPECTED, TEXTS, 7)
    assert lists.requests == 10


def test_padding_is_none_for_rows_of_one_length_and_less_where_a_step_is_cut() -> None:
    assert padding_factor((40, 40), 16, 16) == 1.0
    assert padding_factor((10, 90), 16, 16) > 1.5
    assert 1.0 < padding_factor((10, 90), 16, 4) < 1.3
    assert padding_factor((10, 90), 16, 1) == 1.0


def test_seconds_are_those_worked_out_by_hand() -> None:
    machine = Hardware("cpu", 1e9, 1000.0, 1000.0, 500.0, 100.0, 0.0, 0.0, "")
    # Without tokens to look back on: 800 parameters that are multiplied, 2 operations each.
    work = Trained(
        stage="training",
        trainings=1,
        rows=1,
        steps=1,
        tokens=10,
        computed_tokens=10,
        row_tokens=0.0,
        passes=2,
    )
    assert training_seconds(work, machine, SIZE) == 10 * (2 * 1600 + 6 * 50) / 1000
    asked = Asked(
        stage="instances",
        requests=4,
        prompt_tokens=0,
        shared_tokens=0,
        completion_tokens=40,
        at_once=2,
        longest=10,
    )
    # 20 steps, each the larger of 2 x 1600 / 500 and 800 x 4 / 100 seconds.
    assert asking_seconds(asked, machine, SIZE, 4) == 20 * 32.0


def kept_for_backward(tokens: int) -> tuple[int, ModelSize]:
    """Bytes that a real model with adapters keeps for its backward pass."""
    model = loaded_model().model
    base = model.num_parameters()
    training = settings(lora_dropout=0.0)
    tuned = attach_adapter(model, training, 0, None)
    weights = {p.untyped_storage().data_ptr() for p in tuned.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = tuned.get_base_model().model(
            torch.ones((4, tokens), dtype=torch.long), use_cache=False
        )
    adapter = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    assert hidden is not None
    return sum(kept.values()), model_size(model.config, base, adapter)


def test_activations_are_those_that_a_real_model_keeps() -> None:
    measured, size = kept_for_backward(tokens=64)
    config = load_config(QUICKSTART, ["training.micro_batch_size=4"])
    predicted = training_memory(config, size, 4, 4, tokens=64).activations
    assert 0.75 < predicted / measured < 1.25


def test_all_weights_take_sixteen_bytes_each_beside_the_base_that_writes() -> None:
    size = SIZE.model_copy(update={"adapter": SIZE.parameters})
    config = load_config(QUICKSTART, ["training.adapter=none"])
    found = training_memory(config, size, 2, 2, tokens=64)
    assert found.weights == (2 + 4) * SIZE.parameters
    assert found.adapter + found.optimizer == (4 + 8) * SIZE.parameters
    served = load_config(QUICKSTART, ["training.adapter=none", "generation.engine.kind=server"])
    assert training_memory(served, size, 2, 2, tokens=64).weights == 4 * SIZE.parameters


def test_a_model_is_counted_as_it_is() -> None:
    model = loaded_model().model
    size = model_size(model.config, model.num_parameters(), 0)
    looked_up = model.get_input_embeddings().weight.numel()
    assert size.multiplied == model.num_parameters() - looked_up


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("rounds", (1, 2, 3)),
        ("generation.instructions_per_round", (100, 400, 900)),
        ("training.max_steps", (100, 200, 400)),
        ("evaluation.few_shot_demonstrations", (0, 6)),
    ],
)
def test_more_is_never_cheaper(key: str, values: Sequence[int]) -> None:
    plans = [plan(f"{key}={value}", price=2.0) for value in values]
    costs = [found.hours for found in plans]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    assert all(found.cost == round(found.hours * 2.0, 2) for found in plans)


def test_the_setting_that_is_named_mends_what_does_not_fit() -> None:
    config = load_config(QUICKSTART)
    whole = training_memory(config, SIZE, 4, 4, tokens=100_000).total
    halved = config.training.model_copy(update={"micro_batch_size": 8})
    fixed = config.model_copy(update={"training": halved})
    room_for_half = training_memory(fixed, SIZE, 4, 4, tokens=100_000).total
    assert room_for_half < whole
    machine = gpu("L4", True)._replace(memory=float(room_for_half))
    found = training_shortage(config, SIZE, 4, 4, 100_000, machine)
    assert found is not None and found.fix == "set training.micro_batch_size=8"
    assert training_shortage(fixed, SIZE, 4, 4, 100_000, machine) is None


def test_keys_and_values_grow_with_the_rows_under_way() -> None:
    lists, *_ = generation_work(load_config(QUICKSTART), EXPECTED, TEXTS, 7)
    one, many = (writing_memory(lists, SIZE, 4, rows).cache for rows in (1, 16))
    # Two layers, a key and a value of 4 numbers in float32 a token.
    assert many - one == 15 * lists.longest * 2 * 2 * 4 * 4


def test_a_server_is_billed_for_what_it_reads_and_writes_and_costs_no_time_here() -> None:
    served = plan("generation.engine.kind=server")
    writing = [work for work in served.asked if work.stage != "evaluation"]
    assert served.served_prompt_tokens == sum(work.prompt_tokens for work in writing) > 0
    assert {stage.stage for stage in served.stages} == {
        "evaluation",
        "training",
        "seeds-only training",
    }


def test_batches_are_counted_and_their_price_is_said() -> None:
    settings = ["generation.engine={kind: server, server_mode: batch}", "rounds=1"]
    settings += ["generation.instances.requests_per_batch=100000"]
    found = plan(*settings, "generation.instructions.requests_per_batch=1")
    lists, kinds, _ = found.asked[:3]
    config = load_config(QUICKSTART).generation
    several = -(-kinds.requests // config.classification.requests_per_batch)
    assert found.batches == lists.requests + several + 1
    assert any("half the price" in line for line in plan_lines(found))
    assert plan("generation.engine.kind=server").batches is None


def test_the_command_says_that_it_estimates_and_from_what() -> None:
    told = CliRunner().invoke(app, ["plan", str(QUICKSTART), "--on", "L4", "--price", "0.8"])
    assert told.exit_code == 0, told.output
    assert "estimate" in told.output and "roofline" in told.output
    assert "94% of candidates accepted" in told.output
    figures = CliRunner().invoke(app, ["plan", str(QUICKSTART), "--json"])
    found = Plan.model_validate(json.loads(figures.output))
    assert found.machine == "cpu" and "Zen 4" in found.basis


def test_a_forecast_is_held_against_the_marks_of_finished_rounds(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, [f"output_dir={tmp_path}"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    with pytest.raises(RunError, match="no round has been evaluated"):
        compare(tmp_path)
    first = RunDirectory(tmp_path).round(0)
    first.path.mkdir()
    for stage, seconds in (("instructions", 50.0), ("classification", 50.5), ("instances", 51.0)):
        first.finish(stage, seconds, requests=130, completion_tokens=1000)
    first.finish("train", 40.0, steps=200)
    first.finish("evaluate", 9.0, suites=2)
    found = {row.figure: row for row in compare(tmp_path)}
    # The second round of the config has not been run, so it is not in the forecast.
    assert found["steps of training"].ratio == 1.0
    assert found["steps 1 to 3: seconds"].measured == 51.0
    assert found["evaluation: seconds"].measured == 9.0
    assert found["steps on seeds only"].ratio is None
    write_forecast(RunDirectory(tmp_path))
    assert compared(RunDirectory(tmp_path)) == compare(tmp_path)


def test_a_server_s_seconds_are_not_held_against_a_forecast_that_nobody_can_make(
    tmp_path: Path,
) -> None:
    config = load_config(QUICKSTART, [f"output_dir={tmp_path}", "generation.engine.kind=server"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    first = RunDirectory(tmp_path).round(0)
    first.path.mkdir()
    first.finish("evaluate", 9.0, suites=2)
    figures = {row.figure for row in compare(tmp_path)}
    assert "evaluation: seconds" in figures and "steps 1 to 3: seconds" not in figures


def test_held_out_seeds_are_counted_once_in_the_config_that_a_run_saves() -> None:
    config = load_config(QUICKSTART, ["seeds.hold_out=0.1"])
    assert make_plan(with_held_out(config)).asked == make_plan(config).asked
