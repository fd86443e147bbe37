"""Laws of several servers of one model: all are used, none that is down costs an answer."""

import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.server.engine import ServerEngine
from selfinstruct_train.engines.server.servers import SAMENESS_PROMPT, Likeliest, differ
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.records import Sampling
from tests.helpers.answering_server import Answer, Server, StartServer, reply, shout


def engine(urls: list[str], **settings: Any) -> ServerEngine:
    asked = {"api_key_variable": "WRITER_KEY", "max_retries": 2, "concurrency": 3} | settings
    return ServerEngine(EngineConfig(base_urls=tuple(urls), **asked), "org/model", 64)


def requests(count: int) -> list[Request]:
    return [Request(f"r{i}", f"p{i}", Sampling(max_tokens=8)) for i in range(count)]


def texts(given: ServerEngine, count: int) -> dict[str, str]:
    return {completion.id: completion.text for completion in given.generate(requests(count))}


def expected(count: int) -> dict[str, str]:
    return {f"r{i}": f"P{i}" for i in range(count)}


def asked(server: Server) -> list[str]:
    """Prompts of the run that came to a server."""
    return [body["prompt"] for body in server.bodies if body["prompt"] != SAMENESS_PROMPT]


def unused_address() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


def slowly(seconds: float) -> Callable[[dict[str, Any], int], Answer]:
    def answer(body: dict[str, Any], number: int) -> Answer:
        time.sleep(seconds)
        return shout(body, number)

    return answer


def test_each_server_gets_as_much_as_it_gets_done_and_no_more_than_it_may_hold(
    start: StartServer,
) -> None:
    most_is_done = threading.Event()

    def fast(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.01)
        if number == 50:
            most_is_done.set()
        return shout(body, number)

    def slow(body: dict[str, Any], number: int) -> Answer:
        # The first is the question by which the models are compared.
        assert number == 0 or most_is_done.wait(60)
        return shout(body, number)

    one, other = start(fast), start(slow)
    assert texts(engine([one.url, other.url]), 60) == expected(60)
    assert sorted(asked(one) + asked(other)) == sorted(f"p{i}" for i in range(60)), "each once"
    assert len(asked(one)) >= 50
    assert one.most_at_once <= other.most_at_once == 3


def test_a_server_that_is_down_from_the_start_costs_no_answer_and_one_line(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    up, down = start(shout), unused_address()
    with caplog.at_level(logging.WARNING):
        assert texts(engine([down, up.url], max_retries=0), 20) == expected(20)
    told = [record.getMessage() for record in caplog.records if down in record.getMessage()]
    assert len(told) == 1 and "cannot be reached" in told[0]
    assert told[0].endswith("the other servers take over")


def test_a_server_that_dies_under_way_hands_its_questions_to_the_others(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    def dies(body: dict[str, Any], number: int) -> Answer:
        return slowly(0.02)(body, number) if number < 4 else Answer("", 502)

    dying, healthy = start(dies), start(slowly(0.02))
    with caplog.at_level(logging.WARNING):
        assert texts(engine([dying.url, healthy.url], max_retries=0), 40) == expected(40)
    told = [r.getMessage() for r in caplog.records if "take over" in r.getMessage()]
    assert len(told) == 1 and dying.url in told[0]


def test_a_server_that_comes_back_is_tried_by_one_question_and_then_used_again(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    def flaky(body: dict[str, Any], number: int) -> Answer:
        return Answer("", 503) if 2 <= number < 7 else slowly(0.02)(body, number)

    first, second = start(flaky), start(slowly(0.02))
    with caplog.at_level(logging.WARNING):
        assert texts(engine([first.url, second.url]), 300) == expected(300)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith("the other servers take over") and len(told) == 2
    assert told[1] == f"{first.url}: answers again"
    assert len(asked(first)) > 20, "used again as before"


def test_when_all_are_down_the_tries_are_counted_as_with_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = engine([unused_address(), unused_address()], max_retries=1)
    with pytest.raises(EngineError, match=r"cannot be reached.*generation\.engine\.base_urls"):
        texts(given, 4)


def likeliest(first: float, *others: str) -> Callable[[dict[str, Any], int], Answer]:
    """Answers with log-probabilities, as a model of its own."""
    rest = {token: -3.0 - i for i, token in enumerate(others)}

    def answer(body: dict[str, Any], number: int) -> Answer:
        top = {" river": first, **rest}
        logprobs = {"tokens": [" river"], "token_logprobs": [first], "top_logprobs": [top]}
        if body["prompt"] != SAMENESS_PROMPT:
            return shout(body, number)
        assert (body["max_tokens"], body["temperature"]) == (1, 0.0)
        return Answer(reply(" river", logprobs=logprobs))

    return answer


def test_servers_of_other_models_are_refused_before_anything_is_asked(start: StartServer) -> None:
    one, other = start(likeliest(-0.5, " sea")), start(likeliest(-1.5, " sea"))
    with pytest.raises(ConfigError, match="do not serve the same model.*river") as caught:
        texts(engine([one.url, other.url]), 6)
    assert one.url in str(caught.value) and other.url in str(caught.value)
    assert asked(one) == asked(other) == []


def test_a_server_that_comes_back_with_another_model_is_refused(start: StartServer) -> None:
    changed = threading.Event()

    def swaps(body: dict[str, Any], number: int) -> Answer:
        if number == 3:
            changed.set()
            return Answer("", 502)
        return likeliest(-1.5 if changed.is_set() else -0.5, " sea")(body, number)

    one, other = start(likeliest(-0.5, " sea")), start(swaps)
    given = engine([one.url, other.url])
    with pytest.raises(ConfigError, match="do not serve the same model"):
        for _ in range(50):
            texts(given, 10)
            time.sleep(0.01)


def test_rounding_and_the_last_of_the_likeliest_do_not_make_models_differ() -> None:
    one = Likeliest(" a", {" a": -0.5, " b": -1.5, " c": -4.0})
    assert differ(one, Likeliest(" a", {" a": -0.52, " b": -1.47, " d": -4.01})) is None
    assert differ(one, Likeliest(" x", {})) is None, "no log-probabilities, nothing decided"
    assert differ(one, Likeliest(" x", {" x": -0.5, " y": -1.5, " z": -4.0})) is not None
    assert differ(one, Likeliest(" a", {" a": math.log(0.3), " b": -1.5, " c": -4.0})) is not None


def test_a_server_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="name each server once"):
        EngineConfig(base_urls=("http://a/v1", "http://a/v1"))


def test_an_address_with_a_secret_is_refused_in_a_list_too_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="must not hold a user"):
        EngineConfig(base_urls=("http://me:hidden@a/v1",))
