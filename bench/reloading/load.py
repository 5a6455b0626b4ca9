"""The clients of a run: pools that keep connections alive and behave well, so that what is lost is the server's loss.

After `Connection: close`, GOAWAY or an end of file while nothing was asked, a client connects again. Whatever else
keeps a request from its complete answer counts as failed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from reloading.http1 import Http1
from reloading.http2 import Http2, Refused
from reloading.tally import Lost, Tally, Watch

PATHS = {"JSON": "/", "SSE": "/stream"}
ANSWER_SECONDS = 30.0
THINK_SECONDS = 0.02  # at most; a connection is idle meanwhile, which is when a careless server closes it
STREAMS_PER_CONNECTION = 4


class Pool(Protocol):
    protocol: str

    async def get(self, path: str, watch: Watch) -> bytes: ...
    def close(self) -> None: ...


class Http1Pool:
    """One connection at a time, for one client."""

    protocol = "h1"

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Http1 | None = None

    async def get(self, path: str, watch: Watch) -> bytes:
        if self._connection is None or not self._connection.is_reusable:
            self.close()
            self._connection = await Http1.open(self._port)
        return await self._connection.get(path, watch)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Http2Pool:
    """One connection for new requests, shared by several clients, and older ones that finish what they hold."""

    protocol = "h2"

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[Http2] = []
        self._opening = asyncio.Lock()

    async def get(self, path: str, watch: Watch) -> bytes:
        while True:
            connection = await self._reusable()
            try:
                return await connection.get(path, watch)
            except Refused:
                continue

    async def _reusable(self) -> Http2:
        async with self._opening:
            for connection in list(self._connections):
                if connection.is_reusable:
                    return connection
                if connection.is_idle:
                    self._connections.remove(connection)
                    connection.close()
            self._connections.append(await Http2.open(self._port))
            return self._connections[-1]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()


@asynccontextmanager
async def load(port: int, clients: int, *, http2: bool) -> AsyncIterator[Tally]:
    """Keep `clients` busy with JSON and a third as many with streams, over HTTP/2 as well if the server speaks it."""
    tally, over = Tally(), asyncio.Event()
    pools: list[Pool] = [Http1Pool(port) for _ in range(clients + clients // 3)]
    asks = [_ask(pool, "JSON" if n < clients else "SSE", tally, over) for n, pool in enumerate(pools)]
    for _ in range(max(clients // STREAMS_PER_CONNECTION, 1) if http2 else 0):
        shared = Http2Pool(port)
        pools.append(shared)
        asks += [_ask(shared, "SSE" if n == 0 else "JSON", tally, over) for n in range(STREAMS_PER_CONNECTION)]
    running = [asyncio.ensure_future(ask) for ask in asks]
    try:
        yield tally
    finally:
        over.set()
        await asyncio.gather(*running)
        for pool in pools:
            pool.close()


async def _ask(pool: Pool, what: str, tally: Tally, over: asyncio.Event) -> None:
    kind = f"{pool.protocol} {what}"
    while not over.is_set():
        watch = Watch()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                _check(what, await pool.get(PATHS[what], watch), tally)
            tally.answered[kind] += 1
        except TimeoutError:
            tally.lose(kind, f"no answer within {ANSWER_SECONDS:g} s")
        except Lost as exc:
            tally.lose(kind, str(exc))
        tally.stalls.append(watch.worst)
        await asyncio.sleep(random.uniform(0, THINK_SECONDS))


def _check(what: str, body: bytes, tally: Tally) -> None:
    if what == "SSE":
        if not body.endswith(b"data: [DONE]\n\n"):
            raise Lost("the stream has no end")
        return
    try:
        answer = json.loads(body)
    except ValueError as exc:
        raise Lost("half an answer") from exc
    tally.workers[answer["pid"]] = answer["version"]


async def ask(port: int, seconds: float = 2.0) -> dict[str, Any] | None:
    """Return one answer over a connection of its own; None when there is none in time."""
    connection = None
    try:
        async with asyncio.timeout(seconds):
            connection = await Http1.open(port)
            answer: dict[str, Any] = json.loads(await connection.get("/", Watch()))
            return answer
    except (Lost, TimeoutError, ValueError):
        return None
    finally:
        if connection is not None:
            connection.close()
