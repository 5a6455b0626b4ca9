"""A real edge.Server on a free port of 127.0.0.1, inside the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ragagent.config import Server as Settings
from ragagent.edge.guard import App, Receive, Scope, Send
from ragagent.edge.server import Server


@dataclass
class Site:
    """The application under test, and what it has seen."""

    started: int = 0
    ended: int = 0
    paths: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self.paths.append(scope["path"])
        if scope["path"] == "/early":  # Answers before it has read the body.
            await self._answer(send, 413, b"too large")
            return
        if scope["path"] == "/wait":
            await self.release.wait()
        if scope["path"] == "/flood":
            await self._flood(send)
        elif scope["path"] == "/stream":
            await self._stream(send)
        else:
            await self._answer(send, 200, b"ok")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.started += 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ended += 1
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, send: Send, status: int, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body"})

    async def _flood(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})


class Running:
    """A server that accepts. `open` gives raw connections to it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self._stack = AsyncExitStack()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        return reader, writer

    async def exchange(self, raw: bytes) -> bytes:
        """Send `raw` on a connection of its own and return everything up to the end of it."""
        reader, writer = await self.open()
        writer.write(raw)
        async with asyncio.timeout(10):
            return await reader.read()

    async def aclose(self) -> None:
        await self._stack.aclose()


Serve = Callable[..., Any]


@pytest.fixture(params=["llhttp", "hypercorn"])
def http1(request: pytest.FixtureRequest) -> str:
    """The lane that reads HTTP/1.1."""
    return str(request.param)


@pytest.fixture
def serve(http1: str) -> Serve:
    @asynccontextmanager
    async def serve(app: App, **settings: Any) -> AsyncIterator[Running]:
        keys = {"keep_alive_seconds": 0.5, "graceful_seconds": 3.0, "http1": http1, **settings}
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            server = Server(app, [listener.dup()], Settings(**keys))
            await server.startup()
            await server.accept()
            running = Running(server, listener.getsockname()[1])
            try:
                yield running
            finally:
                await running.aclose()
                await server.drain()

    return serve


@pytest.fixture
def site() -> Site:
    return Site()
