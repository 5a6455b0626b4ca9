"""aiocache's Redis backend, less what a shared server and redis-py 8 forbid, and with what a cluster needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from aiocache import RedisCache
from aiocache.serializers import NullSerializer
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster


class Backend(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """Only its SPI is used, the methods with an underscore: the public ones would wrap each command in a task."""

    def __init__(self, client: Redis | RedisCluster) -> None:
        super().__init__(serializer=NullSerializer(), timeout=0)
        self.client = client

    async def _set(
        self, key: str, value: bytes, ttl: float | None = None, _cas_token: object = None, _conn: object = None
    ) -> Any:
        # SETEX is deprecated, takes whole seconds, and refuses 0.
        return await self.client.set(key, value, px=None if ttl is None else max(1, round(ttl * 1000)))

    async def _multi_get(
        self, keys: Sequence[str], encoding: str | None = None, _conn: object = None
    ) -> list[bytes | None]:
        if isinstance(self.client, RedisCluster):
            values = await self.client.mget_nonatomic(keys)  # one MGET a slot, in one pipeline a node
        else:
            values = await self.client.mget(keys)
        return list(values)

    async def _clear(self, namespace: str | None = None, _conn: object = None) -> NoReturn:
        raise NotImplementedError("The cache never flushes a database that others may share; use Remote.purge.")
