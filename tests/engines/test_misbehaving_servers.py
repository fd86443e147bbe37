"""Whatever a server does: good text is kept, the rest is tried again or told in one sentence."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.server import client
from selfinstruct_train.engines.server.connection import is_this_machine
from selfinstruct_train.engines.server.engine import ServerEngine
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.records import Sampling
from tests.helpers.misbehaving_server import (
    Act,
    MisbehavingServer,
    cuts,
    dribbles,
    floods,
    hangs_up,
    says,
    slow_body,
    slow_head,
)

Play = Callable[[Sequence[Act]], MisbehavingServer]
GOOD: dict[str, Any] = {"choices": [{"text": "fine", "finish_reason": "stop"}]}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    started: list[MisbehavingServer] = []

    def begin(script: Sequence[Act]) -> MisbehavingServer:
        started.append(MisbehavingServer(script))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def ask(url: str, **settings: Any) -> Completion:
    config = EngineConfig(**{"base_url": url, "max_retries": 2} | settings)
    request = Request("r", "prompt", Sampling(max_tokens=5))
    (completion,) = ServerEngine(config, "org/model", 64).generate([request])
    return completion


@pytest.mark.parametrize(
    "act",
    [
        says({"error": {"message": "overloaded", "code": 503}}),
        says({"error": {"message": "overloaded", "type": "server_error", "code": None}}),
        says({"error": "CUDA out of memory"}),
        says({"object": "error", "message": "busy", "code": 50001}),
        says(""),
        says("  \n"),
        says("null"),
        says('{"choices": [{"text": "fi'),
        says('{"choices": []}'),
        says('{"choices": null}'),
        says("[" * 100_000),
        cuts(GOOD, 20),
        cuts(GOOD, 0),
        hangs_up,
        says({"error": {"message": "Conflict"}}, 409),
        says("Conflict", 409),
        says({"error": "Model org/model is currently loading", "estimated_time": 20.0}, 404),
        says({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503),
        says({"message": "Model is loading"}, 400),
        says({"error": {"message": "Model is loading"}}),
        says("", 425),
        says("<html>Bad gateway</html>", 502),
        says({"choices": [{"text": "", "error": {"message": "overloaded", "code": 502}}]}),
        says({"choices": [{"message": {"content": None}, "error": {"message": "overloaded"}}]}),
    ],
)
def test_what_passes_is_tried_again(play: Play, act: Act) -> None:
    server = play([act, act, says(GOOD)])
    assert ask(server.url).text == "fine"
    assert server.requests == 3


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (says({"error": {"message": "bad key", "code": 401}}), "environment variable"),
        (says({"error": {"message": "no such model", "code": 404}}), "server_model"),
        (says({"error": {"message": "max_tokens is too large", "code": 400}}), "max_tokens"),
        (says("<html>Welcome</html>"), "not a completion"),
        (says("[]"), "not a completion"),
        (says("17"), "not a completion"),
        (says({"hello": "world"}), "not a completion"),
        (
            says({"choices": [{"text": "", "error": {"message": "too long", "code": 400}}]}),
            "status 400 .*too long",
        ),
    ],
)
def test_what_lasts_is_told_at_once(play: Play, act: Act, sentence: str) -> None:
    server = play([act])
    with pytest.raises(EngineError, match=sentence) as caught:
        ask(server.url)
    assert "\n" not in str(caught.value)
    assert server.requests == 1


def good(usage: Any = None, **choice: Any) -> Act:
    return says({"choices": [GOOD["choices"][0] | choice], "usage": usage})


TOKEN = {"token": "fine", "logprob": -0.5}


@pytest.mark.parametrize(
    "act",
    [
        good({}),
        good({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}),
        good({"prompt_tokens": "many"}),
        good({"prompt_tokens": -1, "completion_tokens": -1}),
        good([]),
        good("none"),
        good(logprobs=[]),
        good(logprobs={}),
        good(logprobs="none"),
        good(logprobs={"tokens": ["fine"], "token_logprobs": [None], "top_logprobs": None}),
        good(logprobs={"tokens": ["fine"], "token_logprobs": None, "top_logprobs": [None]}),
        good(logprobs={"tokens": None, "token_logprobs": None, "top_logprobs": [{"a": None}]}),
        good(logprobs={"content": None}),
        good(logprobs={"content": [TOKEN | {"logprob": None, "top_logprobs": None}]}),
        good(logprobs={"content": [{"token": None, "logprob": None}]}),
        good(logprobs={"content": {}}),
        good(finish_reason=None),
        good(finish_reason={"type": "stop"}),
        good(stop_reason=[1]),
        good(index=None),
        says({"choices": [{"text": "fine"}, {"broken": True}], "error": None}),
        says({"choices": [{"message": {"content": "fine", "tool_calls": None}}], "usage": {}}),
        says({"choices": [{"message": {"content": [{"type": "text", "text": "fine"}]}}]}),
        says(
            {
                "choices": [
                    {
                        "message": {
                            "content": [
                                {"type": "thinking", "thinking": "hm"},
                                {"type": "text", "text": "fi"},
                                "ne",
                            ]
                        }
                    }
                ]
            }
        ),
        says('\ufeff{"choices": [{"text": "fine"}]}'),
    ],
)
def test_optional_figures_are_unknown_and_good_text_is_kept(play: Play, act: Act) -> None:
    server = play([act])
    found = ask(server.url)
    assert (found.text, found.mean_logprob) == ("fine", None)
    assert (found.prompt_tokens, found.completion_tokens) == (3, 2), "estimated from the bytes"
    assert server.requests == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        *((said, "eos") for said in ("STOP", "Stop", "eos", "EOS", "end_turn", "EOS_TOKEN")),
        *((said, "length") for said in ("MAX_TOKENS", "content_filter", "abort", "", None)),
    ],
)
def test_why_a_text_ends_is_read_in_any_case(play: Play, said: str | None, reason: str) -> None:
    assert ask(play([good(finish_reason=said)]).url).finish_reason == reason


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_loses_the_question_is_named(play: Play, status: int) -> None:
    there = play([says("Method Not Allowed", 405)])
    away = there.url.replace("/v1", "/login?key=secret")
    here = play([says("", status, Location=away)])
    with pytest.raises(EngineError, match=rf"sends requests on to {away.partition('?')[0]},") as no:
        ask(here.url)
    assert "generation.engine.base_url" in str(no.value) and "secret" not in str(no.value)


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_question_is_followed(play: Play, status: int) -> None:
    there = play([says(GOOD)])
    here = play([says("", status, Location=there.url + "/completions")])
    assert ask(here.url).text == "fine"


def test_a_proxy_that_is_down_is_named(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(EngineError, match="proxy that HTTP_PROXY names"):
        ask("http://model.example/v1", max_retries=0)
    with pytest.raises(EngineError) as caught:
        ask("http://127.0.0.1:1/v1", max_retries=0)
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("end", ["completions", "completions/", "chat/completions"])
def test_an_address_ends_before_the_endpoint(end: str) -> None:
    with pytest.raises(ValueError, match="must end before /completions"):
        EngineConfig(base_url=f"http://127.0.0.1:8000/v1/{end}")


def test_a_figure_beside_an_unknown_one_is_kept(play: Play) -> None:
    tokens = {"tokens": ["fi", "ne"], "token_logprobs": [-0.5, None], "top_logprobs": None}
    server = play([good({"prompt_tokens": 9, "completion_tokens": None}, logprobs=tokens)])
    found = ask(server.url)
    assert (found.prompt_tokens, found.completion_tokens, found.mean_logprob) == (9, 2, -0.5)


@pytest.mark.parametrize("content", [None, [], {}, [{"type": "refusal", "refusal": "no"}]])
def test_a_message_without_text_is_an_empty_one(play: Play, content: Any) -> None:
    server = play([says({"choices": [{"message": {"content": content}}]})])
    assert ask(server.url, server_endpoint="chat").text == ""


def test_lone_surrogates_are_replaced(play: Play) -> None:
    server = play([says('{"choices": [{"text": "a \\ud83d b \\ud83d\\ude00"}]}')])
    assert ask(server.url).text == "a \ufffd b \U0001f600"


@pytest.mark.parametrize("data", [slow_head(), slow_body()], ids=["headers", "body"])
def test_the_time_out_bounds_the_whole_request(play: Play, data: bytes) -> None:
    server = play([dribbles(data, 0.05)])
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"no answer within 0\.3 s"):
        ask(server.url, timeout_seconds=0.3, max_retries=1)
    assert time.monotonic() - began < 3
    assert server.requests == 2


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_longer_than_the_tokens_can_be_is_refused(play: Play, status: int) -> None:
    server = play([floods(200, status)])
    with pytest.raises(EngineError, match="longer than 1 MB.*max_tokens"):
        ask(server.url)
    assert server.requests == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "127.0.0.1", "localhost"])
def test_this_machine_is_asked_without_a_proxy(
    play: Play, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    if host == "[::]":
        assert is_this_machine("::")
        ServerEngine(EngineConfig(base_url=f"http://{host}:1/v1"), "org/model", 64)
        return
    assert ask(f"http://{host}:{play([says(GOOD)]).port}/v1").text == "fine"


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value",
    [
        "socks5://:secret@127.0.0.1:1080",
        "socks4://x",
        "http://[x",
        "http://a:secret",
        "::::",
        "a b",
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_sentence_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment variable {name}: .*unset it") as caught:
        ServerEngine(EngineConfig(base_url="http://model.example/v1"), "org/model", 64)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv(name, "http://proxy.example:3128")
    ServerEngine(EngineConfig(base_url="http://model.example/v1"), "org/model", 64)


def test_certificates_that_are_not_there_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/does/not/exist.pem")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE.*unset it"):
        ServerEngine(EngineConfig(base_url="https://model.example/v1"), "org/model", 64)
