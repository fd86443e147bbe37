"""The rating page's server: this machine alone, and only whoever has the address."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from selfinstruct_train.errors import ConfigError, RunError, SelfInstructError
from selfinstruct_train.rating.sheet import RatedQuestion, read_questions
from selfinstruct_train.rating.store import (
    LONGEST_COMMENT,
    AnswerKey,
    Grade,
    RatingBook,
    rater_name,
)
from selfinstruct_train.records import Row
from selfinstruct_train.run.directory import RunDirectory

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError:
    raise ConfigError(
        "the rating page needs a small web server: pip install 'selfinstruct-train[rate]'"
    ) from None

LOOPBACK = "127.0.0.1"
_HERE = Path(__file__).parent
_FILES = {"": "page.html", "rate.js": "rate.js", "rate.css": "rate.css"}
_MOST_BYTES = 65_536
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    # The token is in the address: it must reach no other page.
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class RateRequest(Row):
    """What the page sends for a grade or a comment."""

    rater: str
    question: str
    answer: str
    grade: Grade | None
    comment: str = Field(max_length=LONGEST_COMMENT)


class UndoRequest(Row):
    """What the page sends to take an act back."""

    rater: str
    act: str | None = None
    """Name of the act; None for the rater's last one."""


class Address(NamedTuple):
    """Where the page is."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.port}/{self.token}/"


def rate(run: RunDirectory, port: int, rater: str | None) -> None:
    """Serve the rating page of a run until Ctrl-C.

    Args:
        run: the run whose answers are rated.
        port: port on loopback; 0 takes a free one.
        rater: name that the page starts with; None lets the page ask.

    Raises:
        RunError: the folder is not a run or has no answers, or the port is taken.
        ConfigError: the name cannot be used.
        DataError: a stored row cannot be read.
    """
    name = rater_name(rater) if rater is not None else None
    questions, book = read_questions(run), RatingBook(run)
    with _listen(port) as listener:
        address = Address(listener.getsockname()[1], secrets.token_urlsafe(24))
        app = make_app(questions, book, address, name)
        print(f"{len(questions)} questions; each grade is saved in {book.path} at once")
        print(f"open {address.url}  (Ctrl-C ends)", flush=True)
        # No access log: it would write the token down.
        settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
        uvicorn.Server(settings).run(sockets=[listener])


def make_app(
    questions: tuple[RatedQuestion, ...], book: RatingBook, address: Address, rater: str | None
) -> ASGIApp:
    """The web application, behind its guard."""
    sheet = _Sheet(questions, book, rater)
    routes = [
        Route("/" + address.token + "/" + name, _file(_HERE / file))
        for name, file in _FILES.items()
    ] + [
        Route(f"/{address.token}/api/start", _answered(sheet.start)),
        Route(f"/{address.token}/api/question", _answered(sheet.question)),
        Route(f"/{address.token}/api/rate", _answered(sheet.rate), methods=["POST"]),
        Route(f"/{address.token}/api/undo", _answered(sheet.undo), methods=["POST"]),
    ]
    return _Guard(Starlette(routes=routes), address)


class _Guard:
    """Lets pass only requests to this very address, and puts the safety headers on every reply."""

    def __init__(self, app: ASGIApp, address: Address) -> None:
        self._app = app
        self._token = address.token.encode()
        hosts = (f"{LOOPBACK}:{address.port}", f"localhost:{address.port}")
        self._hosts = {host.encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        app = self._app if self._is_allowed(scope) else PlainTextResponse("not found", 404)
        await app(scope, receive, send_guarded)

    def _is_allowed(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        token = scope["path"].encode().split(b"/")[1:2]
        # A page elsewhere can point its own name at this machine, but the name shows in Host.
        if headers.get(b"host") not in self._hosts:
            return False
        if headers.get(b"origin", next(iter(self._origins))) not in self._origins:
            return False
        return bool(token) and secrets.compare_digest(token[0], self._token)


class _Sheet:
    """The replies to the page."""

    def __init__(
        self, questions: tuple[RatedQuestion, ...], book: RatingBook, rater: str | None
    ) -> None:
        self._questions = questions
        self._index = {question.id: i for i, question in enumerate(questions)}
        self._book = book
        self._rater = rater

    async def start(self, request: Request) -> Response:
        return JSONResponse({"rater": self._rater, "total": len(self._questions)})

    async def question(self, request: Request) -> Response:
        rater = rater_name(request.query_params.get("rater", ""))
        done = self._done(rater)
        asked = request.query_params.get("index", "")
        if asked.isascii() and asked.isdigit():
            index = min(int(asked[:9]), len(self._questions) - 1)
        else:
            index = done.index(False) if False in done else len(self._questions) - 1
        question = self._questions[index]
        said = self._book.standing()
        answers = []
        for candidate in question.shuffled(rater):
            rating = said.get(AnswerKey(rater, question.id, candidate.id))
            answers.append(
                {
                    "id": candidate.id,
                    "text": candidate.text,
                    "grade": rating.grade if rating else None,
                    "comment": rating.comment if rating else "",
                }
            )
        return JSONResponse(
            {
                "index": index,
                "total": len(self._questions),
                "done": sum(done),
                "rater": rater,
                "id": question.id,
                "instruction": question.instruction,
                "input": question.input,
                "answers": answers,
            }
        )

    async def rate(self, request: Request) -> Response:
        sent = RateRequest.model_validate_json(await _body(request))
        rater = rater_name(sent.rater)
        if sent.question not in self._index:
            raise ConfigError("this question is of another run; reload the page")
        question = self._questions[self._index[sent.question]]
        candidate = next((c for c in question.candidates if c.id == sent.answer), None)
        if candidate is None:
            raise ConfigError("this answer is of another run; reload the page")
        act = self._book.rate(rater, question, candidate, sent.grade, sent.comment)
        return JSONResponse({"done": sum(self._done(rater)), "act": act.id})

    async def undo(self, request: Request) -> Response:
        sent = UndoRequest.model_validate_json(await _body(request))
        undone = self._book.undo(rater_name(sent.rater), sent.act)
        index = self._index.get(undone.question) if undone else None
        return JSONResponse({"index": index, "undone": undone is not None})

    def _done(self, rater: str) -> list[bool]:
        said = self._book.standing()
        graded = {key for key, row in said.items() if row.grade is not None}
        return [
            all(AnswerKey(rater, question.id, c.id) in graded for c in question.candidates)
            for question in self._questions
        ]


def _answered(
    reply: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn what is wrong with a request, or with the disk, into a sentence for the page."""

    async def answer(request: Request) -> Response:
        try:
            return await reply(request)
        except RunError as error:
            return JSONResponse({"error": str(error)}, 500)
        except SelfInstructError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ValidationError:
            return JSONResponse({"error": "not what this page sends; reload the page"}, 400)

    return answer


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return FileResponse(path)

    return answer


async def _body(request: Request) -> bytes:
    # A form of another page cannot send this type without asking first.
    if request.headers.get("content-type") != "application/json":
        raise ConfigError("the page sends JSON; reload the page")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise ConfigError(f"a comment has at most {LONGEST_COMMENT:,} characters")
    return body


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        # Before the address is told, so that whoever opens it at once waits and is not refused.
        listener.listen()
    except OSError as error:
        listener.close()
        raise RunError(
            f"port {port} cannot be opened ({error.strerror}); give another, or --port 0"
        ) from None
    return listener
