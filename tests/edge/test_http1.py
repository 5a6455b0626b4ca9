"""HTTP/1.1 byte by byte, on both lanes where they agree: what is refused, what is bounded, and what is kept apart.

RFC 9112 leaves a server some freedom with what is malformed. llhttp's lane uses none: all of it is 400.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ragagent.api.body_limit import BodyLimit
from ragagent.api.problems import Problems
from ragagent.edge.guard import MAX_HEAD_BYTES, Receive, Scope, Send
from ragagent.edge.http1 import Http1

if TYPE_CHECKING:
    from edge.conftest import Running, Serve, Site

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
llhttp_only = pytest.mark.parametrize("http1", ["llhttp"])


class Reader:
    """Reads each body, and answers with it; keeps what it was told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.disconnects = 0
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["index"] = "open"
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        if scope["path"] == "/wait":
            await self.release.wait()
        body = await self._body(receive)
        if scope["path"] == "/leave":
            assert (await receive())["type"] == "http.disconnect"
            self.disconnects += 1
            return
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _body(self, receive: Receive) -> bytes:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return body
            body += bytes(message["body"])
            if not message["more_body"]:
                self.bodies.append(body)
                return body


@contextlib.asynccontextmanager
async def connected(running: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(20):
        yield await running.open()


def code(response: bytes) -> str:
    return str(json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"])


# --- Refused ----------------------------------------------------------------------------------------------------------

MALFORMED = {
    "content-length, signed": POST + b"Content-Length: +1\r\n\r\na",
    "content-length, negative": POST + b"Content-Length: -1\r\n\r\na",
    "content-length, hexadecimal": POST + b"Content-Length: 0x1\r\n\r\na",
    "content-length, empty": POST + b"Content-Length: \r\n\r\n",
    "content-length, too large": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "content-length, two that differ": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "transfer-encoding, not chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding, unknown before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding, two": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "byte beyond ASCII in the target": b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
}
# A recipient may take these for what they seem to mean (RFC 9112 §2.2, §5.2), as h11 does.
TOLERATED = {
    "folded line": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    "content-length, twice the same": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.0 with chunks": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9, twice": b"GET /\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 without its preface": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_request_is_refused(serve: Serve, site: Site, http1: str, name: str) -> None:
    async with serve(site) as running:
        response = await running.exchange(MALFORMED[name] + GET)  # And what follows it is not executed either.
        assert response.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
        assert response.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in response.lower()
        assert site.paths == []
        if http1 == "llhttp":
            assert code(response) in {"malformed_request", "unsupported_coding"}
            assert b"x-request-id: req_" in response


@llhttp_only
@pytest.mark.parametrize("name", TOLERATED)
async def test_malformed_request_that_others_tolerate_is_refused(serve: Serve, site: Site, name: str) -> None:
    async with serve(site) as running:
        response = await running.exchange(TOLERATED[name])
        assert response.startswith((b"HTTP/1.1 400", b"HTTP/1.1 505"))
        assert response.count(b"HTTP/1.1 ") == 1
        assert site.paths == []


@llhttp_only
@pytest.mark.parametrize("chunk", [b"5\r\nhelloXX0\r\n\r\n", b"0x5\r\nhello\r\n", b"-5\r\n", b"5 \r\n", b"5\nhello\n"])
async def test_malformed_chunk_ends_the_request(serve: Serve, chunk: bytes) -> None:
    app = Reader()
    async with serve(app) as running:
        response = await running.exchange(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + GET)
        assert response.startswith(b"HTTP/1.1 400")
        assert response.count(b"HTTP/1.1 ") == 1
        assert app.bodies == []


async def test_head_is_refused_while_it_is_still_incomplete(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=10.0) as running:
        response = await running.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 60_000)
        assert response.startswith(b"HTTP/1.1 431")
        assert site.paths == []


@llhttp_only
async def test_head_is_refused_at_the_first_byte_too_many(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=10.0) as running, connected(running) as (reader, writer):
        head = b"GET / HTTP/1.1\r\nHost: x\r\nA: "
        for _ in range(4):
            piece, head = head.ljust(MAX_HEAD_BYTES // 4, b"a"), b""
            writer.write(piece)
            await asyncio.sleep(0.01)
        writer.write(b"a")
        response = await reader.read()
        assert (response[:12], code(response)) == (b"HTTP/1.1 431", "headers_too_large")


# --- Heads in time ----------------------------------------------------------------------------------------------------


async def test_trickled_head_is_given_up_however_regular_its_bytes(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.3) as running, connected(running) as (reader, writer):
        reading = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000:
                if reading.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            assert await reading == b""
        assert site.paths == []


@llhttp_only
async def test_second_head_has_its_time_as_well(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.3) as running, connected(running) as (reader, writer):
        writer.write(GET + GET[:10])
        await reader.readuntil(b"ok")
        assert await reader.read() == b""


# --- Bodies -----------------------------------------------------------------------------------------------------------


async def test_chunks_are_joined_and_trailers_are_no_headers(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (reader, writer):
        body = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Late: 1\r\n\r\n"
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        await reader.readuntil(b"hello world")
        writer.write(GET)
        await reader.readuntil(b"content-length: 0\r\n")
        assert app.bodies == [b"hello world", b""]
        assert all(name != b"x-late" for scope in app.scopes for name, _ in scope["headers"])


@pytest.mark.parametrize("framing", [b"0\r\nX: %b", b"1;%b"], ids=["trailer", "extension"])
async def test_framing_without_end_is_not_collected(serve: Serve, framing: bytes) -> None:
    app = Reader()
    async with serve(app, keep_alive_seconds=10.0) as running, connected(running) as (reader, writer):
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + framing % b"x")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"x" * 16_384)
                await writer.drain()
                await asyncio.sleep(0.002)
        with contextlib.suppress(ConnectionError):
            response = await reader.read()
            assert response.startswith((b"HTTP/1.1 4",))
        assert app.bodies == []


async def test_body_that_comes_too_slowly_is_408(serve: Serve) -> None:
    """The bound is the API's; what is held here is that either lane lets it answer, and then closes."""

    async def size(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    middleware = [Middleware(Problems), Middleware(BodyLimit, 1000, 0.3)]
    app = Starlette(routes=[Route("/", size, methods=["POST"])], middleware=middleware)
    async with serve(app, keep_alive_seconds=10.0) as running, connected(running) as (reader, writer):
        writer.write(POST + b"Content-Length: 500\r\n\r\n")
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"x")
            await asyncio.sleep(0.05)
        response = await reading
        assert response.startswith(b"HTTP/1.1 408")
        assert code(response) == "request_timeout"


@llhttp_only
async def test_answer_before_the_end_of_the_body_arrives_whole(serve: Serve, site: Site) -> None:
    """To close a socket with unread bytes resets the connection, and the answer with it."""
    async with serve(site) as running, connected(running) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(50):
            writer.write(b"x" * 10_000)
            await asyncio.sleep(0.001)
        response = await reader.read()
        assert response.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in response
        assert response.endswith(b"too large")
        assert site.paths == ["/early"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_body_that_nobody_takes_is_left_with_the_client(serve: Serve, framing: str) -> None:
    app, size = Reader(), 16 * 1024 * 1024
    length = b"Transfer-Encoding: chunked" if framing == "chunked" else b"Content-Length: %d" % size
    head = b"POST /wait HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n"
    body = (
        b"x" * size if framing == "length" else b"10000\r\n%b\r\n" % (b"x" * 65_536) * (size // 65_536) + b"0\r\n\r\n"
    )
    async with serve(app) as running, connected(running) as (reader, writer):
        writer.write(head)
        writer.write(body)
        taken = await left_unsent(writer)
        assert taken > size / 4  # The rest lies in the kernel's buffers.
        app.release.set()
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d" % size in answer
        assert len(await reader.readexactly(size)) == size


async def left_unsent(writer: asyncio.StreamWriter) -> int:
    """Return how many bytes the server leaves with the client, once that stands still."""
    before, now = -1, writer.transport.get_write_buffer_size()
    while before != now:
        await asyncio.sleep(0.3)
        before, now = now, writer.transport.get_write_buffer_size()
    return now


async def test_continue_is_sent_to_who_waits_for_it(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (reader, writer):
        writer.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"hello")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")


@llhttp_only
async def test_continue_is_not_sent_before_an_early_answer(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        response = await running.exchange(head)
        assert response.startswith(b"HTTP/1.1 413")


# --- One after the other ----------------------------------------------------------------------------------------------

PIPELINE = (
    b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nbody\r\n\r\nbody"
    b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n3\r\nabc\r\n0\r\nT: t\r\n\r\n"
    b"GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)
BODIES = [b"body\r\n\r\nbody", b"", b"\r\n\r\nabc", b""]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 17, len(PIPELINE)])
async def test_pipelined_requests_are_answered_in_order_however_they_are_cut(serve: Serve, step: int) -> None:
    app = Reader()
    async with serve(app, keep_alive_seconds=10.0) as running, connected(running) as (reader, writer):
        for start in range(0, len(PIPELINE), step):
            writer.write(PIPELINE[start : start + step])
            await asyncio.sleep(0.001 if step < 5 else 0)
        response = await reader.read()
        assert [scope["path"] for scope in app.scopes] == ["/1", "/2", "/3", "/4"]
        assert app.bodies == BODIES
        assert response.count(b"HTTP/1.1 200") == 4


async def test_what_follows_the_last_request_is_not_executed(serve: Serve, http1: str) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (reader, writer):
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET * 20_000)
        response = b""
        with contextlib.suppress(ConnectionError):
            response = await reader.read()
        assert len(app.scopes) == 1
        if http1 == "llhttp":  # h11 may refuse the first for what follows it, or reset its answer away.
            assert response.count(b"HTTP/1.1 200") == 1


@llhttp_only
async def test_blank_lines_before_a_request_are_skipped(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (reader, writer):
        for _ in range(2):
            writer.write(b"\r\n\r\n\r\n" + GET)
            await reader.readuntil(b"content-length: 0\r\n")
        assert len(app.scopes) == 2


async def test_pipelined_requests_wait_for_the_one_before(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (reader, writer):
        writer.write(GET.replace(b"/ ", b"/wait ", 1) + GET)
        await asyncio.sleep(0.1)
        assert [scope["path"] for scope in app.scopes] == ["/wait"]
        app.release.set()
        for _ in range(2):
            await reader.readuntil(b"content-length: 0\r\n")
        assert [scope["path"] for scope in app.scopes] == ["/wait", "/"]


@llhttp_only
async def test_endless_pipeline_is_left_with_the_client(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (_, writer):
        writer.write(GET.replace(b"/ ", b"/wait ", 1))
        writer.write(GET * 1_000_000)
        assert await left_unsent(writer) > len(GET) * 250_000
        assert len(app.scopes) == 1
        app.release.set()


# --- Who reads slowly, and who leaves ---------------------------------------------------------------------------------


async def test_slow_reader_stops_the_application(serve: Serve) -> None:
    sent = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["type"] != "http":
            return await Reader()(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 64 * 1024 * 1024:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            sent += 65_536
        return await send({"type": "http.response.body"})

    async with serve(flood, graceful_seconds=1.0) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(GET)
            before = -1
            async with asyncio.timeout(20):
                while before != sent:  # Until it stands still.
                    before = sent
                    await asyncio.sleep(0.3)
            assert 0 < sent < 32 * 1024 * 1024


async def test_client_that_leaves_is_seen_to_leave(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running, connected(running) as (_, writer):
        writer.write(GET.replace(b"/ ", b"/leave ", 1))
        while running.server.in_flight == 0:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)
        writer.close()
        while app.disconnects == 0 or running.server.connections:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


@llhttp_only
async def test_slow_reader_of_a_last_answer_gets_all_of_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragagent.edge.http1.LINGER_SECONDS", 0.05)
    size = 16 * 1024 * 1024

    async def big(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await Reader()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with (
        serve(big, keep_alive_seconds=0.2, graceful_seconds=20.0) as running,
        connected(running) as (reader, writer),
    ):
        writer.write(GET.replace(b"1.1", b"1.0"))
        await reader.readuntil(b"\r\n\r\n")
        received = 0
        for _ in range(8):
            await asyncio.sleep(0.1)
            received += len(await reader.readexactly(size // 8))
        assert (received, await reader.read()) == (size, b"")


@llhttp_only
async def test_closed_connection_does_not_wait_for_a_client_that_never_reads(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragagent.edge.http1.STALL_SECONDS", 0.2)

    async def big(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await Reader()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(32 * 1024 * 1024)})

    async with serve(big, keep_alive_seconds=60.0) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(GET)
            async with asyncio.timeout(20):
                while running.server.requests == 0 or running.server.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


# --- What the application is told -------------------------------------------------------------------------------------


async def test_both_lanes_tell_the_application_the_same(serve: Serve) -> None:
    app = Reader()
    async with serve(app) as running:
        request = b"GET /a%20b/%C3%A9?q=%20&r HTTP/1.1\r\nHost: x\r\nX-Padded:  a b \t \r\nX-Latin: \xe9\r\n\r\n"
        reader, writer = await running.open()
        writer.write(request)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        (scope,) = app.scopes
        assert scope.pop("client") == writer.get_extra_info("sockname")
        assert dict(scope) == {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": "GET",
            "scheme": "http",
            "path": "/a b/é",
            "raw_path": b"/a%20b/%C3%A9",
            "query_string": b"q=%20&r",
            "root_path": "",
            "headers": [(b"host", b"x"), (b"x-padded", b"a b"), (b"x-latin", b"\xe9")],
            "server": ("127.0.0.1", running.port),
            "state": {"index": "open"},
            "extensions": {},
        }


# --- Cost -------------------------------------------------------------------------------------------------------------


@llhttp_only
@pytest.mark.parametrize("body", [b"4\r\n\r\n\r\n\r\n", b"1\r\nx\r\n"], ids=["blank lines", "bytes"])
async def test_body_of_small_pieces_costs_what_its_length_says(serve: Serve, body: bytes) -> None:
    """Copying what is left after every piece took seconds for each read of 256 KiB."""
    app, count = Reader(), 250_000
    async with serve(app, keep_alive_seconds=10.0) as running, connected(running) as (reader, writer):
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body * count + b"0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert len(app.bodies[0]) == count * int(body[:1])


@llhttp_only
async def test_closed_connection_is_freed_without_the_garbage_collector(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        gc.collect()
        gc.disable()
        try:
            for raw in (GET, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"nonsense\r\n\r\n"):
                reader, writer = await running.open()
                writer.write(raw)
                await asyncio.wait_for(reader.read(12), 10)
                writer.close()
                async with asyncio.timeout(10):
                    while any(isinstance(one, Http1) for one in gc.get_objects()):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
        finally:
            gc.enable()
