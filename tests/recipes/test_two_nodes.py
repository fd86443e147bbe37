"""Two machines on one network: they meet, work together, and end in time when the link is cut."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.two_nodes import TwoNodes, two_nodes, why_not
from tests.recipes.conftest import contents, small_run

pytestmark = pytest.mark.slow
_LIMIT = 1800
"""Seconds that a whole run may take on a machine that others use too."""
_TIMEOUT_MINUTES = 2.0
"""The least that the settings allow."""
_CLEAN_UP = 120.0
"""Seconds beyond the time-out in which the launchers notice that their processes have ended."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with two_nodes() as made:
        yield made


def start(nodes: TwoNodes, suite: Path, run: Path) -> list[subprocess.Popen[str]]:
    more = ("rounds=1", f"process_timeout_minutes={_TIMEOUT_MINUTES}")
    more += ("generation.instructions_per_round=2", "training.max_steps=4", "training.save_steps=1")
    more += ("training.logging_steps=1", "evaluation.seeds_only=false", "evaluation.max_tokens=4")
    more += ("evaluation.few_shot_demonstrations=0",)
    arguments = ["recipes/self_instruct.py", "--config", *small_run(suite, run, more)]
    return [nodes.launch(rank, arguments) for rank in range(2)]


def ended(processes: list[subprocess.Popen[str]], seconds: float) -> list[str]:
    """What each node said, once all have ended; a node that has not fails the test."""
    end = time.monotonic() + seconds
    try:
        return [p.communicate(timeout=max(1.0, end - time.monotonic()))[0] for p in processes]
    finally:
        for process in processes:
            process.kill()


def wait_for(path: Path, processes: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + _LIMIT
    while not list(path.parent.glob(path.name)) and time.monotonic() < end:
        assert all(p.poll() is None for p in processes), ended(processes, 60)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(nodes: TwoNodes, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    processes = start(nodes, suite, run)
    said = ended(processes, _LIMIT)
    assert [p.returncode for p in processes] == [0, 0], said
    assert "report:" in said[0] and "report:" not in said[1]
    return run


@pytest.mark.parametrize(
    ("stage", "sign"),
    [("generate", "completions/instructions.jsonl"), ("train", "checkpoints/checkpoint-1*")],
)
def test_a_link_that_is_cut_ends_both_nodes_in_time_and_the_same_command_goes_on(
    nodes: TwoNodes, suite: Path, undisturbed: Path, tmp_path: Path, stage: str, sign: str
) -> None:
    run = tmp_path / "run"
    processes = start(nodes, suite, run)
    wait_for(run / "round-0" / sign, processes)
    nodes.pull()
    try:
        said = ended(processes, _TIMEOUT_MINUTES * 60 + _CLEAN_UP)
    finally:
        nodes.plug()
    assert all(p.returncode not in (0, None) for p in processes), said
    # The last node to notice may be ended by its launcher, so one of both says why.
    assert any("run the same command again" in text for text in said), said
    again = start(nodes, suite, run)
    told = ended(again, _LIMIT)
    assert [p.returncode for p in again] == [0, 0], told
    assert contents(run) == contents(undisturbed)


def test_a_node_that_waits_for_another_in_vain_ends_when_its_launcher_says(
    nodes: TwoNodes, tmp_path: Path
) -> None:
    program = tmp_path / "never.py"
    program.write_text("raise SystemExit('it has begun alone')\n")
    nodes.pull()
    try:
        process = nodes.launch(0, [str(program)], "--rdzv_conf", "timeout=15")
        (said,) = ended([process], 240)
    finally:
        nodes.plug()
    assert process.returncode not in (0, None)
    assert "it has begun alone" not in said
