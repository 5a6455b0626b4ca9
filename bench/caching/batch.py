"""Many look-ups in Redis at the same time: ours, and one GET for each through redis-py's own pool and aiocache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiocache
from aiocache.serializers import NullSerializer
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

import machine
from caching import ours, rivals
from caching.redis_process import redis_process
from ragagent.remote.connection import NoReply, Remote
from report import Report

TOGETHER = (8, 32, 128)
CONNECTIONS = 16
SECONDS = 1.5
ROUNDS = 2
KEYS = 1_000
VALUE_BYTES = 800
GAIN = 3.0  # at 32

Get = Callable[[str], Awaitable[object]]


class Rate(NamedTuple):
    replies: float  # a second, as is what follows
    refused: float
    p99: float  # of those with a reply, in milliseconds


async def measure(report: Report) -> None:
    with redis_process() as url:
        pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=20)
        async with Redis(connection_pool=pool) as plain, Remote(url, connections=CONNECTIONS) as remote:
            options = {**rivals.redis_options(url), "namespace": "", "serializer": NullSerializer()}
            backend = aiocache.RedisCache(**options)
            names = [ours.key(number).rendered for number in range(KEYS)]
            for name in names:
                await plain.set(name, bytes(VALUE_BYTES))
            ways: dict[str, Get] = {"ours": remote.get, "one GET each": plain.get, "aiocache": backend.get}
            for together in TOGETHER:
                await _compare(report, names, ways, together)
            await backend.close()


async def _compare(report: Report, names: list[str], ways: dict[str, Get], together: int) -> None:
    best = dict.fromkeys(ways, Rate(0, 0, 0))
    for _ in range(ROUNDS):
        for name, get in ways.items():
            best[name] = max(best[name], await _rate(names, get, together))
    mine = best.pop("ours")
    report.add(together, "gets a second: ours", mine.replies, "1/s")
    report.add(together, "get p99: ours", mine.p99, "ms", at_most=5)
    report.add(together, "gets without a reply: ours", mine.refused, "1/s", at_most=0)
    for name, other in best.items():
        least = GAIN if (name, together) == ("one GET each", 32) else None
        report.add(together, f"gets a second: ours / {name}", mine.replies / other.replies, "x", at_least=least)
        report.add(together, f"get p99: {name}", other.p99, "ms")
        report.add(together, f"gets without a reply: {name}", other.refused, "1/s")


async def _rate(names: list[str], get: Get, together: int) -> Rate:
    """Let so many ask without pause."""
    seconds: list[float] = []
    refused = 0
    until = time.perf_counter() + SECONDS

    async def ask(slot: int) -> None:
        nonlocal refused
        number = slot * KEYS // together
        while (begun := time.perf_counter()) < until:
            try:
                found = await get(names[number % KEYS])
            except RedisError:
                found = NoReply.FAILED
            if isinstance(found, NoReply):
                refused += 1
            else:
                assert isinstance(found, bytes | str), found
                assert len(found) == VALUE_BYTES
                seconds.append(time.perf_counter() - begun)
            number += 1

    await asyncio.gather(*(ask(slot) for slot in range(together)))
    return Rate(len(seconds) / SECONDS, refused / SECONDS, machine.percentile(seconds, 0.99))
