"""From an address to what answers there: one server, the primary that sentinels name, or a cluster.

Above this file nobody knows which it is. What differs stands here: how a probe asks, which shards a scan must visit,
what connections there are, and where a connection of one's own leads.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from ragagent.remote.address import Address

CONNECT_SECONDS = 0.25
SPARE_CONNECTIONS = 4  # beyond the callers' slots: the probe's own, and those that are just being replaced
IDLE_CHECK_SECONDS = 15
PROBE_KEY = "rag:probe"

Scan = Callable[[int, str, int], Awaitable[tuple[int, list[bytes | str]]]]


@dataclass(frozen=True, slots=True)
class Connections:
    idle: int
    used: int


@dataclass(frozen=True, slots=True)
class Settings:
    connections: int
    timeout_seconds: float
    client_name: str
    on_connect: Callable[[], None]


class Topology(Protocol):
    client: Redis | RedisCluster

    async def ping(self) -> None:
        """Return when commands would be answered; raise when not. Learns anew where they have to go."""

    def shards(self) -> Sequence[Scan]:
        """Return one SCAN(cursor, pattern, count) for each part that the keys are spread over."""

    def connections(self) -> Connections: ...

    async def renew(self) -> None:
        """Let go of idle connections, so that the next ones lead to where the name leads now."""

    def dedicated(self) -> Redis: ...

    async def aclose(self) -> None: ...


def connect(address: Address, settings: Settings) -> Topology:
    """Return what speaks to `address`. Nothing is opened yet."""
    if address.kind == "cluster":
        return Cluster(address, settings)
    return Single(address, settings)


class Single:
    """One server at a time: that of the address, or the one which sentinels call the primary at each connect."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._address = address
        self._options = _options(address, settings)
        self._sentinel = _sentinel(address, settings) if address.kind == "sentinel" else None
        self._pool = self._new_pool(
            max_connections=address.options.get("max_connections", settings.connections + SPARE_CONNECTIONS),
            redis_connect_func=_counting(settings.on_connect),
        )
        self._client = Redis(connection_pool=self._pool)
        self.client: Redis | RedisCluster = self._client

    async def ping(self) -> None:
        await self._client.ping()

    def shards(self) -> Sequence[Scan]:
        async def scan(cursor: int, pattern: str, count: int) -> tuple[int, list[bytes | str]]:
            return await self._client.scan(cursor, match=pattern, count=count)

        return [scan]

    def connections(self) -> Connections:
        idle, used = (count for count, _ in self._pool.get_connection_count())
        return Connections(idle, used)

    async def renew(self) -> None:
        await self._pool.disconnect(inuse_connections=False)

    def dedicated(self) -> Redis:
        return Redis.from_pool(self._new_pool())

    async def aclose(self) -> None:
        await self._client.aclose(close_connection_pool=True)
        if self._sentinel is not None:
            await self._sentinel.aclose()

    def _new_pool(self, **more: Any) -> ConnectionPool:
        options = self._options | more
        if self._sentinel is None:
            return ConnectionPool(connection_class=self._address.connection_class, **options)
        return SentinelConnectionPool(  # type: ignore[no-untyped-call]
            self._address.service,
            self._sentinel,
            connection_class=SentinelManagedSSLConnection if self._address.is_encrypted else SentinelManagedConnection,
            **options,
        )


class Cluster:
    """Any nodes of it are enough to find the others. A shard that nobody answers for makes it count as down.

    It would otherwise cost every third caller a timeout for as long as the failover takes, 15 s by default.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        self._options = _options(address, settings)
        options = dict(self._options)
        options.setdefault("max_connections", settings.connections + SPARE_CONNECTIONS)
        self._hosts = address.hosts
        self._connection_class = address.connection_class
        self._client = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
            ssl=address.is_encrypted,
            require_full_coverage=False,  # whether there is one, its nodes say: CLUSTERDOWN
            reinitialize_steps=0,  # else every fifth MOVED would cut all connections, with what is under way on them
            **options,
        )
        connect = _counting(settings.on_connect)
        self._client.get_connection_kwargs()["redis_connect_func"] = connect
        for node in self._client.startup_nodes:
            node.connection_kwargs["redis_connect_func"] = connect
        self.client: Redis | RedisCluster = self._client

    async def ping(self) -> None:
        await self._client.aclose()  # Forgets who serves which slots; it is asked again now.
        await self._client.initialize()
        await self._client.ping(target_nodes=RedisCluster.PRIMARIES)
        await self._client.exists(PROBE_KEY)  # A node without its cluster answers PING, and CLUSTERDOWN to this.

    def shards(self) -> Sequence[Scan]:
        return [_scan_of(node) for node in self._client.get_primaries()]

    def connections(self) -> Connections:
        # Copies: the exporter's thread asks as well.
        nodes = self._client.get_nodes()
        idle = sum(connection.is_connected for node in nodes for connection in tuple(node._free))
        open_ = sum(connection.is_connected for node in nodes for connection in tuple(node._connections))
        return Connections(idle, open_ - idle)

    async def renew(self) -> None:
        """Nothing to do: a node that is no primary any more says where the key has gone."""

    def dedicated(self) -> Redis:
        nodes = [(node.host, int(node.port)) for node in self._client.get_primaries()] or list(self._hosts)
        host, port = random.choice(nodes)
        options = self._options | {"host": host, "port": port}
        return Redis.from_pool(ConnectionPool(connection_class=self._connection_class, **options))

    async def aclose(self) -> None:
        await self._client.aclose()


def _scan_of(node: ClusterNode) -> Scan:
    async def scan(cursor: int, pattern: str, count: int) -> tuple[int, list[bytes | str]]:
        found: tuple[int, list[bytes | str]] = await node.execute_command(
            "SCAN", cursor, "MATCH", pattern, "COUNT", count
        )
        return found

    return scan


def _options(address: Address, settings: Settings) -> dict[str, Any]:
    """Return redis-py's options. Its defaults (10 retries, 5 s) would hold a request for a minute on a hung server."""
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": max(CONNECT_SECONDS, settings.timeout_seconds),
        "health_check_interval": IDLE_CHECK_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
        "client_name": settings.client_name,
        # Both would send commands that an older server answers with errors, at every connect.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if address.kind == "single" and address.hosts:
        options["host"], options["port"] = address.hosts[0]
    return {**options, **address.options}


def _sentinel(address: Address, settings: Settings) -> Sentinel:
    common = {
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": max(CONNECT_SECONDS, settings.timeout_seconds),
        "retry": Retry(NoBackoff(), 0),
        "client_name": settings.client_name,
        "driver_info": None,
        "ssl": address.is_encrypted,
    }
    sentinel_kwargs = {**common, **address.sentinel_options}
    return Sentinel(address.hosts, sentinel_kwargs=sentinel_kwargs)  # type: ignore[no-untyped-call]


def _counting(on_connect: Callable[[], None]) -> Callable[[AbstractConnection], Awaitable[None]]:
    async def connected(connection: AbstractConnection) -> None:
        await connection.on_connect()
        on_connect()

    return connected
