"""Our cache as the benchmarks use it: whatever changes in how it is called changes here alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from ragagent.cache.keys import SHARED, Key
from ragagent.cache.life import Life
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.remote.connection import Remote

MIB = 1024 * 1024
TTL = 600.0
Value = Mapping[str, Any]


def key(number: int) -> Key:
    return Key("answer", SHARED, f"question {number}")


def value(number: int) -> Value:
    """Return what an answer looks like: 1.8 kB packed."""
    words = " ".join(f"word{(number * 7 + place) % 997}" for place in range(150))
    quote = {"file_id": f"file-{number:024}", "quote": words[:150], "score": 0.5 + number % 10 / 100}
    return {
        "text": words[:1200],
        "citations": [quote, quote],
        "usage": {"prompt_tokens": 900, "completion_tokens": 200},
    }


@contextlib.asynccontextmanager
async def tiers(url: str = "", local_bytes: int = 256 * MIB) -> AsyncIterator[tuple[TieredCache, LocalCache]]:
    """Yield the whole cache, and its local tier. Without a URL there is no other."""
    local = LocalCache(local_bytes)
    async with contextlib.AsyncExitStack() as stack:
        remote = await stack.enter_async_context(Remote(url)) if url else None
        cache = TieredCache(local, remote)
        stack.push_async_callback(cache.aclose)
        yield cache, local


async def fetch(
    cache: TieredCache, number: int, compute: Callable[[], Awaitable[Value]], *, shared: bool = False
) -> Value:
    """Return the value of that number; `shared`: with one computation for all processes."""
    return (await cache.fetch(key(number), compute, Life(TTL), shared=shared)).value


async def put(cache: TieredCache, number: int, kept: Value) -> None:
    await cache.put(key(number), kept, Life(TTL))
