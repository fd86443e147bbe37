"""The server engine against a real HTTP server on loopback."""

import json
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfinstruct_train.config import EngineConfig, load_config
from selfinstruct_train.engines.asking import Journal, StoredCompletion
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.select import make_engine
from selfinstruct_train.engines.server import client
from selfinstruct_train.engines.server.client import RefusedError
from selfinstruct_train.engines.server.engine import ServerEngine
from selfinstruct_train.engines.server.failures import retry_after
from selfinstruct_train.errors import ConfigError, EngineError
from selfinstruct_train.records import Sampling
from selfinstruct_train.run.stores import RowStore
from tests.helpers.answering_server import KEY, Answer, StartServer, reply, shout
from tests.helpers.small_models import byte_tokenizer

ROOT = Path(__file__).parent.parent.parent


def failure(status: int, said: str, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": said}}, status, names)


def engine(url: str, **settings: Any) -> ServerEngine:
    asked = {"api_key_variable": "WRITER_KEY", "max_retries": 2, "concurrency": 4} | settings
    encode = asked.pop("encode", None)
    return ServerEngine(EngineConfig(base_url=url, **asked), "org/model", 64, encode)


def requests(*prompts: str, **sampling: Any) -> list[Request]:
    settings = Sampling(**{"max_tokens": 8} | sampling)
    return [Request(f"r{i}", prompt, settings) for i, prompt in enumerate(prompts)]


def answers(given: ServerEngine, asked: list[Request]) -> dict[str, Completion]:
    return {completion.id: completion for completion in given.generate(asked)}


def words(texts: Any) -> list[list[int]]:
    """A tokenizer: a token is a word with the blank before it."""
    return [[hash(word) for word in text.replace(" ", "\0 ").split("\0") if word] for text in texts]


def test_every_request_gets_its_own_answer_whatever_the_order(start: StartServer) -> None:
    all_are_asked = threading.Event()

    def later_first(body: dict[str, Any], number: int) -> Answer:
        if number == 5:
            all_are_asked.set()
        if body["prompt"] == "p0":
            assert all_are_asked.wait(60)
            time.sleep(0.3)
        return shout(body, number)

    server = start(later_first)
    asked = requests(*(f"p{i}" for i in range(6)))
    found = list(engine(server.url).generate(asked))
    assert {c.id: c.text for c in found} == {f"r{i}": f"P{i}" for i in range(6)}
    assert found[-1].id == "r0", "answers come as they are finished"
    assert {(c.prompt_tokens, c.completion_tokens) for c in found} == {(7, 3)}


def test_the_settings_of_a_request_are_sent_with_it(start: StartServer) -> None:
    server = start(shout)
    sampling = {"temperature": 0.5, "top_p": 0.9, "stop": ("\n\n",), "seed": 2**40 + 5}
    answers(engine(server.url, server_model="served"), requests("a", **sampling))
    (body,) = server.bodies
    wanted = {"model": "served", "prompt": "a", "max_tokens": 8, "temperature": 0.5}
    wanted |= {"top_p": 0.9, "stop": ["\n\n"], "seed": 5}
    assert {key: body[key] for key in wanted} == wanted
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("dialect", "wanted"),
    [
        ("vllm", {"top_k": 40, "repetition_penalty": 1.2, "min_p": 0.0}),
        ("llama.cpp", {"top_k": 40, "repeat_penalty": 1.2, "min_p": 0.0, "repeat_last_n": 64}),
    ],
)
def test_settings_beyond_the_standard_are_named_as_the_server_names_them(
    start: StartServer, dialect: str, wanted: dict[str, float]
) -> None:
    server = start(shout)
    asked = requests("a", top_k=40, repetition_penalty=1.2)
    answers(engine(server.url, server_dialect=dialect), asked)
    assert {key: server.bodies[0].get(key) for key in wanted} == wanted


def test_transformers_serve_is_told_to_draw_and_how(start: StartServer) -> None:
    server = start(shout)
    given = engine(server.url, server_dialect="transformers")
    answers(given, requests("a", temperature=0.7, top_k=40, repetition_penalty=1.2))
    answers(given, requests("a"))
    drawn, greedy = (json.loads(body["generation_config"]) for body in server.bodies)
    assert drawn == {"do_sample": True, "top_k": 40, "repetition_penalty": 1.2}
    assert greedy == {"do_sample": False, "top_k": 0, "repetition_penalty": 1.0}


def test_the_shipped_server_config_says_whose_words_it_asks_in(start: StartServer) -> None:
    generation = load_config(ROOT / "configs/qwen2.5-1.5b-server.yaml").generation
    server = start(shout)
    given = engine(server.url, server_dialect=generation.engine.server_dialect)
    penalty = generation.instructions.repetition_penalty
    answers(given, requests("a", repetition_penalty=penalty))
    assert server.bodies[0]["repetition_penalty"] == penalty != 1.0


def test_what_is_not_asked_for_is_left_out_and_never_null(start: StartServer) -> None:
    server = start(shout)
    answers(engine(server.url), requests("a"))
    wanted = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "logprobs"}
    assert server.bodies[0].keys() == wanted
    assert None not in server.bodies[0].values()


def chat_reply(text: str | None, **others: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"} | others]}


def test_a_chat_endpoint_gets_the_prompt_as_one_user_message(start: StartServer) -> None:
    server = start(lambda body, n: Answer(chat_reply("hello")))
    asked = requests("a", stop=("\n",), seed=3)
    found = answers(engine(server.url, server_endpoint="chat"), asked)["r0"]
    assert (found.text, found.finish_reason, found.mean_logprob) == ("hello", "stop", None)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "a"}]
    assert (body["stop"], body["seed"]) == (["\n"], 3)
    assert not {"prompt", "logprobs", "echo"} & body.keys()
    assert server.paths == ["/v1/chat/completions"]


def test_a_chat_message_may_be_null(start: StartServer) -> None:
    server = start(lambda body, n: Answer(chat_reply(None)))
    assert answers(engine(server.url, server_endpoint="chat"), requests("a"))["r0"].text == ""


def test_a_chat_is_scored_by_the_first_word_whatever_blank_is_before_it(
    start: StartServer,
) -> None:
    tops = [("Yes", 0.5), (" Yes", 0.25), ("No", 0.125)]
    named = [{"token": token, "logprob": math.log(p)} for token, p in tops]
    content = [{"token": "Yes", "logprob": math.log(0.5), "top_logprobs": named}]
    server = start(lambda body, n: Answer(chat_reply("Yes", logprobs={"content": content})))
    ((yes, no),) = engine(server.url, server_endpoint="chat").score("T:", [" a"], [" Yes", " No"])
    assert (math.exp(yes), math.exp(no)) == (pytest.approx(0.75), pytest.approx(0.125))
    (body,) = server.bodies
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


@pytest.mark.parametrize("setting", [{"top_k": 5}, {"repetition_penalty": 1.1}])
def test_settings_that_a_server_may_ignore_are_refused_before_anything_is_asked(
    start: StartServer, setting: dict[str, float]
) -> None:
    server = start(shout)
    with pytest.raises(ConfigError, match="server_dialect"):
        answers(engine(server.url), requests("a", **setting))
    assert server.bodies == []


def test_no_more_requests_are_under_way_than_allowed(start: StartServer) -> None:
    def slow(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.03)
        return shout(body, number)

    server = start(slow)
    answers(engine(server.url, concurrency=3), requests(*map(str, range(12))))
    assert server.most_at_once == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_failure_is_tried_again(start: StartServer, status: int) -> None:
    server = start(lambda body, n: shout(body, n) if n == 2 else failure(status, "busy"))
    assert answers(engine(server.url), requests("a"))["r0"].text == "A"
    assert len(server.bodies) == 3


def test_a_pause_that_the_server_asks_for_is_kept(start: StartServer) -> None:
    server = start(
        lambda body, n: shout(body, n) if n else failure(429, "slow down", Retry_After="0.4")
    )
    began = time.monotonic()
    answers(engine(server.url), requests("a"))
    assert time.monotonic() - began >= 0.4


def test_a_pause_may_be_a_date_and_nonsense_is_none() -> None:
    with_date = retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"})
    assert with_date > 1e9
    for value in ("", "soon", "nan", "inf", "-3", "Fri, 01 Jan 1999 00:00:00 GMT"):
        assert retry_after({"retry-after": value}) == 0.0


def test_an_endless_pause_is_not_waited_for(start: StartServer) -> None:
    server = start(lambda body, n: failure(429, "quota", Retry_After="86400"))
    with pytest.raises(EngineError, match="pause of 86400 s"):
        answers(engine(server.url), requests("a"))
    assert len(server.bodies) == 1


def test_tries_are_counted_and_then_given_up(start: StartServer) -> None:
    server = start(lambda body, n: failure(500, "out of luck"))
    with pytest.raises(EngineError, match=r"status 500 \(try 3: out of luck\)"):
        answers(engine(server.url), requests("a"))
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "the server does not take this request"),
        (401, "environment variable WRITER_KEY"),
        (404, "generation.engine.server_model"),
        (501, "the server does not take this request"),
    ],
)
def test_a_lasting_failure_is_not_tried_again_and_names_the_mend(
    start: StartServer, status: int, says: str
) -> None:
    server = start(lambda body, n: failure(status, "no"))
    with pytest.raises(EngineError, match=says):
        answers(engine(server.url), requests("a"))
    assert len(server.bodies) == 1


def test_a_dead_server_is_one_sentence_with_its_address(start: StartServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(EngineError) as caught:
        answers(engine(url), requests("a"))
    message = str(caught.value)
    assert message.startswith(f"{url}: cannot be reached (try 3: ")
    assert "start the server or fix generation.engine.base_url" in message
    assert "\n" not in message


def test_a_slow_server_is_tried_again_and_then_given_up(start: StartServer) -> None:
    def slow(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.5)
        return shout(body, number)

    server = start(slow)
    with pytest.raises(EngineError, match=r"no answer within 0\.1 s .*timeout_seconds"):
        answers(engine(server.url, timeout_seconds=0.1, max_retries=1), requests("a"))
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "text", ["{", "", "<html>hello</html>", "[]", '{"choices": []}', '{"a": 1}']
)
def test_a_malformed_reply_is_an_error_that_shows_it(start: StartServer, text: str) -> None:
    server = start(lambda body, n: Answer(text))
    with pytest.raises(EngineError, match="answered what is not a completion"):
        answers(engine(server.url), requests("a"))


@pytest.mark.parametrize(
    "url",
    [
        "http://me:pass-4711@127.0.0.1/v1",
        "http://pass-4711@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=pass-4711",
        "http://127.0.0.1/v1#pass-4711",
        "localhost:8000",
        "http://[x",
        "http://x:99999/v1",
        "http://x y/v1",
        "",
    ],
)
@pytest.mark.parametrize("key", ["generation.engine", "evaluation.judge.engine"])
def test_an_address_must_be_one_and_hold_no_secret(url: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}\.base_url.*http://127.0.0.1:8000/v1") as caught:
        quickstart(f"{key}.base_url={json.dumps(url)}")
    assert "pass-4711" not in str(caught.value)


def test_the_key_is_never_logged_nor_told(
    start: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = start(lambda body, n: failure(401 if n else 429, f"bad key {KEY} in Bearer {KEY}"))
    with pytest.raises(EngineError) as caught:
        answers(engine(server.url), requests("a"))
    assert "bad key ***" in str(caught.value)
    told: BaseException | None = caught.value
    while told is not None:
        assert KEY not in repr(told)
        told = told.__cause__ or told.__context__
    ours = [record for record in caplog.records if record.name.startswith("selfinstruct_train")]
    assert ours, "the retry is logged"
    assert not any(KEY in record.getMessage() for record in caplog.records)


def test_a_server_without_a_key_gets_a_placeholder(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WRITER_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = start(shout)
    answers(engine(server.url), requests("a"))
    assert server.keys == ["Bearer none"]


def test_a_key_that_cannot_be_sent_is_refused_without_telling_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WRITER_KEY", "schlüssel-4711")
    with pytest.raises(ConfigError, match="WRITER_KEY") as caught:
        engine("http://127.0.0.1:1/v1")
    assert "4711" not in str(caught.value)


def test_a_proxy_of_the_environment_does_not_hide_a_server_on_this_machine(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert answers(engine(start(shout).url, max_retries=0), requests("a"))["r0"].text == "A"


@pytest.mark.parametrize(
    ("given", "stop", "wanted"),
    [
        (reply("a"), (), ("a", "eos")),
        (reply("a"), ("\n",), ("a", "stop")),
        (reply("a", stop_reason=None), ("\n",), ("a", "eos")),
        (reply("a", stop_reason=2), ("\n",), ("a", "eos")),
        (reply("a", stop_reason="\n"), ("\n",), ("a", "stop")),
        (reply("a", matched_stop="\n"), ("\n",), ("a", "stop")),
        (reply("a", matched_stop=2), ("\n",), ("a", "eos")),
        (reply("a", "eos_token"), ("\n",), ("a", "eos")),
        (reply("a\nb", "length"), ("b", "\n"), ("a", "stop")),
        (reply("a", "length"), (), ("a", "length")),
        (reply("a", "content_filter"), (), ("a", "length")),
    ],
)
def test_what_ended_a_completion_is_told_as_far_as_the_server_tells(
    start: StartServer, given: Any, stop: tuple[str, ...], wanted: tuple[str, str]
) -> None:
    server = start(lambda body, n: Answer(given))
    found = answers(engine(server.url), requests("p", stop=stop))["r0"]
    assert (found.text, found.finish_reason) == wanted


@pytest.mark.parametrize(
    ("logprobs", "wanted"),
    [
        (None, None),
        ({"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": None}, -1.5),
        ({"content": [{"token": "a", "logprob": -3.0, "top_logprobs": []}]}, -3.0),
        ({"tokens": None, "token_logprobs": None}, None),
    ],
)
def test_the_mean_log_probability_is_told_where_offered(
    start: StartServer, logprobs: Any, wanted: float | None
) -> None:
    server = start(lambda body, n: Answer(reply("ab", logprobs=logprobs)))
    assert answers(engine(server.url), requests("p"))["r0"].mean_logprob == wanted


def test_tokens_are_the_tokenizers_or_an_estimate_from_the_bytes() -> None:
    texts = ["one two three", "", "ääää"]
    assert engine("http://127.0.0.1:1/v1", encode=words).count_tokens(texts) == [3, 1, 1]
    assert engine("http://127.0.0.1:1/v1").count_tokens(texts) == [5, 1, 3]


def test_a_completion_gets_the_room_that_the_context_has(start: StartServer) -> None:
    server = start(shout)
    short, long = "w" + " w" * 9, "w" + " w" * 63
    given = engine(server.url, encode=words).generate(requests(short, long, max_tokens=60))
    assert next(given).id == "r0"
    with pytest.raises(EngineError, match="request r1: its prompt of 64 tokens leaves no room"):
        next(given)
    assert [body["max_tokens"] for body in server.bodies] == [54]


def test_an_adapter_is_asked_under_the_name_that_the_server_knows(start: StartServer) -> None:
    server = start(shout)
    given = engine(server.url, server_adapters={"round-0/adapter": "tuned-0"})
    list(given.generate(requests("a"), Path("runs/x/round-0/adapter")))
    assert server.bodies[0]["model"] == "tuned-0"
    with pytest.raises(ConfigError, match=r"adapter round-1/adapter.*server_adapters"):
        list(given.generate(requests("a"), Path("runs/x/round-1/adapter")))


def journal(path: Path, given: ServerEngine) -> Journal:
    return Journal(RowStore(path, StoredCompletion), given)


def test_a_resumed_batch_asks_only_for_what_is_missing(start: StartServer, tmp_path: Path) -> None:
    healthy = [False]

    def some(body: dict[str, Any], number: int) -> Answer:
        if body["prompt"] in ("p2", "p4") and not healthy[0]:
            time.sleep(0.1)
            return failure(400, "not now")
        return shout(body, number)

    server, path = start(some), tmp_path / "completions.jsonl"
    asked = requests(*(f"p{i}" for i in range(6)))
    with pytest.raises(EngineError, match="not now"):
        journal(path, engine(server.url, concurrency=6)).ask(asked, None)
    assert len(path.read_text().splitlines()) == 4, "each answer is written as it comes"
    healthy[0] = True
    server.bodies.clear()
    rows = journal(path, engine(server.url)).ask(asked, None)
    assert {body["prompt"] for body in server.bodies} == {"p2", "p4"}
    assert [row.text for row in rows] == [f"P{i}" for i in range(6)]
    server.bodies.clear()
    assert journal(path, engine(server.url)).ask(asked, None) == rows
    assert server.bodies == []


def test_a_changed_question_is_asked_again(start: StartServer, tmp_path: Path) -> None:
    server, path = start(shout), tmp_path / "completions.jsonl"
    journal(path, engine(server.url)).ask(requests("a", "b"), None)
    rows = journal(path, engine(server.url)).ask(requests("a", "c"), None)
    assert [row.text for row in rows] == ["A", "C"]
    assert sorted(body["prompt"] for body in server.bodies) == ["a", "b", "c"]


def test_after_a_failure_nothing_new_is_asked(start: StartServer) -> None:
    server = start(lambda body, n: failure(400, "no"))
    with pytest.raises(RefusedError):
        answers(engine(server.url, concurrency=2), requests(*map(str, range(20))))
    assert len(server.bodies) <= 3


def logprob(token: str) -> float:
    return -len(token) / 8


def echoing(body: dict[str, Any], number: int) -> Answer:
    """Like vLLM: a start token, then words, with a log-probability for each but the first, then
    what it wrote."""
    assert body["echo"] is True and body["max_tokens"] == 1
    pieces = ["<s>", *(p for p in body["prompt"].replace(" ", "\0 ").split("\0") if p), " next"]
    values = [None, *(logprob(piece) for piece in pieces[1:])]
    tops = [None, *({piece: logprob(piece)} for piece in pieces[1:])]
    given = {"tokens": pieces, "token_logprobs": values, "top_logprobs": tops}
    found = reply(body["prompt"] + " next", "length", logprobs=given)
    return Answer(found | {"usage": {"prompt_tokens": len(pieces) - 1, "completion_tokens": 1}})


def with_start(texts: Any) -> list[list[int]]:
    return [[0, *tokens] for tokens in words(texts)]


@pytest.mark.parametrize("encode", [None, words, with_start])
def test_an_echo_scores_all_tokens_of_a_continuation(start: StartServer, encode: Any) -> None:
    server = start(echoing)
    given = engine(server.url, encode=encode)
    wanted = [logprob(" Yes"), logprob(" No") + logprob(" way")]
    for _ in range(2):
        rows = given.score("Task:", [" one", " two words"], [" Yes", " No way"])
        assert rows == [pytest.approx(wanted)] * 2
    assert len(server.bodies) == 1 + 4 + 4, "whether the server echoes is asked once"


def test_a_token_that_straddles_the_seam_is_scored_for_all(start: StartServer) -> None:
    rows = engine(start(echoing).url).score("Task: a", ["b"], ["c", " d"])
    assert rows == [pytest.approx([logprob(" abc"), logprob(" ab") + logprob(" d")])]


def test_an_echo_with_the_figures_of_the_next_place_is_not_believed(start: StartServer) -> None:
    def shifted(body: dict[str, Any], number: int) -> Answer:
        """Like llama-cpp-python 0.3.36: each token has what it has after itself."""
        if not body.get("echo"):
            return naming({" No": -0.1, " Yes": -3.0})(body, number)
        pieces = [p for p in body["prompt"].replace(" ", "\0 ").split("\0") if p]
        values = [None, *(-20.0 for _ in pieces[1:])]
        tops = [None, *({piece: -20.0, " or": -0.1} for piece in pieces[1:])]
        given = {"tokens": pieces, "token_logprobs": values, "top_logprobs": tops}
        found = reply(body["prompt"] + " next", "length", logprobs=given)
        return Answer(found | {"usage": {"prompt_tokens": len(pieces), "completion_tokens": 1}})

    given = engine(start(shifted).url)
    assert given.score("Task:", [" a"], [" Yes", " No"]) == [[-3.0, -0.1]]


def naming(top: dict[str, float], widest: int = 20) -> Callable[[dict[str, Any], int], Answer]:
    def answer(body: dict[str, Any], number: int) -> Answer:
        if body.get("echo"):  # the words and the status of llama.cpp
            return failure(500, "Only no echo is supported")
        if body["logprobs"] > widest:
            return failure(400, f"logprobs must be at most {widest}")
        assert body["max_tokens"] == 1
        given = {"tokens": [" No"], "token_logprobs": [-0.1], "top_logprobs": [top]}
        return Answer(reply(" No", "length", logprobs=given))

    return answer


@pytest.mark.parametrize("widest", [20, 5])
def test_without_an_echo_the_first_token_is_scored(start: StartServer, widest: int) -> None:
    server = start(naming({" No": -0.1, " Yes": -3.0, " Y": -5.0}, widest))
    given = engine(server.url)
    assert given.score("Task:", [" a", " b"], [" Yes", " No"]) == [[-3.0, -0.1]] * 2
    server.bodies.clear()
    given.score("Task:", [" a", " b"], [" Yes", " No"])
    assert len(server.bodies) == 2, "what the server offers is found out once"


def test_a_token_that_is_not_named_gets_the_most_that_it_can_have(start: StartServer) -> None:
    top = {" No": math.log(0.5), " Maybe": math.log(0.4)}
    ((yes, no),) = engine(start(naming(top)).url).score("Task:", [" a"], [" Yes", " No"])
    assert no == math.log(0.5)
    assert yes == pytest.approx(math.log(0.1))


def test_llama_cpp_names_tokens_in_another_shape(start: StartServer) -> None:
    tops = [{"token": " Yes", "logprob": -0.2}, {"token": " No", "logprob": -2.0}]
    given = {"content": [{"token": " Yes", "logprob": -0.2, "top_logprobs": tops}]}
    server = start(
        lambda body, n: (
            failure(400, "no echo") if body.get("echo") else Answer(reply(" Yes", logprobs=given))
        )
    )
    assert engine(server.url).score("Task:", [" a"], [" Yes", " No"]) == [[-0.2, -2.0]]


def test_continuations_that_begin_alike_need_an_echo(start: StartServer) -> None:
    with pytest.raises(EngineError, match="begin alike"):
        engine(start(naming({" N": -1.0})).url).score("Task:", [" a"], [" No", " Never"])


def test_a_server_without_log_probabilities_cannot_score(start: StartServer) -> None:
    with pytest.raises(EngineError, match="offers no log-probabilities.*kind to transformers"):
        engine(start(shout).url).score("Task:", [" a"], [" Yes", " No"])


def test_nothing_to_score_asks_nothing(start: StartServer) -> None:
    server = start(shout)
    assert engine(server.url).score("Task:", [], [" Yes"]) == []
    assert engine(server.url).score("Task:", [" a"], []) == [[]]
    assert list(engine(server.url).generate([])) == []
    assert server.bodies == []


def quickstart(*overrides: str) -> Any:
    return load_config(ROOT / "configs" / "quickstart.yaml", overrides)


def test_the_config_chooses_the_server_and_the_models_own_tokenizer_counts() -> None:
    model: Any = SimpleNamespace(tokenizer=byte_tokenizer(), model_id="m", context_length=99)
    made = make_engine(quickstart("generation.engine.kind=server"), model)
    assert isinstance(made, ServerEngine)
    assert (made.model_id, made.context_length) == ("m", 99)
    assert made.independent_requests
    assert made.count_tokens(["a b c", "<eos>"]) == [5, 5]


@pytest.mark.parametrize(("kind", "package"), [("server", "httpx2"), ("vllm", "vllm")])
def test_a_missing_package_is_named_with_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    for name in ("server.engine", "server.client", "server.connection", "vllm"):
        monkeypatch.delitem(sys.modules, f"selfinstruct_train.engines.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    model: Any = SimpleNamespace(model_id="m", context_length=64)
    with pytest.raises(ConfigError, match=rf"pip install 'selfinstruct-train\[{kind}\]'"):
        make_engine(quickstart(f"generation.engine.kind={kind}"), model)


def test_a_long_pause_is_slept_in_pieces_between_which_a_signal_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pieces = [100.0], []

    def sleep(seconds: float) -> None:
        pieces.append(seconds)
        now[0] += seconds

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr(client, "time", clock)
    client.sleep(7.2)
    assert sum(pieces) == pytest.approx(7.2) and max(pieces) <= 1.0
