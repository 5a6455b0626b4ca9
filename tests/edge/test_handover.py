"""Two servers on one listener, the older one drains: no request may be lost, however far away the client is."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Literal

import pytest

from ragagent.config import Server as Settings
from ragagent.edge.server import Server

if TYPE_CHECKING:
    from edge.conftest import Site

pytestmark = pytest.mark.anyio

DELAY_SECONDS = 0.015  # each way, so 30 ms there and back
CLIENTS = 12
HANDOVERS = 3
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class FarAway:
    """A proxy that holds every byte, and every end of file, for DELAY_SECONDS on its way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._carry(reader, back), self._carry(onward, writer))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        later = asyncio.get_running_loop().call_later
        try:
            while data := await source.read(65_536):
                later(DELAY_SECONDS, sink.write, data)
        except ConnectionError:
            pass
        later(DELAY_SECONDS, sink.close)


class Client:
    """A pooled HTTP/1.1 connection. It opens a new one when it knows the old one closed; anything else is a loss."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers = 0
        self.losses = 0

    async def run(self, over: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not over.is_set():
            if reader.at_eof():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                closes = await self._request(reader, writer)
                self.answers += 1
            except (OSError, asyncio.IncompleteReadError):
                self.losses += 1
                closes = True
            if closes:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.sleep(0.05)
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        return b"connection: close" in head.lower()


async def test_no_pooled_connection_30_ms_away_loses_a_request(site: Site, http1: str) -> None:
    lane: Literal["llhttp", "hypercorn"] = "llhttp" if http1 == "llhttp" else "hypercorn"
    settings = Settings(http1=lane, keep_alive_seconds=1.0, graceful_seconds=5.0)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        old = await started(site, listener, settings)
        proxy = FarAway(listener.getsockname()[1])
        far = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        over, clients = asyncio.Event(), [Client(far.sockets[0].getsockname()[1]) for _ in range(CLIENTS)]
        running = [asyncio.create_task(client.run(over)) for client in clients]
        for _ in range(HANDOVERS):
            await asyncio.sleep(0.5)
            new = await started(site, listener, settings)
            await old.drain()
            old = new
        over.set()
        await asyncio.wait_for(asyncio.gather(*running), 10)
        far.close()
        await old.drain()
    assert [client.losses for client in clients] == [0] * CLIENTS
    assert sum(client.answers for client in clients) > CLIENTS * 10


async def started(site: Site, listener: socket.socket, settings: Settings) -> Server:
    server = Server(site, [listener.dup()], settings)
    await server.startup()
    await server.accept()
    return server
