"""The one Redis of this process: what workers and hosts share. It may be slow to help; it never breaks an answer.

Whatever goes wrong is a `NoReply`, counted by its reason, and to a caller a miss. What it costs is bounded: a command
waits at most SLOT_SECONDS for a connection and `timeout_seconds` for each reply, and after three failures in a row the
breaker keeps everyone away from a server that hangs or is gone. Not every error means that:

    TimeoutError, ConnectionError   the server does not answer         opens the breaker
    ResponseError (OOM, NOPERM...)  it answers: no                     its `state` is degraded, but reads may go on
    no free connection              we are too many                    says nothing about the server

Commands run through aiocache's Redis backend, whose own habits (an unbounded pool, FLUSHDB in `clear`) stay out.
Created in the process that uses it, never before a fork: two processes on one socket would read each other's replies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NoReturn, Self, TypeVar

from aiocache import RedisCache
from aiocache.serializers import NullSerializer
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import MaxConnectionsError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from ragagent.errors import ConfigError
from ragagent.remote.breaker import Breaker

T = TypeVar("T")
State = Literal["off", "up", "degraded"]

SLOT_SECONDS = 0.05
CONNECT_SECONDS = 0.25
SPARE_CONNECTIONS = 4  # beyond the callers' slots: the probe's own, and those that are just being replaced
IDLE_CHECK_SECONDS = 15
SCAN_COUNT = 500

log = logging.getLogger(__name__)


class NoReply(StrEnum):
    """Why there is no answer from Redis: to a caller a miss, to an operator a counter."""

    OFF = "off"
    OPEN = "open"  # the breaker is
    SATURATED = "saturated"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RemoteStats:
    state: State
    connections: int
    in_use: int
    no_replies: Mapping[str, int]


class _Backend(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """aiocache's backend, less what it does that a shared server and redis-py 8 forbid."""

    async def _set(
        self, key: str, value: bytes, ttl: float | None = None, _cas_token: object = None, _conn: object = None
    ) -> Any:
        # SETEX is deprecated, takes whole seconds, and refuses 0.
        return await self.client.set(key, value, px=None if ttl is None else max(1, round(ttl * 1000)))

    async def _clear(self, namespace: str | None = None, _conn: object = None) -> NoReturn:
        raise NotImplementedError("The cache never flushes a database that others may share; use Remote.purge.")


class Remote:
    """A client of the Redis at `url` (redis://, rediss://, unix://; empty: off), for the process that creates it.

    Raises ConfigError: the URL is none of these. Nothing else is ever raised: see `NoReply`.
    """

    def __init__(
        self,
        url: str,
        connections: int = 16,
        timeout_seconds: float = 0.1,
        client_name: str = "ragagent",
    ) -> None:
        self._url = url
        self._owner = os.getpid()
        self._is_closed = False
        self._slots = asyncio.Semaphore(connections)  # FIFO; redis-py's own waiting pool lets a releaser overtake
        self._no_replies: Counter[str] = Counter()
        self._scripts: dict[str, AsyncScript] = {}
        self._refused: set[str] = set()  # the commands that the server answered with an error the last time
        self._complained: set[str] = set()  # those that were logged since the server came up
        self._pool = _pool(url or "redis://", connections, timeout_seconds, client_name)
        self._client = Redis(connection_pool=self._pool)
        self._backend = _Backend(serializer=NullSerializer(), timeout=0)
        self._backend.client = self._client
        self._breaker = Breaker(self._client.ping, self._on_change)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def state(self) -> State:
        if not self._url:
            return "off"
        return "degraded" if self._breaker.is_open or self._refused else "up"

    @property
    def is_reachable(self) -> bool:
        """Whether a command sent now would touch the server."""
        return bool(self._url) and not self._is_closed and not self._breaker.is_open

    async def start(self) -> None:
        """Ask for the server once, so that the first request finds it up. Without this, the first call asks."""
        if self._url and not await self._breaker.check():
            self._breaker.allows()

    async def get(self, key: str) -> bytes | NoReply | None:
        return await self.call("get", lambda: self._backend._get(key, encoding=None))

    async def set(self, key: str, value: bytes, ttl: float) -> NoReply | None:
        """Store `value` for `ttl` seconds; None: it is stored."""
        reply = await self.call("set", lambda: self._backend._set(key, value, ttl=ttl))
        return reply if isinstance(reply, NoReply) else None

    async def unlink(self, *keys: bytes | str) -> int | NoReply:
        return await self.call("unlink", lambda: self._client.unlink(*keys))

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes | str | int | float] = ()) -> Any:
        """Return what the Lua `script` returns, or a NoReply. All `keys` share one hash tag: a cluster needs it.

        It goes as a digest, and in full only where the server does not know it.
        """
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self._client.register_script(script)
        return await self.call("evalsha", lambda: known(keys=list(keys), args=list(arguments)))

    async def purge(self, prefix: str, timeout_seconds: float = 10.0) -> tuple[int, bool]:
        """Unlink every key that begins with `prefix`; return how many, and whether the end was reached in time."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        cursor, total = 0, 0
        while asyncio.get_running_loop().time() < deadline:
            page = await self._scan(cursor, pattern)
            if isinstance(page, NoReply):
                break
            cursor, found = page
            unlinked = await self.unlink(*found) if found else 0
            if isinstance(unlinked, NoReply):
                break
            total += unlinked
            if not cursor:
                return total, True
        return total, False

    async def _scan(self, cursor: int, pattern: str) -> tuple[int, list[bytes | str]] | NoReply:
        return await self.call("scan", lambda: self._client.scan(cursor, match=pattern, count=SCAN_COUNT))

    def stats(self) -> RemoteStats:
        idle, in_use = (count for count, _ in self._pool.get_connection_count())
        return RemoteStats(self.state, idle + in_use, in_use, dict(self._no_replies))

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        self._is_closed = True
        await self._breaker.aclose(timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._client.aclose(close_connection_pool=True)
        except Exception as exc:
            log.info("Closing the connections to Redis took no proper end: %s.", type(exc).__name__)

    async def call(self, command: str, run: Callable[[], Awaitable[T]]) -> T | NoReply:
        """Run one command, or say why not. The one place where Redis' errors end. `command` names it in the log."""
        if os.getpid() != self._owner:
            raise RuntimeError(f"This Redis client belongs to process {self._owner}; create one after the fork.")
        if not self._url or self._is_closed:
            return NoReply.OFF
        if not self._breaker.allows():
            return self._without(NoReply.OPEN)
        if not await self._slot():
            return self._without(NoReply.SATURATED)
        try:
            reply = await run()
        except MaxConnectionsError:
            return self._without(NoReply.SATURATED)
        except ResponseError as exc:
            return self._on_refusal(command, exc)
        except Exception as exc:  # Any error: neither redis-py's bugs nor a stranger on the port may reach an answer.
            self._breaker.failed(exc)
            return self._without(NoReply.FAILED)
        finally:
            self._slots.release()
        self._breaker.succeeded()
        self._refused.discard(command)
        return reply

    async def _slot(self) -> bool:
        if not self._slots.locked():
            return await self._slots.acquire()  # Does not wait, and needs no timer.
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                return await self._slots.acquire()
        except TimeoutError:
            return False

    def _without(self, reason: NoReply) -> NoReply:
        self._no_replies[reason] += 1
        return reason

    # No log line may hold what a command carried: keys are hashes, but values are prompts and answers, and a server
    # may quote either in its error. So of an error only its code or class is written.

    def _on_refusal(self, command: str, exc: ResponseError) -> NoReply:
        self._breaker.succeeded()
        self._refused.add(command)
        if command not in self._complained:
            self._complained.add(command)
            log.warning("Redis refuses %s (%s); the cache goes on without it.", command.upper(), type(exc).__name__)
        return self._without(NoReply.REFUSED)

    def _on_change(self, cause: Exception | None) -> None:
        if cause is None:
            self._refused.clear()
            self._complained.clear()
            log.info("Redis answers: the shared cache is in use.")
        else:
            log.warning("Redis does not answer (%s): the cache is per process until it does.", type(cause).__name__)


def _pool(url: str, connections: int, timeout_seconds: float, client_name: str) -> ConnectionPool:
    """Build the pool. redis-py's defaults (10 retries, 5 s) would hold a request for a minute on a hung server."""
    try:
        pool = ConnectionPool.from_url(
            url,
            max_connections=connections + SPARE_CONNECTIONS,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=max(CONNECT_SECONDS, timeout_seconds),
            health_check_interval=IDLE_CHECK_SECONDS,
            retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 0),
            protocol=3,
            client_name=client_name,
            # Both would send commands that an older server answers with errors, at every connect.
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError as exc:  # The URL itself may hold a password: it is not quoted.
        raise ConfigError(f"Config key 'redis.url' is not a Redis URL: {exc}.") from exc
    pool.connection_kwargs["decode_responses"] = False  # `?decode_responses=1` in the URL would turn values into text.
    return pool
