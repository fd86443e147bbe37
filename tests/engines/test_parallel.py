"""Two processes ask together: none waits for ever, and all see the same."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    """What each of the two processes saw."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    meeting |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "helpers" / "asking_together.py")],
            env=os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output) for output, _ in ended]


def test_both_processes_see_the_same(outcomes: list[dict[str, Any]]) -> None:
    assert outcomes[0] == outcomes[1]


def test_a_process_that_takes_longer_is_waited_for_and_the_order_is_that_of_the_requests(
    outcomes: list[dict[str, Any]],
) -> None:
    assert outcomes[0]["uneven"] == [["a", "A by 0"], ["slow", "SLOW by 1"], ["c", "C by 0"]]
    assert outcomes[0]["fewer than processes"] == [["a", "A by 0"]]


def test_an_error_of_one_process_is_raised_on_both_and_they_can_go_on(
    outcomes: list[dict[str, Any]],
) -> None:
    for seen in outcomes:
        assert seen["failed"] == "request bad: no"
        assert "cannot be sent" in seen["failed unsendably"]
        assert seen["again"] == [["a", "A by 0"], ["b", "B by 1"]]


def test_scores_and_the_rest_are_those_of_the_engine(outcomes: list[dict[str, Any]]) -> None:
    assert outcomes[0]["scores"] == [[1.0], [2.0], [3.0]]
    assert (outcomes[0]["closed"], outcomes[0]["tokens"]) == (1, [2])


def test_a_servers_replies_are_passed_on_as_they_arrive_and_asked_for_by_one_process(
    outcomes: list[dict[str, Any]],
) -> None:
    assert outcomes[0]["served"] == [["A by 0", False], ["SLOW by 0", True]]
    assert outcomes[0]["served until it failed"] == ["B by 0", "request bad: no"]
    assert outcomes[0]["served scores"] == [[1.0], [2.0], [3.0]]
    assert outcomes[0]["asked the server"] == [4, 0]
