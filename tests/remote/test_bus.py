"""The bus over a real Redis: what is said is heard, and who was away learns that he was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from ragagent.remote import bus as module
from ragagent.remote.bus import Bus
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]


class Hearer:
    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.bus = Bus(remote)
        self.words: list[str] = []
        self.joins = 0

    def start(self) -> None:
        self.bus.start(lambda word: self.words.append(word.decode()), self._on_join)

    def _on_join(self) -> None:
        self.joins += 1


@asynccontextmanager
async def hearing(*urls: str) -> AsyncIterator[list[Hearer]]:
    """Workers of these servers, who have joined."""
    async with AsyncExitStack() as stack:
        hearers = []
        for url in urls:
            remote = await stack.enter_async_context(Remote(url, timeout_seconds=1.0))
            hearers.append(Hearer(remote))
            stack.push_async_callback(hearers[-1].bus.aclose)
            hearers[-1].start()
        await until(lambda: all(hearer.joins for hearer in hearers))
        yield hearers


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)


@pytest.fixture
def admin(redis: RedisServer) -> Iterator[Any]:
    with contextlib.closing(redis.admin()) as admin:
        yield admin


async def test_two_hundred_words_reach_everyone_in_order(redis: RedisServer) -> None:
    async with hearing(*[redis.url] * 4) as hearers:
        for number in range(200):
            assert await hearers[number % 4].bus.tell(f"word {number}")
        await until(lambda: all(len(hearer.words) == 200 for hearer in hearers))
        assert all(hearer.words == [f"word {number}" for number in range(200)] for hearer in hearers)


async def test_another_database_of_the_server_is_another_bus(redis: RedisServer) -> None:
    other = redis.url.replace("/0", "/1")
    async with hearing(redis.url, other) as (one, two):
        await one.bus.tell("first", "token")
        await two.bus.tell("second")
        await until(lambda: one.words and two.words)
        assert (one.words, two.words) == (["first"], ["second"])
        assert (await one.bus.token(), await two.bus.token()) == ("token", None)


async def test_who_was_cut_off_joins_again_and_is_told_so(redis: RedisServer, admin: Any) -> None:
    async with hearing(redis.url) as (hearer,):
        admin.client_kill_filter(_type="pubsub")
        await until(lambda: hearer.joins == 2)
        await hearer.bus.tell("again")
        await until(lambda: hearer.words == ["again"])


async def test_a_server_that_hangs_is_noticed_and_found_again(redis: RedisServer) -> None:
    async with hearing(redis.url) as (hearer,):
        redis.pause()
        await until(lambda: not hearer.bus.is_joined, 15)
        await until(lambda: hearer.remote.state == "degraded", 5)  # Though nobody else has asked for anything.
        redis.resume()
        await until(lambda: hearer.joins == 2, 15)


async def test_a_server_that_dies_loses_the_token_as_well(redis: RedisServer) -> None:
    async with hearing(redis.url) as (hearer,):
        await hearer.bus.tell("purge", "token 1")
        assert await hearer.bus.token() == "token 1"
        redis.kill()
        await until(lambda: not hearer.bus.is_joined)
        redis.start()
        await until(lambda: hearer.joins == 2, 15)
        async with asyncio.timeout(10):
            while isinstance(await hearer.bus.token(), NoReply):  # noqa: ASYNC110 - nor this
                await asyncio.sleep(0.02)
        assert await hearer.bus.token() is None


async def test_a_slow_consumer_is_kicked_and_comes_back(redis: RedisServer, admin: Any) -> None:
    admin.config_set("client-output-buffer-limit", "pubsub 100000 0 0")
    try:
        async with hearing(redis.url) as (hearer,):
            for _ in range(200):  # Not awaited: while this goes on the hearer hears nothing, and megabytes pile up.
                admin.publish("rag:purge:0", b"x" * 100_000)
            await until(lambda: hearer.joins == 2)
            await hearer.bus.tell("again")
            await until(lambda: hearer.words[-1:] == ["again"])
            assert len(hearer.words) < 200
    finally:
        admin.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")


async def test_silence_is_no_loss(redis: RedisServer) -> None:
    async with hearing(redis.url) as (hearer,):
        await asyncio.sleep(5 * module.HEARTBEAT_SECONDS)
        assert (hearer.joins, hearer.bus.is_joined) == (1, True)


async def test_without_a_server_nothing_happens() -> None:
    async with Remote("redis://127.0.0.1:1/0") as remote:
        hearer = Hearer(remote)
        hearer.start()
        assert not await hearer.bus.tell("nobody hears")
        assert isinstance(await hearer.bus.token(), NoReply)
        await hearer.bus.aclose()
        assert hearer.joins == 0
