"""One of two processes that ask an engine together; launched by test_parallel."""

import json
import threading
import time

from selfinstruct_train import distributed
from selfinstruct_train.distributed import join_world
from selfinstruct_train.engines.base import Request
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.records import Sampling

world = join_world()
assert world.size == 2


class UnsendableError(Exception):
    def __init__(self) -> None:
        super().__init__("cannot be sent")
        self.lock = threading.Lock()


def answer(request: Request, adapter: object) -> ScriptedAnswer:
    if request.id == "slow":
        time.sleep(1.5)
    if request.id == "bad":
        raise EngineError("request bad: no")
    if request.id == "worse":
        raise UnsendableError
    return ScriptedAnswer(f"{request.prompt} by {world.rank}")


local = inner = ScriptedEngine(answer, score=lambda prompt, continuation: float(len(prompt)))
engine = ParallelEngine(inner, world)


def ask(*ids: str) -> object:
    try:
        requests = [Request(id, id.upper(), Sampling(max_tokens=4)) for id in ids]
        return [[found.id, found.text] for found in engine.generate(requests)]
    except Exception as error:
        return str(error)


outcome = {
    "uneven": ask("a", "slow", "c"),
    "fewer than processes": ask("a"),
    "failed": ask("a", "bad", "c"),
    "failed unsendably": ask("worse", "b"),
    "again": ask("a", "b"),
    "scores": engine.score("", ["x", "xx", "xxx"], [" Yes"]),
}
engine.close()

# A server: one process asks it, and each reply is passed on as it arrives.
distributed._SIGN_OF_LIFE_SECONDS = 0.1
server = ScriptedEngine(answer, lambda p, c: float(len(p)), independent_requests=True)
inner, engine = server, ParallelEngine(server, world)
began, arrived = time.monotonic(), []
requests = [Request(id, id.upper(), Sampling(max_tokens=4)) for id in ("slow", "a")]
for found in engine.generate(requests):
    arrived.append([found.text, time.monotonic() - began > 1])
before_failure = []
try:
    for found in engine.generate(
        [Request(id, id.upper(), Sampling(max_tokens=4)) for id in ("bad", "b")]
    ):
        before_failure.append(found.text)
except EngineError as error:
    before_failure.append(str(error))
outcome |= {
    "served": arrived,
    "served until it failed": before_failure,
    "served scores": engine.score("", ["x", "xx", "xxx"], [" Yes"]),
}
asked = world.gather(lambda: [len(server.asked)])
outcome["asked the server"] = asked
inner = local
print(json.dumps(outcome | {"closed": inner.closed, "tokens": engine.count_tokens(["a b"])}))
