"""Which lane a connection gets: by its first bytes, however they are cut, and by what a request asks to become."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest

from ragagent.edge.connection import Connection
from ragagent.edge.dispatch import PREFACE, Dispatch
from ragagent.edge.guard import Receive, Scope, Send
from ragagent.edge.http1 import Http1

if TYPE_CHECKING:
    from edge.conftest import Running, Serve, Site

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
WEBSOCKET = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


def lane(running: Running) -> type:
    (connection,) = running.server._connections
    return type(connection)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Return every message of a WebSocket, and the body of every request."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    else:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def test_http_1_goes_where_the_configuration_says(serve: Serve, site: Site, http1: str) -> None:
    async with serve(site) as running:
        reader, writer = await running.open()
        writer.write(GET)
        await reader.readuntil(b"ok")
        assert lane(running) is (Http1 if http1 == "llhttp" else Connection)


@pytest.mark.parametrize("cut", [1, 14, 18, 23])
async def test_http_2_goes_to_hypercorn_however_its_preface_is_cut(serve: Serve, site: Site, cut: int) -> None:
    async with serve(site, keep_alive_seconds=10.0) as running:
        reader, writer = await running.open()
        writer.write(PREFACE[:cut])
        await asyncio.sleep(0.005)
        writer.write(PREFACE[cut:] + bytes.fromhex("000000 04 00 00000000"))  # empty SETTINGS
        frame = await asyncio.wait_for(reader.readexactly(9), 10)
        assert frame[3] == 4  # SETTINGS, the server's
        assert lane(running) is Connection


@pytest.mark.parametrize("http1", ["llhttp"])
async def test_what_begins_like_the_preface_may_be_a_request(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        reader, writer = await running.open()
        writer.write(b"P")
        await asyncio.sleep(0.05)
        assert lane(running) is Dispatch
        writer.write(b"OST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"ok"), 10)


@pytest.mark.parametrize("first", [b"", GET], ids=["at once", "on a connection in use"])
async def test_websocket_is_answered(serve: Serve, first: bytes) -> None:
    async with serve(echo, keep_alive_seconds=5.0) as running:
        reader, writer = await running.open()
        if first:
            writer.write(first)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(WEBSOCKET)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101")
        writer.write(b"\x81\x82\0\0\0\0hi")  # one text frame, masked with zeros
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"\x81\x02hi"
        assert running.server.connections == 1
        writer.close()


async def test_upgrade_to_http_2_is_ignored_and_the_body_stays_a_body(serve: Serve) -> None:
    """llhttp takes what follows an upgrade's head for another protocol: on its lane the body would be a request."""
    body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serve(echo) as running:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body) + H2C + b"\r\n"
        reader, writer = await running.open()
        writer.write(head)
        await asyncio.sleep(0.05)
        writer.write(body)
        answer = await asyncio.wait_for(reader.readuntil(body), 10)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.write(GET)  # The connection goes on.
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")


async def test_connect_is_refused(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        response = await running.exchange(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + GET)
        assert response.startswith(b"HTTP/1.1 501")
        assert response.count(b"HTTP/1.1 ") == 1
        assert site.paths == []


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n"])
async def test_connection_that_never_says_what_it_is_ends(serve: Serve, site: Site, said: bytes) -> None:
    async with serve(site, keep_alive_seconds=0.2) as running:
        _, writer = await running.open()
        writer.write(said)
        async with asyncio.timeout(10):
            while not running.server.connections:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)
            while running.server.connections:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)
