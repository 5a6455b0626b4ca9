"""What others would write: aiocache's and cashews' decorators around the same function, with their defaults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiocache
from aiocache.decorators import cached, cached_stampede

from caching.ours import TTL, Value

try:
    from cashews import Cache as Cashews
except ImportError:
    Cashews = None

HAS_CASHEWS = Cashews is not None
WITHOUT_CASHEWS = "cashews is not installed, and left out: pip install -e '.[bench]'"

Compute = Callable[[int], Awaitable[Value]]


def aiocache_memory(compute: Compute) -> Compute:
    return _typed(cached(ttl=int(TTL), key_builder=_key)(compute))


def aiocache_redis(compute: Compute, url: str) -> Compute:
    return _typed(cached(ttl=int(TTL), key_builder=_key, cache=aiocache.Cache.REDIS, **redis_options(url))(compute))


def aiocache_stampede(compute: Compute, url: str) -> Compute:
    decorate = cached_stampede(ttl=int(TTL), key_builder=_key, cache=aiocache.Cache.REDIS, **redis_options(url))
    return _typed(decorate(compute))


def cashews_memory(compute: Compute) -> Compute:
    return _cashews(compute, "mem://?size=100000")


def cashews_redis(compute: Compute, url: str) -> Compute:
    return _cashews(compute, url)


def cashews_stampede(compute: Compute, url: str) -> Compute:
    """Return the function under both of cashews' protections: one in the process, one lock in Redis."""
    return _cashews(compute, url, lock=True)


def _cashews(compute: Compute, url: str, **options: Any) -> Compute:
    cache = Cashews()
    cache.setup(url)
    return _typed(cache(ttl=TTL, key="bench:{number}", **options)(compute))


def redis_options(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "endpoint": parts.hostname,
        "port": parts.port,
        "serializer": aiocache.serializers.JsonSerializer(),
        "namespace": "aiocache",
    }


def _key(function: object, number: int) -> str:
    return f"bench:{number}"


def _typed(decorated: Any) -> Compute:
    """Neither library says what its decorators return."""
    made: Compute = decorated
    return made
