"""One request and its answer: framing, what fails on the way, and that nothing leaks into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from ragagent.edge.guard import App, Receive, Scope, Send

if TYPE_CHECKING:
    from edge.conftest import Serve

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
llhttp_only = pytest.mark.parametrize("http1", ["llhttp"])


def app(handler: Callable[[Scope, Receive, Send], Awaitable[None]]) -> App:
    """Return an application of one handler, which never sees the lifespan."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await handler(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


def answering(status: int, *bodies: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> App:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    return app(answer)


def request(method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return method + b" / HTTP/" + version + b"\r\nHost: x\r\nConnection: close\r\n\r\n"


# --- Framing ----------------------------------------------------------------------------------------------------------


async def test_body_without_a_length_is_chunked(serve: Serve) -> None:
    async with serve(answering(200, b"one", b"", b"two")) as running:
        head, _, body = (await running.exchange(request())).partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_body_with_a_length_is_sent_as_it_is(serve: Serve) -> None:
    async with serve(answering(200, b"one", b"two", headers=((b"content-length", b"6"),))) as running:
        head, _, body = (await running.exchange(request())).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == b"onetwo"


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)], ids=["HEAD", "204", "304"]
)
async def test_answer_that_has_no_body_sends_none(serve: Serve, method: bytes, status: int) -> None:
    async with serve(answering(status, b"never")) as running:
        reader, writer = await running.open()
        writer.write(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        writer.write(request())
        response = await asyncio.wait_for(reader.read(), 10)
        assert response.count(b"HTTP/1.1 %d" % status) == 3
        assert response.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 ")


async def test_head_request_keeps_the_length_of_what_get_would_send(serve: Serve) -> None:
    async with serve(answering(200, b"never", headers=((b"content-length", b"5"),))) as running:
        response = await running.exchange(request(b"HEAD"))
        assert b"content-length: 5\r\n" in response
        assert response.endswith(b"\r\n\r\n")


async def test_http_1_0_ends_a_body_by_closing(serve: Serve) -> None:
    async with serve(answering(200, b"one", b"two")) as running:
        response = await running.exchange(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = response.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        assert body == b"onetwo"


async def test_head_is_sent_before_a_body_that_takes_its_time(serve: Serve) -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await release.wait()
        await send({"type": "http.response.body", "body": b"late"})

    async with serve(app(slow)) as running:
        reader, writer = await running.open()
        writer.write(GET)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
        release.set()
        await asyncio.wait_for(reader.readuntil(b"late"), 10)


@llhttp_only
async def test_head_and_body_leave_in_one_packet(serve: Serve) -> None:
    async with serve(answering(200, b"one")) as running:
        reader, writer = await running.open()
        writer.write(GET)
        assert b"\r\n\r\n3\r\none\r\n" in await asyncio.wait_for(reader.read(65_536), 10)


# --- What fails -------------------------------------------------------------------------------------------------------


async def test_application_that_fails_before_its_answer_is_500(
    serve: Serve, caplog: pytest.LogCaptureFixture, http1: str
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the disk went away")

    async with serve(app(broken)) as running:
        response = await running.exchange(GET)
        assert response.startswith(b"HTTP/1.1 500")
        assert b"connection: close" in response
        assert b"disk" not in response
        assert "the disk went away" in caplog.text
        if http1 == "llhttp":
            assert b'"code": "internal_error"' in response


async def test_application_that_leaves_without_an_answer_is_500(serve: Serve) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async with serve(app(silent)) as running:
        assert (await running.exchange(GET)).startswith(b"HTTP/1.1 500")


@pytest.mark.parametrize(
    ("headers", "body", "more"),
    [
        ([], b"half", True),
        ([(b"content-length", b"10")], b"half", True),
        ([(b"content-length", b"10")], b"half", False),
        ([(b"content-length", b"2")], b"more than that", False),
    ],
    ids=["chunked", "length", "short", "long"],
)
async def test_half_an_answer_does_not_look_like_a_whole_one(
    serve: Serve, headers: list[tuple[bytes, bytes]], body: bytes, more: bool
) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})
        raise RuntimeError

    async with serve(app(half)) as running:
        reader, writer = await running.open()
        writer.write(GET)
        received = b""
        try:
            received = await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:
            return
        assert not received.endswith(b"0\r\n\r\n")
        assert b"content-length: %d\r\n" % len(received.partition(b"\r\n\r\n")[2]) not in received


@pytest.mark.parametrize("header", [(b"x", b"a\r\nset-cookie: b"), (b"x\r\nset-cookie", b"b"), (b"x", b"a\0b")])
async def test_header_that_would_be_two_is_not_sent(serve: Serve, header: tuple[bytes, bytes]) -> None:
    async with serve(answering(200, headers=(header,))) as running:
        response = await running.exchange(GET)
        assert not response.startswith(b"HTTP/1.1 200")
        assert b"set-cookie" not in response


# --- What the application may do --------------------------------------------------------------------------------------


async def test_application_may_go_on_after_its_answer(serve: Serve) -> None:
    release, done = asyncio.Event(), asyncio.Event()

    async def working(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        if scope["path"] == "/work":
            await release.wait()
            done.set()

    async with serve(app(working), keep_alive_seconds=0.2) as running:
        reader, writer = await running.open()
        for path in (b"/work ", b"/ "):
            writer.write(GET.replace(b"/ ", path, 1))
            await asyncio.wait_for(reader.readuntil(b"ok"), 10)
        assert running.server.in_flight == 1
        writer.close()
        await asyncio.sleep(0.1)
        assert running.server.connections == 1  # A drain waits for what it still does.
        release.set()
        await asyncio.wait_for(done.wait(), 10)


async def test_receive_after_the_body_waits_for_the_end(serve: Serve) -> None:
    seen: list[str] = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["more_body"] is False
        listener = asyncio.create_task(listen(receive))
        await asyncio.sleep(0.05)
        assert seen == []
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        await asyncio.wait_for(listener, 10)

    async def listen(receive: Receive) -> None:
        seen.append((await receive())["type"])

    async with serve(app(listening)) as running:
        assert (await running.exchange(GET)).startswith(b"HTTP/1.1 200")
        assert seen == ["http.disconnect"]


marker: ContextVar[str] = ContextVar("marker", default="clean")


async def test_context_of_one_request_is_not_the_next_ones(serve: Serve) -> None:
    """A trace would go on in the next request: asyncio reads on in the context of who resumed the reading."""
    found: list[str] = []

    async def marking(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(marker.get())
        marker.set("stained")
        if scope["method"] == "POST":
            await asyncio.sleep(0.05)
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app(marking), keep_alive_seconds=5.0) as running:
        reader, writer = await running.open()
        body = b"x" * 500_000
        for raw in (GET + GET, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + body, GET):
            writer.write(raw)
            for _ in range(raw.count(b"HTTP/1.1")):
                await asyncio.wait_for(reader.readuntil(b"ok"), 10)
        assert found == ["clean"] * 4
        writer.close()
