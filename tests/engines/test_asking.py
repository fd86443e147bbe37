"""Rows are stored as the engine allows: in whole batches, or each as soon as it is answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from selfinstruct_train.engines.asking import ask_rows
from selfinstruct_train.engines.base import Completion, Request
from selfinstruct_train.engines.scripted import ScriptedAnswer, ScriptedEngine
from selfinstruct_train.errors import EngineError
from selfinstruct_train.records import Row, Sampling
from selfinstruct_train.run.stores import RowStore
from tests.helpers.killed import Killed

REQUESTS = [Request(f"q-{i:03d}", f"question {i}", Sampling(max_tokens=4)) for i in range(300)]


class Said(Row):
    id: str
    text: str | None


class InOrder(ScriptedEngine):
    """Answers the first request first, as a server with one slot does."""

    def generate(
        self, requests: Sequence[Request], adapter: Path | None = None
    ) -> Iterator[Completion]:
        return super().generate(list(reversed(requests)), adapter)


def engine(independent: bool, answers: int | None = None) -> ScriptedEngine:
    """Repeats the prompt, and is killed after so many answers."""
    left = [answers]

    def answer(request: Request, adapter: Path | None) -> ScriptedAnswer:
        if left[0] is not None:
            if not left[0]:
                raise Killed
            left[0] -= 1
        return ScriptedAnswer(request.prompt)

    return InOrder(answer, independent_requests=independent)


def ask(path: Path, asked: ScriptedEngine, requests: Sequence[Request] = REQUESTS) -> list[Said]:
    store = RowStore(path, Said)
    return list(
        ask_rows(
            asked,
            store,
            store.read(),
            requests,
            lambda place, found: Said(id=requests[place].id, text=found and found.text),
            lambda update: None,
            "asking",
        )
    )


@pytest.mark.parametrize(("independent", "kept"), [(True, 200), (False, 128)])
def test_a_kill_costs_a_batch_where_requests_depend_on_each_other_and_else_nothing(
    independent: bool, kept: int, tmp_path: Path
) -> None:
    whole = ask(tmp_path / "whole.jsonl", engine(independent))
    path = tmp_path / "killed.jsonl"
    with pytest.raises(Killed):
        ask(path, engine(independent, answers=200))
    assert len(RowStore(path, Said).read()) == kept
    again = engine(independent)
    assert ask(path, again) == whole
    assert len(again.asked) == 300 - kept
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("independent", [True, False])
def test_a_prompt_without_room_is_not_asked_and_has_its_row(
    independent: bool, tmp_path: Path
) -> None:
    short = engine(independent)
    short.context_length = 3
    long = Request("long", "far too long a question", Sampling(max_tokens=4))
    rows = ask(tmp_path / "rows.jsonl", short, [*REQUESTS[:2], long, REQUESTS[2]])
    assert [row.text for row in rows] == ["question 0", "question 1", None, "question 2"]
    assert "long" not in short.asked


def test_an_engine_that_leaves_a_request_out_is_an_error(tmp_path: Path) -> None:
    class Forgetful(InOrder):
        def generate(
            self, requests: Sequence[Request], adapter: Path | None = None
        ) -> Iterator[Completion]:
            return super().generate(requests[1:], adapter)

    with pytest.raises(EngineError, match="no completion for 1 requests, first q-000"):
        ask(tmp_path / "rows.jsonl", Forgetful(lambda r, a: ScriptedAnswer(r.prompt)))
