"""Bodies that are too large or too slow, over real sockets and a real server: no test client sends half a body."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import pytest
from anyio.abc import ByteStream
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragagent.api.body_limit import BodyLimit
from ragagent.api.problems import Problems
from ragagent.errors import Invalid, TooLarge

pytestmark = pytest.mark.anyio

LIMIT = 1000
PATIENCE = 10  # seconds until a test gives up


async def size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def ignore(request: Request) -> Response:
    return PlainTextResponse("unread")


async def slow_reader(request: Request) -> Response:
    """Take its time between reads, as one that writes to a disk does."""
    total = 0
    async for piece in request.stream():
        total += len(piece)
        await anyio.sleep(0.15)
    return PlainTextResponse(str(total))


async def slow_answer(request: Request) -> Response:
    """Go on answering for longer than a body may take, while Starlette listens for the client's leaving."""
    await request.body()

    async def pieces() -> AsyncIterator[str]:
        for piece in "abcd":
            yield piece
            await anyio.sleep(0.1)

    return StreamingResponse(pieces())


def application(max_bytes: int = LIMIT, seconds: float = PATIENCE) -> ASGIApp:
    endpoints = (size, ignore, slow_reader, slow_answer)
    return Starlette(
        routes=[Route(f"/{endpoint.__name__}", endpoint, methods=["POST"]) for endpoint in endpoints],
        middleware=[Middleware(Problems), Middleware(BodyLimit, max_bytes, seconds)],
    )


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = hypercorn.Config()
        config.bind = [f"fd://{listening.fileno()}"]
        config.graceful_timeout = 0.1
        done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: hypercorn.asyncio.serve(app, config, shutdown_trigger=done.wait))  # type: ignore[arg-type]
            try:
                yield listening.getsockname()[1]
            finally:
                done.set()
        listening.detach()  # The server has closed it.


@asynccontextmanager
async def posting(port: int, path: str, *headers: str) -> AsyncIterator[ByteStream]:
    """Send the head of a POST and yield the connection, for the body."""
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""])
        await connection.send(head.encode())
        yield connection


async def answer(connection: ByteStream) -> tuple[int, bytes, bool]:
    """Read one answer: its status, its body, and whether the server then closed the connection."""
    received = b""
    with anyio.fail_after(PATIENCE):
        while not _is_whole(received):
            received += await connection.receive()
    closed = False
    with anyio.move_on_after(0.2):
        try:
            await connection.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            closed = True
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body, closed


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.partition(b":")[2])
    return bool(end) and body.endswith(b"0\r\n\r\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = "Transfer-Encoding: chunked"


# --- Size ------------------------------------------------------------------------------------------------------------


async def test_a_body_of_exactly_the_limit_passes() -> None:
    async with serving(application()) as port, posting(port, "/size", f"Content-Length: {LIMIT}") as connection:
        await connection.send(b"x" * LIMIT)
        assert await answer(connection) == (200, b"1000", False)


async def test_chunks_of_exactly_the_limit_pass() -> None:
    async with serving(application()) as port, posting(port, "/size", CHUNKED) as connection:
        await connection.send(chunk(b"x" * 600) + chunk(b"x" * 400) + chunk(b""))
        assert await answer(connection) == (200, b"1000", False)


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 15])
async def test_a_declared_length_too_large_is_refused_before_a_byte_of_it_comes(length: str) -> None:
    async with serving(application()) as port, posting(port, "/size", f"Content-Length: {length}") as connection:
        status, body, closed = await answer(connection)
    assert (status, closed) == (413, True)
    assert json.loads(body)["error"]["code"] == "too_large"
    assert str(LIMIT) in json.loads(body)["error"]["message"]


async def test_a_declared_length_too_large_is_refused_even_if_no_one_would_read_it() -> None:
    async with serving(application()) as port, posting(port, "/ignore", "Content-Length: 5000") as connection:
        assert (await answer(connection))[0] == 413


async def test_chunks_are_refused_at_the_first_byte_too_many() -> None:
    async with serving(application()) as port, posting(port, "/size", CHUNKED) as connection:
        await connection.send(chunk(b"x" * LIMIT))
        await connection.send(chunk(b"x"))  # and no last chunk: the client has more
        status, body, closed = await answer(connection)
    assert (status, closed) == (413, True)
    assert json.loads(body)["error"]["code"] == "too_large"


async def test_the_server_goes_on_serving_after_a_refusal() -> None:
    async with serving(application()) as port:
        async with posting(port, "/size", "Content-Length: 5000") as connection:
            assert (await answer(connection))[0] == 413
        async with posting(port, "/size", "Content-Length: 2") as connection:
            await connection.send(b"ok")
            assert await answer(connection) == (200, b"2", False)


# --- Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 500", CHUNKED])
async def test_a_body_that_never_comes_is_given_up(framing: str) -> None:
    async with serving(application(seconds=0.2)) as port, posting(port, "/size", framing) as connection:
        status, body, closed = await answer(connection)
    assert (status, closed) == (408, True)
    assert json.loads(body)["error"]["code"] == "request_timeout"


async def test_a_client_that_trickles_is_given_up_however_regular_its_bytes() -> None:
    async with serving(application(seconds=0.3)) as port, posting(port, "/size", "Content-Length: 500") as connection:
        async with anyio.create_task_group() as tasks:

            async def trickle() -> None:
                try:
                    while True:
                        await connection.send(b"x")
                        await anyio.sleep(0.05)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # Given up, as it should be.

            tasks.start_soon(trickle)
            status, _, _ = await answer(connection)
            tasks.cancel_scope.cancel()
    assert status == 408


async def test_the_time_that_the_application_takes_is_not_the_clients() -> None:
    async with serving(application(seconds=0.3)) as port, posting(port, "/slow_reader", CHUNKED) as connection:
        for _ in range(4):
            await connection.send(chunk(b"x"))
            await anyio.sleep(0.02)
        await connection.send(chunk(b""))
        assert await answer(connection) == (200, b"4", False)


async def test_an_answer_may_take_longer_than_its_body_might() -> None:
    app = application(seconds=0.2)
    async with serving(app) as port, posting(port, "/slow_answer", "Content-Length: 1") as connection:
        await connection.send(b"x")
        status, body, _ = await answer(connection)
    assert (status, b"".join(body.split(b"\r\n")[1::2])) == (200, b"abcd")


# --- Without a server ------------------------------------------------------------------------------------------------


class Client:
    """The `receive` of an application: gives what it was given, then waits for ever."""

    def __init__(self, *messages: Message) -> None:
        self._messages: Iterator[Message] = iter(messages)

    async def __call__(self) -> Message:
        for message in self._messages:
            return message
        await anyio.sleep_forever()
        raise AssertionError


def piece(data: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


async def call(app: ASGIApp, receive: Receive, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    async def send(message: Message) -> None:
        raise AssertionError(f"the middleware sent {message}")

    await app({"type": "http", "headers": headers or []}, receive, send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
    """Meet a refusal, go on all the same, and meet it again."""
    for _ in range(2):
        with pytest.raises(Invalid):
            await read(scope, receive, send)


async def test_a_body_too_large_stays_refused_to_a_handler_that_swallows_it() -> None:
    await call(BodyLimit(swallow, 3, PATIENCE), Client(piece(b"four"), piece(b"", more=False)))


async def test_a_body_too_late_stays_refused_even_when_it_comes() -> None:
    begun: list[bool] = []

    async def late_client() -> Message:
        if begun:
            return piece(b"x", more=False)
        begun.append(True)
        await anyio.sleep_forever()
        raise AssertionError

    await call(BodyLimit(swallow, 3, 0.02), late_client)


async def test_what_no_handler_catches_leaves_as_our_own_error() -> None:
    with pytest.raises(TooLarge, match="larger than 3 bytes"):
        await call(BodyLimit(read, 3, PATIENCE), Client(piece(b"four")))
    with pytest.raises(Invalid, match=r"within 0\.02 seconds") as caught:
        await call(BodyLimit(read, 3, 0.02), Client())
    assert caught.value.code == "request_timeout"


async def test_a_client_that_leaves_is_seen_to_leave() -> None:
    async def body(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(ClientDisconnect):
            await Request(scope, receive).body()

    await call(BodyLimit(body, 10, PATIENCE), Client(piece(b"x"), {"type": "http.disconnect"}))


@pytest.mark.parametrize("value", [b"", b"+5000", b"0x5000", b"many", b"-1"])
async def test_a_length_that_is_no_number_is_left_to_the_count(value: bytes) -> None:
    await call(BodyLimit(read, 10, PATIENCE), Client(piece(b"x", more=False)), [(b"content-length", value)])


async def test_a_length_of_thousands_of_digits_is_too_large_and_no_crash() -> None:
    with pytest.raises(TooLarge):
        await call(BodyLimit(read, 10, PATIENCE), Client(), [(b"content-length", b"9" * 5000)])


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    passed: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(receive)

    async def send(message: Message) -> None:
        raise AssertionError

    receive = Client()
    await BodyLimit(app, 1, 1)({"type": kind}, receive, send)
    assert passed == [receive]
