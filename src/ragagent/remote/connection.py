"""The one Redis of this process: what workers and hosts share. It may be slow to help; it never breaks an answer.

Whatever goes wrong is a `NoReply`, counted by its reason, and to a caller a miss. What it costs is bounded: a command
waits at most SLOT_SECONDS for a connection and `timeout_seconds` for each reply, and the breaker keeps everyone away
from a server that hangs or is gone (gate.py).

Created in the process that uses it, never before a fork: two processes on one socket would read each other's replies.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from ragagent import names, telemetry
from ragagent.remote import meter
from ragagent.remote.address import parse
from ragagent.remote.backend import Backend
from ragagent.remote.batch import Reads
from ragagent.remote.gate import Gate, NoReply
from ragagent.remote.topology import CONNECT_SECONDS, Settings, connect

__all__ = ["NoReply", "Remote", "RemoteStats", "State"]

T = TypeVar("T")
State = Literal["off", "up", "degraded"]

SCAN_COUNT = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteStats:
    """`waiting` are the commands that wait for a connection now; `most` may be under way at once."""

    state: State
    connections: int
    in_use: int
    waiting: int
    most: int
    is_breaker_open: bool
    no_replies: Mapping[str, int]


class Remote:
    """A client of the Redis at `url` (see address.py; empty: off), for the process that creates it.

    Raises ConfigError: the URL cannot be read. Nothing else is ever raised: see `NoReply`.
    """

    def __init__(
        self,
        url: str,
        connections: int = 16,
        timeout_seconds: float = 0.1,
        client_name: str = "ragagent",
    ) -> None:
        self._url = url
        self._digests: dict[str, str] = {}
        address = parse(url or "redis://")
        # One server is bounded by its socket's timeouts. On the way to others sentinels and nodes are asked as well.
        budget_seconds = None if address.kind == "single" else CONNECT_SECONDS + 2 * timeout_seconds
        self._database = int(address.options.get("db", 0))
        settings = Settings(connections, timeout_seconds, client_name, on_connect=meter.connected)
        self._topology = connect(address, settings)
        self._client = self._topology.client
        self._backend = Backend(self._client)
        self._reads: Reads[NoReply] = Reads(self._fetch)
        self._gate = Gate(self._topology, connections, budget_seconds, is_on=bool(url))

    async def __aenter__(self) -> Self:
        await self.check()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def state(self) -> State:
        if not self._url:
            return "off"
        return "up" if self._gate.is_well else "degraded"

    @property
    def is_reachable(self) -> bool:
        """Whether a command sent now would touch the server."""
        return self._gate.lets_pass

    @property
    def database(self) -> int:
        """The number of the database. Channels are the server's, not a database's."""
        return self._database

    async def check(self) -> None:
        """Ask for the server once: before the first request, or where there is a sign that it has gone."""
        await self._gate.check()

    async def call(self, command: str, run: Callable[[], Awaitable[T]]) -> T | NoReply:
        """Run one command, or say why not. `command` names it in logs and metrics."""
        return await self._gate.call(command, run)

    async def get(self, key: str) -> bytes | NoReply | None:
        """Return the value of `key`; None: there is none. What one turn of the loop asks for goes as one MGET."""
        reason = self._gate.barred()
        return self._gate.without(reason) if reason else await self._reads.get(key)

    async def set(self, key: str, value: bytes, ttl: float) -> NoReply | None:
        """Store `value` for `ttl` seconds; None: it is stored."""
        reply = await self.call("set", lambda: self._backend._set(key, value, ttl=ttl))
        return reply if isinstance(reply, NoReply) else None

    async def unlink(self, *keys: bytes | str) -> int | NoReply:
        return await self.call("unlink", lambda: self._client.unlink(*keys))

    async def publish(self, channel: str, message: bytes) -> int | NoReply:
        """Tell all subscribers of `channel`. In a cluster the number returned is of those on one node."""
        return await self.call("publish", lambda: self._client.execute_command("PUBLISH", channel, message))

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes | str | int | float] = ()) -> Any:
        """Return what the Lua `script` returns, or a NoReply. All `keys` share one hash tag: a cluster needs it.

        It goes as a digest, and in full only where the server does not know it.
        """
        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

        async def evaluate() -> Any:
            try:
                return await self._client.evalsha(digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._client.eval(script, len(keys), *keys, *arguments)

        return await self.call("evalsha", evaluate)

    async def purge(self, prefix: str, timeout_seconds: float = 10.0) -> tuple[int, bool]:
        """Unlink every key that begins with `prefix`; return how many, and whether the end was reached in time."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        total = 0
        async with aclosing(self.pages(prefix)) as pages:
            async for page in pages:
                unlinked = page if isinstance(page, NoReply) else await self.unlink(*page) if page else 0
                if isinstance(unlinked, NoReply):
                    return total, False
                total += unlinked
                if asyncio.get_running_loop().time() >= deadline:
                    return total, False
        return total, True

    async def weigh(self, key: bytes | str) -> tuple[int, float | None] | NoReply | None:
        """Return the bytes that `key` takes there and the seconds that it has left (None: no end); None: it is gone."""
        size = await self.call("memory", lambda: self._client.memory_usage(key))
        left = await self.call("pttl", lambda: self._client.pttl(key))
        if isinstance(size, NoReply):
            return size
        if isinstance(left, NoReply):
            return left
        return None if size is None or left == -2 else (int(size), None if left < 0 else left / 1000)

    async def pages(self, prefix: str) -> AsyncGenerator[Sequence[bytes | str] | NoReply]:
        """Yield the keys that begin with `prefix`, some hundred at a time, perhaps one twice. A NoReply is the last."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        if reason := self._gate.barred():  # A cluster that was never reached has no shards to ask.
            yield self._gate.without(reason)
            return
        for scan in self._topology.shards():
            cursor = -1
            while cursor:
                page = await self.call("scan", partial(scan, max(cursor, 0), pattern, SCAN_COUNT))
                if isinstance(page, NoReply):
                    yield page
                    return
                cursor, found = page
                yield found

    def dedicated(self) -> Redis:
        """Return a client on connections of its own, for what holds one: a subscription. The caller closes it.

        It raises redis-py's errors, and knows neither breaker nor slots. In a cluster it leads to any one node, which
        hears what is published on all of them: after an error, close it and take another.
        """
        self._gate.check_owner()
        return self._topology.dedicated()

    def stats(self) -> RemoteStats:
        connections = self._topology.connections()
        return RemoteStats(
            self.state,
            connections=connections.idle + connections.used,
            in_use=connections.used,
            waiting=self._gate.slots.waiting,
            most=self._gate.slots.number,
            is_breaker_open=self._gate.is_breaker_open,
            no_replies=dict(self._gate.no_replies),
        )

    def report(self) -> None:
        """Have the exporter ask for what the connection does at that moment. After `telemetry.init`."""

        def connections() -> list[tuple[dict[str, str], int]]:
            stats = self.stats()
            counts = {"used": stats.in_use, "idle": stats.connections - stats.in_use}
            return [({**meter.POOL, names.DB_CONNECTION_STATE: state}, count) for state, count in counts.items()]

        telemetry.gauge(names.DEPENDENCY_UP, lambda: [({names.DEPENDENCY: "redis"}, int(self.state == "up"))])
        telemetry.gauge(names.REDIS_CONNECTIONS, connections)
        telemetry.gauge(names.REDIS_CONNECTIONS_MAX, lambda: [(meter.POOL, self.stats().most)])
        telemetry.gauge(names.REDIS_PENDING, lambda: [(meter.POOL, self.stats().waiting)])
        telemetry.gauge(names.REDIS_BREAKER_OPEN, lambda: int(self.stats().is_breaker_open))

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        await self._gate.aclose(timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._topology.aclose()
        except Exception as exc:
            log.info("Closing the connections to Redis took no proper end: %s.", type(exc).__name__)

    async def _fetch(self, keys: Sequence[str]) -> list[bytes | None] | NoReply:
        if len(keys) == 1:  # A list of one is slower to read.
            reply = await self.call("get", lambda: self._backend._get(keys[0], encoding=None))
            return reply if isinstance(reply, NoReply) else [reply]
        return await self._gate.call("mget", lambda: self._backend._multi_get(keys), callers=len(keys))
