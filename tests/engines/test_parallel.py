"""Two processes ask together: none waits for ever, and all see the same."""

import json
from typing import Any

import pytest

from tests.helpers.processes import run_on_two


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    """What each of the two processes saw."""
    outputs = run_on_two("asking_together.py", seconds=120)
    return [json.loads(output) for output in outputs]


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
