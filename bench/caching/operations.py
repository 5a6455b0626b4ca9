"""What one operation costs in each tier, and what the same call costs with aiocache and with cashews.

One after the other, in one loop, by turns, the best of some rounds: so these are costs of code. A "cached call" is what
an application writes: a function behind a cache, asked for what is there.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiocache

from caching import ours, rivals
from caching.redis_process import redis_process
from report import Report

KEYS = 200
ROUNDS = 7
AWAITED = 2_000  # calls in a round
PLAIN = 20_000

Call = Callable[[int], Awaitable[object]]


async def measure(report: Report) -> None:
    values = [ours.value(number) for number in range(KEYS)]

    async def compute(number: int) -> ours.Value:
        return values[number]

    with redis_process() as url:
        await _local(report, compute, values)
        await _remote(report, compute, values, url)


async def _local(report: Report, compute: rivals.Compute, values: Sequence[ours.Value]) -> None:
    async with ours.tiers() as (cache, local):
        memory = aiocache.SimpleMemoryCache()
        names = [ours.key(number).rendered for number in range(KEYS)]
        for number in range(KEYS):
            await ours.put(cache, number, await compute(number))
            await memory.set(names[number], await compute(number))
        peek = min(_plain(lambda number: local.peek(names[number])) for _ in range(ROUNDS))
        report.add(0, "L1 peek", peek, "us", at_most=1)
        memory_get = min([await _awaited(lambda number: memory.get(names[number])) for _ in range(ROUNDS)])
        report.add(0, "aiocache SimpleMemoryCache.get / L1 peek", memory_get / peek, "x", at_least=5)

        calls: dict[str, Call] = {
            "ours": lambda number: ours.fetch(cache, number, lambda: compute(number)),
            "aiocache": rivals.aiocache_memory(compute),
        }
        if rivals.HAS_CASHEWS:
            calls["cashews"] = rivals.cashews_memory(compute)
        await _compare(report, "cached call, local hit", calls, at_least=1.5)

        sets: dict[str, Call] = {
            "ours": lambda number: ours.put(cache, number, values[0]),
            "aiocache": lambda number: memory.set(names[number], values[0], ttl=ours.TTL),
        }
        await _compare(report, "set, local", sets)


async def _remote(report: Report, compute: rivals.Compute, values: Sequence[ours.Value], url: str) -> None:
    async with ours.tiers(url, local_bytes=0) as (cache, _):  # Nothing stays in L1, so each call goes to L2.
        calls: dict[str, Call] = {
            "ours": lambda number: ours.fetch(cache, number, lambda: compute(number)),
            "aiocache": rivals.aiocache_redis(compute, url),
        }
        if rivals.HAS_CASHEWS:
            calls["cashews"] = rivals.cashews_redis(compute, url)
        for number in range(KEYS):
            await ours.put(cache, number, await compute(number))
            await cache.drain()
        await _compare(report, "cached call, Redis hit", calls)

        async def put(number: int) -> None:
            await ours.put(cache, number, values[0])
            await cache.drain()

        backend = aiocache.RedisCache(**rivals.redis_options(url))
        sets: dict[str, Call] = {
            "ours": put,
            "aiocache": lambda number: backend.set(str(number), values[0], ttl=int(ours.TTL)),
        }
        await _compare(report, "set, to its end in Redis", sets)
        await backend.close()


async def _compare(report: Report, what: str, calls: Mapping[str, Call], at_least: float | None = None) -> None:
    """Measure by turns, and report ours in microseconds and the others as multiples of it, `at_least` so many."""
    for call in calls.values():
        await _awaited(call)  # The first call of each fills its cache.
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            best[name] = min(best[name], await _awaited(call))
    report.add(0, what, best["ours"], "us")
    for name in calls:
        if name != "ours":
            report.add(0, f"{what}: {name} / ours", best[name] / best["ours"], "x", at_least=at_least)


def _plain(call: Callable[[int], object]) -> float:
    begun = time.perf_counter()
    for number in range(PLAIN):
        call(number % KEYS)
    return (time.perf_counter() - begun) / PLAIN * 1e6


async def _awaited(call: Call) -> float:
    begun = time.perf_counter()
    for number in range(AWAITED):
        await call(number % KEYS)
    return (time.perf_counter() - begun) / AWAITED * 1e6
