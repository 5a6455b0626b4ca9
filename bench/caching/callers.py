"""One of some processes whose callers all want the same value at the same moment. Started by flight.py.

    cd bench && python -m caching.callers WAY URL BEGIN

Prints what it saw as JSON. The function that is called counts its calls in Redis, so that they add up over processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from redis.asyncio import Redis

from caching import ours, rivals

CALLERS = 50
WORK_SECONDS = 0.3
COUNTER = "bench:computations"

Call = Callable[[int], Awaitable[object]]


@contextlib.asynccontextmanager
async def prepared(way: str, url: str, compute: rivals.Compute) -> AsyncIterator[Call]:
    """Yield the call of one way, which gives the value that `compute` gave before, if it did."""
    if way == "ours":
        async with ours.tiers(url) as (cache, _):
            yield lambda number: ours.fetch(cache, number, lambda: compute(number), shared=True)
    else:
        ways = {"aiocache": rivals.aiocache_stampede, "cashews": rivals.cashews_stampede}
        yield ways[way](compute, url)


async def main(way: str, url: str, begin: float) -> None:
    async with Redis.from_url(url) as counting:

        async def compute(number: int) -> ours.Value:
            await counting.incr(f"{COUNTER}:{way}")
            await asyncio.sleep(WORK_SECONDS)
            return ours.value(number)

        async with prepared(way, url, compute) as call:
            await asyncio.sleep(max(begin - time.time(), 0))
            took = await asyncio.gather(*(_timed(call) for _ in range(CALLERS)))
    print(json.dumps({"failed": sum(one is None for one in took), "slowest": max(one or 0 for one in took)}))


async def _timed(call: Call) -> float | None:
    begun = time.perf_counter()
    try:
        await call(1)
    except Exception as exc:  # Whatever a caller is shown counts: that is what is measured.
        print(repr(exc), file=sys.stderr)
        return None
    return time.perf_counter() - begun


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
