"""What is past its time: refreshed behind the caller, replaced, or, where nothing newer can be had, served as it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragagent.cache import keys
from ragagent.cache.fetched import Fetched, Streaming
from ragagent.cache.flights.flight import Tell
from ragagent.cache.flights.pauses import PAUSE_SECONDS
from ragagent.cache.life import JITTER, Life, Nothing
from ragagent.cache.local import LocalCache
from ragagent.cache.tiered import TieredCache
from ragagent.errors import Invalid, Unavailable, Upstream
from ragagent.remote.connection import Remote
from redis_server import RedisServer

pytestmark = pytest.mark.anyio

KEY = keys.retrieval("acme", [("vs_1", 3, 3)], "model", "question", {})
LIFE = Life(60, stale=30, on_error=600, negative=10)
FRESH, STALE, OLD = 60 * (1 - JITTER) - 1, 60 * (1 + JITTER) + 1, 60 * (1 + JITTER) + 31
SECRET = "what was asked"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Compute:
    """Counts; returns "value 1", "value 2", ..., or raises `failure`; waits at the gate where that is closed."""

    def __init__(self) -> None:
        self.calls = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> str:
        self.calls += 1
        value = f"value {self.calls}"
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return value


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.heard: list[tuple[str, str, str]] = []
        self.cache = TieredCache(
            LocalCache(1024 * 1024, clock=self.clock),
            clock=self.clock,
            on_event=lambda *event: self.heard.append(event),
        )
        self.compute = Compute()

    async def ask(self, life: Life = LIFE) -> Fetched[str]:
        return await self.cache.fetch(KEY, self.compute, life)

    async def rest(self) -> None:
        """Let what goes on behind the callers end."""
        async with asyncio.timeout(5):
            while self.cache.stats().flights:  # noqa: ASYNC110  Nothing tells of it, by design.
                await asyncio.sleep(0)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_a_stale_value_is_served_while_one_refresh_replaces_it(scene: Scene) -> None:
    await scene.ask()
    scene.clock.now += FRESH
    assert await scene.ask() == Fetched("value 1", "l1")
    scene.clock.now += STALE - FRESH
    scene.compute.gate.clear()
    assert [await scene.ask() for _ in range(20)] == [Fetched("value 1", "stale")] * 20
    await asyncio.sleep(0)
    assert scene.compute.calls == 2, "once, behind them all"
    scene.compute.gate.set()
    await scene.rest()
    assert await scene.ask() == Fetched("value 2", "l1")
    assert scene.cache.stats().l1.stale == 20
    assert ("l1", "retrieval", "stale") in scene.heard


async def test_past_that_it_is_computed_while_the_caller_waits(scene: Scene) -> None:
    await scene.ask()
    scene.clock.now += OLD
    assert await scene.ask() == Fetched("value 2", "miss")


async def test_without_a_time_for_it_nothing_is_served_stale(scene: Scene) -> None:
    await scene.ask(Life(60))
    scene.clock.now += STALE
    assert await scene.ask(Life(60)) == Fetched("value 2", "miss")


@pytest.mark.parametrize("failure", [Upstream("away"), Unavailable("index"), TimeoutError()], ids=repr)
async def test_where_nothing_newer_can_be_had_the_old_value_stands_in(scene: Scene, failure: Exception) -> None:
    await scene.ask()
    scene.clock.now += OLD
    scene.compute.failure = failure
    assert [await scene.ask() for _ in range(3)] == [Fetched("value 1", "stale")] * 3
    assert scene.compute.calls == 2, "what has just failed is not tried again at once"
    assert scene.cache.stats().computed == {"computed": 1, "stale": 3}
    scene.clock.now += PAUSE_SECONDS + 0.1
    assert (await scene.ask()).tier == "stale"
    assert scene.compute.calls == 3
    scene.clock.now += PAUSE_SECONDS + 0.1
    scene.compute.failure = None
    assert await scene.ask() == Fetched("value 4", "miss")


async def test_not_for_ever(scene: Scene) -> None:
    await scene.ask()
    scene.clock.now += STALE + LIFE.on_error
    scene.compute.failure = Upstream("away")
    with pytest.raises(Upstream):
        await scene.ask()


@pytest.mark.parametrize("failure", [Invalid("bad"), ValueError("a bug")], ids=repr)
async def test_what_is_wrong_with_the_request_or_with_us_is_raised(scene: Scene, failure: Exception) -> None:
    await scene.ask()
    scene.clock.now += OLD
    scene.compute.failure = failure
    with pytest.raises(type(failure)):
        await scene.ask()


async def test_a_refresh_that_fails_leaves_the_value_and_waits_before_the_next(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.ask()
    scene.clock.now += STALE
    scene.compute.failure = Upstream(f"could not say {SECRET}")
    with caplog.at_level(logging.DEBUG):
        for _ in range(5):
            assert await scene.ask() == Fetched("value 1", "stale")
            await scene.rest()
    assert scene.compute.calls == 2
    assert "could not be computed anew (Upstream)" in caplog.text
    assert SECRET not in caplog.text


async def test_a_value_that_took_long_is_refreshed_before_its_end(scene: Scene) -> None:
    async def slowly() -> str:
        await asyncio.sleep(0.05)
        return await scene.compute()

    await scene.cache.fetch(KEY, slowly, LIFE)
    entry = scene.cache._tiers.peek(KEY)
    assert entry is not None
    assert entry.delta >= 0.05
    scene.clock.now = entry.fresh_until - 26 * entry.delta
    assert [await scene.ask() for _ in range(9)] == [Fetched("value 1", "l1")] * 9
    assert scene.compute.calls == 1
    scene.clock.now = entry.fresh_until - 0.001
    # Each of them draws, and 98 of 100 draw it.
    assert [await scene.ask() for _ in range(9)] == [Fetched("value 1", "l1")] * 9
    await scene.rest()
    assert scene.compute.calls == 2
    assert await scene.ask() == Fetched("value 2", "l1")


async def test_that_there_is_nothing_is_remembered_for_a_short_time(scene: Scene) -> None:
    asked = 0

    async def search() -> list[str] | Nothing[list[str]]:
        nonlocal asked
        asked += 1
        return Nothing([])

    assert await scene.cache.fetch(KEY, search, LIFE) == Fetched([], "miss")
    assert await scene.cache.fetch(KEY, search, LIFE) == Fetched([], "l1")
    scene.clock.now += 10 * (1 + JITTER)
    assert await scene.cache.fetch(KEY, search, LIFE) == Fetched([], "miss")
    assert await scene.cache.fetch(KEY, search, Life(60)) == Fetched([], "l1")
    scene.clock.now += 100
    assert await scene.cache.fetch(KEY, search, Life(60)) == Fetched([], "miss")
    assert await scene.cache.fetch(KEY, search, Life(60)) == Fetched([], "miss"), "no time for it: not kept"
    assert asked == 4


async def test_an_old_answer_does_not_take_the_place_of_one_that_has_begun(scene: Scene) -> None:
    fails_after = 0

    async def talk(tell: Tell) -> str:
        for piece in range(fails_after):
            tell(piece)
        raise Upstream("away")

    await scene.ask()
    scene.clock.now += OLD
    found = await scene.cache.stream(KEY, talk, LIFE)
    assert found == Fetched("value 1", "stale")
    scene.clock.now += PAUSE_SECONDS + 0.1
    fails_after = 2
    found = await scene.cache.stream(KEY, talk, LIFE)
    assert isinstance(found, Streaming)
    assert [found.first, *[piece async for piece in found.rest()]] == [0, 1]
    with pytest.raises(Upstream):
        await found.value()


@pytest.fixture
async def workers(redis: RedisServer) -> AsyncIterator[list[TieredCache]]:
    clock = Clock()
    async with Remote(redis.url, timeout_seconds=2.0) as one, Remote(redis.url, timeout_seconds=2.0) as other:
        workers = [TieredCache(LocalCache(1024 * 1024, clock=clock), remote, clock=clock) for remote in (one, other)]
        yield workers
        for worker in workers:
            await worker.aclose()


@pytest.mark.redis
async def test_a_refresh_is_one_over_all_processes(workers: list[TieredCache]) -> None:
    compute = Compute()

    async def ask(worker: TieredCache) -> Any:
        return await worker.fetch(KEY, compute, LIFE)

    await ask(workers[0])
    await workers[0].drain()
    assert await ask(workers[1]) == Fetched("value 1", "l2")
    clock: Any = workers[0]._clock
    clock.now += STALE
    compute.gate.clear()
    assert [(await ask(worker)).tier for worker in workers] == ["stale", "stale"]
    await asyncio.sleep(0.1)
    compute.gate.set()
    async with asyncio.timeout(5):
        while any(worker.stats().flights for worker in workers):  # noqa: ASYNC110  As above.
            await asyncio.sleep(0.01)
    assert [await ask(worker) for worker in workers] == [Fetched("value 2", "l1")] * 2
    assert compute.calls == 2


@pytest.mark.redis
async def test_what_is_stale_in_redis_is_refreshed_even_where_there_is_no_first_tier(redis: RedisServer) -> None:
    clock, compute = Clock(), Compute()
    async with Remote(redis.url, timeout_seconds=2.0) as remote:
        cache = TieredCache(LocalCache(0), remote, clock=clock)
        await cache.fetch(KEY, compute, LIFE)
        await cache.drain()
        clock.now += STALE
        assert await cache.fetch(KEY, compute, LIFE) == Fetched("value 1", "stale")
        async with asyncio.timeout(5):
            while compute.calls < 2 or cache.stats().flights:  # noqa: ASYNC110  As above.
                await asyncio.sleep(0.01)
        await cache.drain()
        assert await cache.fetch(KEY, compute, LIFE) == Fetched("value 2", "l2")
        await cache.aclose()
