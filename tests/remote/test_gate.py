"""What the errors of a real server mean: who is kept from asking, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from caching.slow_proxy import SlowProxy, slow_proxy
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer, load_slowly, replica_of_nobody

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

KEY = "rag:1:-:embedding:00"
HEALED_SECONDS = 1.0  # the promise; the tests allow a busy machine more


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, timeout_seconds=0.3) as remote:
        yield remote


async def until(remote: Remote, state: str, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while remote.state != state:
            await remote.get(KEY)
            await remote.set(KEY, b"value", ttl=60)
            await asyncio.sleep(0.005)


async def test_a_replica_refuses_writes_and_still_answers_reads(
    redis: RedisServer, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    assert await remote.set(KEY, b"value", ttl=60) is None
    with replica_of_nobody(redis):
        assert [await remote.set(KEY, b"lost", ttl=60) for _ in range(9)] == [NoReply.REFUSED] * 9
        assert await remote.get(KEY) == b"value"
        assert remote.state == "degraded"
        assert remote.is_reachable
        assert len(caplog.records) == 1
    await until(remote, "up")


async def test_what_became_a_replica_is_left_for_what_its_name_leads_to_now(redis: RedisServer) -> None:
    async with Remote(redis.url) as remote, asyncio.timeout(10):
        await remote.get(KEY)
        with contextlib.closing(redis.admin()) as admin:
            before = {client["id"] for client in admin.client_list() if client["name"] == "ragagent"}
            with replica_of_nobody(redis):
                assert await remote.set(KEY, b"lost", ttl=60) is NoReply.REFUSED
                await remote.get(KEY)
                after = {client["id"] for client in admin.client_list() if client["name"] == "ragagent"}
        assert before
        assert after
        assert not before & after


async def test_a_server_that_loads_its_data_is_as_good_as_gone(redis: RedisServer, remote: Remote) -> None:
    loading = threading.Thread(target=load_slowly, args=(redis,))
    loading.start()
    try:
        await until(remote, "degraded")
        assert await remote.get(KEY) is NoReply.OPEN
    finally:
        await asyncio.to_thread(loading.join)
    await until(remote, "up", 5 * HEALED_SECONDS)


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[SlowProxy]:
    with slow_proxy(redis.port) as proxy:
        yield proxy


async def test_a_reply_that_dribbles_in_costs_no_more_than_one_that_never_comes(proxy: SlowProxy) -> None:
    async with Remote(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=0.2) as remote:
        assert remote.state == "up"
        proxy.delay_seconds, proxy.byte_seconds = 0.08, 1.0
        begun = time.monotonic()
        assert [await remote.get(KEY) for _ in range(4)] == [NoReply.FAILED] * 3 + [NoReply.OPEN]
        assert time.monotonic() - begun < 3.0
        proxy.delay_seconds = proxy.byte_seconds = 0.0
        await until(remote, "up", 5 * HEALED_SECONDS)


async def test_connections_that_the_server_cuts_are_replaced(redis: RedisServer, remote: Remote) -> None:
    await asyncio.gather(*(remote.set(KEY, b"value", ttl=60) for _ in range(16)))
    for _ in range(3):
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        replies = [await remote.get(KEY) for _ in range(20)]
        assert set(replies) <= {b"value", NoReply.FAILED}
        assert replies[-1] == b"value"
    assert remote.state == "up"


async def test_many_at_once_are_all_served_in_their_turn(redis: RedisServer) -> None:
    async with Remote(redis.url, connections=16, timeout_seconds=2.0) as remote:
        await remote.set("rag:1:0", b"0", ttl=60)  # The connections of the first sixteen are still to be made.
        await asyncio.gather(*(remote.set(KEY, b"x", ttl=60) for _ in range(16)))
        replies = await asyncio.gather(*(remote.get("rag:1:0") for _ in range(200)))
        assert replies == [b"0"] * 200
        assert remote.state == "up"


async def test_a_thousand_callers_that_leave_take_no_reply_of_others_and_no_connection_along(
    redis: RedisServer,
) -> None:
    chance = random.Random(7)
    async with Remote(redis.url, connections=8, timeout_seconds=2.0, client_name="storm") as remote:
        for number in range(20):
            await remote.set(f"rag:1:{number}", str(number).encode(), ttl=60)
        left = 0
        while left < 1000:
            tasks = [asyncio.create_task(remote.get(f"rag:1:{number}")) for number in range(20)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 15):
                task.cancel()
            for number, reply in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                left += isinstance(reply, asyncio.CancelledError)
                assert reply == str(number).encode() or isinstance(reply, asyncio.CancelledError)
        assert remote.state == "up"
        assert remote.stats().in_use == 0
        with contextlib.closing(redis.admin()) as admin:

            async def is_level() -> bool:
                return sum(client["name"] == "storm" for client in admin.client_list()) == remote.stats().connections

            async with asyncio.timeout(10):
                while not await is_level():  # noqa: ASYNC110  It happens in another process.
                    await asyncio.sleep(0.01)
        assert remote.stats().connections <= 8 + 4


async def test_no_cancellation_is_lost(redis: RedisServer) -> None:
    chance = random.Random(7)
    async with Remote(redis.url, timeout_seconds=2.0) as remote:

        async def work() -> None:
            while True:
                await remote.run("return 1", ["{a}"])

        for _ in range(100):
            task = asyncio.create_task(work())
            await asyncio.sleep(chance.random() * 0.0015)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done
            assert task.cancelled()
        assert remote.state == "up"
